"""Flags of train that a model fitted in closed form cannot use."""

from __future__ import annotations

import pytest

from lowerbound.build import MODELS
from lowerbound.models import Model
from tests.commands.calling import call, refused

EXACT = [n for n, e in MODELS.items() if e.load()[0].fit_exactly is not Model.fit_exactly]


@pytest.fixture
def only_loads(monkeypatch):
    """Training ends where it would begin."""

    def train(config, folder, **rest):
        raise KeyboardInterrupt

    monkeypatch.setattr("lowerbound.run.train", train)


def test_there_are_such_models_and_others():
    assert {"ppca", "mixture", "dct", "lda"} <= set(EXACT)
    assert "vae" not in EXACT


@pytest.mark.usefixtures("only_loads")
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("length", ["epochs", "steps", "minutes"])
def test_a_length_is_accepted_and_called_unused_where_it_is(name, length, capsys):
    assert call("train", "--model", name, f"--{length}", 3, "--learning-rate", 0.1) == 130
    said = f"note: {name} is fitted in closed form; not used: --{length}, --learning-rate\n"
    assert (said in capsys.readouterr().err) == (name in EXACT)


@pytest.mark.usefixtures("only_loads")
@pytest.mark.parametrize(
    "flags", [[], ["--seed", 4, "--device", "cpu"], ["--steps", 5, "--quiet"]]
)
def test_what_is_used_and_what_is_quiet_is_not_spoken_of(flags, capsys):
    assert call("train", "--model", "ppca", *flags) == 130
    assert "note:" not in capsys.readouterr().err


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize(
    "flags", [["--objective", "iwae"], ["--beta", 2], ["--free-bits", 1], ["--num-samples", 2]]
)
def test_an_objective_is_refused_before_anything_is_written(
    name, flags, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    line = refused(capsys, "train", "--model", name, "--quiet", *flags)
    assert f"'{flags[0][2:].replace('-', '_')}' must be left out for {name}" in line
    assert "such as vae" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("only_loads")
def test_a_trained_model_takes_an_objective(capsys):
    assert call("train", "--objective", "iwae", "--steps", 5) == 130
