# Two commands do everything: `make demo` and `make test`. Neither needs more than Python and pip.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
# A build of PyTorch that is installed together with the package, in one resolver run.
TORCH  ?= torch==2.13.0
VENV   ?= .venv
BIN    := $(VENV)/bin

help:
	@echo "make demo          train a VAE on digits, judge it, draw it"
	@echo "make test          lint, types, layers, doctests and tests"
	@echo "make test-nightly  the long checks"
	@echo "make benchmarks    speed, side by side with others"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(BIN)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check "$(TORCH)" -e .
	@touch $@

$(BIN)/.tested: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check "$(TORCH)" -e ".[dev]"
	@touch $@ $(BIN)/.installed

demo: $(BIN)/.installed
	$(BIN)/lowerbound train digits --out runs/demo --overwrite

test: $(BIN)/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/pytest -n 2 -q -m "not nightly"

test-nightly: $(BIN)/.tested
	$(BIN)/pytest -q -m nightly --timeout 3600

benchmarks: $(BIN)/.tested
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/likelihood.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis

.PHONY: help demo test test-nightly benchmarks clean
