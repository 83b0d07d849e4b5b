"""``train --resume auto``: the newest unfinished run that nobody else is training."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lowerbound.cli import train_flags
from lowerbound.config import RunConfig
from lowerbound.errors import InputError
from lowerbound.launch import is_launched
from lowerbound.run import newest_unfinished
from lowerbound.training.checkpoint import RunLock, is_locked
from tests.commands.calling import refused


@pytest.fixture
def runs(tmp_path, monkeypatch) -> list[Path]:
    """Two unfinished runs, the newer one last."""
    monkeypatch.chdir(tmp_path)
    made = [Path("runs") / name for name in ("older", "newer")]
    for i, run in enumerate(made):
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(RunConfig(steps=5).to_yaml())
        os.utime(run / "config.yaml", (i, i))
    return made


def test_a_run_that_is_being_trained_is_passed_over(runs):
    older, newer = runs
    assert newest_unfinished() == newer
    with RunLock(newer):
        assert is_locked(newer)
        assert newest_unfinished() == older
        assert train_flags(["--resume", "auto"]).resume == str(older)
    assert not is_locked(newer)
    assert newest_unfinished() == newer


def test_asking_takes_no_lock_and_leaves_nothing(runs):
    newest_unfinished()
    assert not (runs[1] / "run.lock").exists()
    with RunLock(runs[1]):
        pass
    newest_unfinished()
    with RunLock(runs[1]):
        pass


def test_where_all_are_being_trained_the_refusal_says_so(runs, capsys):
    with RunLock(runs[0]), RunLock(runs[1]):
        said = refused(capsys, "train", "--resume", "auto")
    assert "no unfinished run under 'runs' but 2 that another process is training" in said


def test_without_runs_none_is_said_to_be_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="found no unfinished run under 'runs'; name one"):
        newest_unfinished()


def test_processes_of_one_run_are_not_told_of_their_own_lock(runs, monkeypatch):
    monkeypatch.setattr("lowerbound.cli.is_launched", lambda: True)
    assert not is_launched()
    with RunLock(runs[1]):
        assert train_flags(["--resume", "auto"]).resume == str(runs[1])


@pytest.mark.parametrize("asked", [["--resume", "auto"], ["--resume=auto"]])
def test_all_processes_take_the_run_that_was_found(runs, monkeypatch, asked):
    heard = []
    monkeypatch.setattr("lowerbound.engine.check_devices", lambda device, num: None)
    monkeypatch.setattr("lowerbound.cli.watch", lambda args, num: heard.append(args) or 0)
    from lowerbound.cli import run_command_line

    with RunLock(runs[1]):
        assert run_command_line(["train", *asked, "--devices", "2", "--quiet"]) == 0
    (args,) = heard
    assert args == ["train", "--resume", str(runs[0]), "--devices", "2", "--quiet"]
