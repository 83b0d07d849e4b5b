"""A model is one file and one line in the table, as CONTRIBUTING.md says: it is done here."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

import pytest
import torch

from lowerbound.build import MODELS, Entry
from lowerbound.cli import run_command_line
from lowerbound.data import Rows, make_source
from lowerbound.distributions import Binary
from lowerbound.evaluation import evaluate
from tests import new_model
from tests.models import test_contract as contract

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
PROMISES = [
    name
    for name, function in inspect.getmembers(contract, inspect.isfunction)
    if name.startswith("test_")
    and {"trained", "likelihood", "weighted", "name", "case"}
    & set(inspect.signature(function).parameters)
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.S)


@pytest.fixture
def line(monkeypatch):
    """The table with the line of CONTRIBUTING.md, which names the file beside this one."""
    (code,) = [block for block in blocks("python") if "Entry(" in block]
    monkeypatch.setitem(sys.modules, "lowerbound.models.independent", new_model)
    entries = eval(f"{{{code}}}", {"Entry": Entry})
    assert len(entries) == 1
    for name, entry in entries.items():
        monkeypatch.setitem(MODELS, name, entry)
        monkeypatch.setitem(contract.CASES, name, (name, {}))
    return next(iter(entries))


def test_the_file_that_is_shown_is_the_file_that_is_tested():
    (shown,) = [block for block in blocks("python") if "class " in block]
    assert shown == (ROOT / "tests" / "new_model.py").read_text()
    assert len(TEXT.splitlines()) < 80


@pytest.fixture
def trained(line, digits):
    return contract.small(line, digits)


@pytest.mark.parametrize("promise", PROMISES)
def test_it_keeps_every_promise_of_a_model(promise, line, trained, digits, tmp_path):
    """The functions of the contract themselves, given this model."""
    x, function = digits.test[slice(0, 12)][0], getattr(contract, promise)
    have = {
        "trained": trained,
        "likelihood": trained,
        "weighted": trained,
        "x": x,
        "context": None,
        "digits": digits,
        "tmp_path": tmp_path,
        "name": line,
        "case": line,
        "wrong": (1, 8, 7),
        "support": contract.Real(),
        "shape": (3, 7, 4),
        "dtype": torch.uint8,
    }
    function(**{name: have[name] for name in inspect.signature(function).parameters})


def test_its_training_reaches_what_is_known(line, digits):
    """Independent pixels of binary data: log p = −Σ entropies of their frequencies."""
    bits = (digits.train.x > 8).float()
    source = make_source(Rows(x=bits, support=Binary(), name="bits"))
    model = contract.small(line, source)
    contract.fit(model, source, steps=400, learning_rate=0.1, quiet=True)
    p = source.train.x.double().mean(0)
    x = source.test.x.double()
    best = float((torch.xlogy(x, p) + torch.xlogy(1 - x, 1 - p)).flatten(1).sum(1).mean())
    result = evaluate(model, source, num_samples=5)
    assert result["bound"]["value"] == pytest.approx(best, abs=0.3)
    assert result["log_likelihood"]["value"] == result["bound"]["value"]


def test_the_command_line_knows_it(line, tmp_path, capsys):
    run = tmp_path / "run"
    args = ["train", "digits", "--model", line, "--steps", "3", "--out", str(run), "--quiet"]
    assert run_command_line(args) == 0
    assert (run / "report.html").exists()
    assert run_command_line(["evaluate", str(run), "--samples", "5"]) == 0
    assert run_command_line(["models"]) == 0
    assert MODELS[line].summary[:20] in capsys.readouterr().out
