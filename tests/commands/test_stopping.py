"""Runs that are stopped, and resumed."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from tests.commands.calling import TRAIN, call, refused, subprocess_of


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_run_resumes(tmp_path, number, code, capsys):
    out = tmp_path / "run"
    args = ["train", "digits", "--out", out, "--steps", 1200, "--latent-dim", 2, "--width", 16]
    process = subprocess_of(*args, "--patience", 1000, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.time() + 60
    while time.time() < deadline and not list(out.glob("checkpoints/step-*")):
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert "saved" in err
    assert f"--resume {out}" in err
    assert not (out / "report.html").exists()
    assert call("train", "--resume", out, "--quiet") == 0
    assert (out / "report.html").exists()
    steps = [
        json.loads(line)["step"]
        for line in (out / "metrics.jsonl").read_text().splitlines()
        if '"validation"' in line
    ]
    assert steps == sorted(set(steps))
    assert steps[-1] == 1200
    assert call("train", "--resume", out, "--quiet") == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_while_it_is_judged_says_how_to_go_on(
    tmp_path, number, code, capsys, monkeypatch
):
    out = tmp_path / "run"

    def stopped(*args, **options):
        os.kill(os.getpid(), number)
        time.sleep(10)

    with monkeypatch.context() as patch:
        patch.setattr("lowerbound.run.evaluate", stopped)
        assert call("train", "digits", "--out", out, *TRAIN) == code
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line.startswith("lowerbound: stopped after training")
    assert f"`lowerbound train --resume {out}`" in line
    assert not (out / "evaluation.json").exists()
    assert call("train", "--resume", out, "--quiet") == 0
    assert (out / "evaluation.json").exists()
    assert (out / "report.html").exists()


def test_resuming_a_run_without_a_checkpoint_starts_it_again(run, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.yaml").write_text((run / "config.yaml").read_text())
    assert call("train", "--resume", out, "--quiet") == 0
    assert (out / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


def test_damaged_checkpoints_are_exit_code_3(run, tmp_path, capsys):
    out = tmp_path / "run"
    assert call("train", "digits", "--out", out, *TRAIN) == 0
    (out / "report.html").unlink()  # as if it had not finished
    for path in out.glob("checkpoints/*/state.json"):
        path.write_text("{}")
    assert "no checkpoint" in refused(capsys, "train", "--resume", out, "--quiet", code=3)
