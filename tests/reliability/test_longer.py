"""A finished run that is to be longer: it trains on, or is refused and stays as it was."""

from __future__ import annotations

import shutil

import pytest

from lowerbound.cli import run_command_line
from lowerbound.run import run_config
from lowerbound.training.state import Position
from tests.reliability.test_resume import line_of
from tests.reliability.tiny import contents, untimed_rows


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of the command that has ended by itself."""
    folder = tmp_path_factory.mktemp("finished")
    args = ["train", "digits", "--out", folder / "run", "--width", 8, "--steps", 20, "--quiet"]
    assert run_command_line([str(a) for a in [*args, "--validations", 5]]) == 0
    return folder / "run"


def test_a_finished_run_trains_on_where_more_steps_are_allowed(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    before = (run / "model.safetensors").read_bytes()
    args = ["train", "--resume", str(run), "--quiet", "--allow-changed", "--steps", "40"]
    assert run_command_line(args) == 0
    steps = [row["step"] for row in untimed_rows(run, "validation")]
    assert steps == [4, 8, 12, 16, 20, 24, 32, 40]  # five in all of the new length
    assert run_config(run).steps == 40
    assert (run / "report.html").exists()
    assert (run / "model.safetensors").read_bytes() != before


@pytest.mark.parametrize("args", [[], ["--steps", "20"], ["--seed", "1"], ["--epochs", "1"]])
def test_a_finished_run_without_more_steps_is_refused_in_one_line(args, finished, capsys):
    before = contents(finished)
    line = line_of(capsys, "train", "--resume", finished, "--quiet", "--allow-changed", *args)
    name = "epochs" if "--epochs" in args else "steps"
    assert f"'{name}' must be more than the run has had, 20 steps" in line
    assert contents(finished) == before


def test_a_run_that_is_refused_while_it_goes_on_is_finished_still(finished, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    before = contents(run)
    args = ["--allow-changed", "--steps", 40, "--width", 9]
    assert "does not fit the model" in line_of(capsys, "train", "--resume", run, "--quiet", *args)
    assert contents(run) == before


def test_a_run_that_stopped_early_goes_on_with_patience_anew():
    position = Position(step=60, validations=3, since_best=10, finished=True)
    position.stand_at(0.5, 20)
    assert (position.finished, position.since_best, position.validations) == (False, 0, 10)
    position = Position(step=60, validations=20, since_best=4, finished=True)
    position.stand_at(1.0, 20)
    assert (position.finished, position.since_best, position.validations) == (True, 4, 20)
