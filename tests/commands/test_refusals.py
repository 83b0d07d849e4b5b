"""Every refusal is one line with its exit code, and leaves nothing half written."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lowerbound.commands import COMMANDS
from tests.commands.calling import TRAIN, call, refused


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["trian"], "there is no command 'trian'; did you mean 'train'?"),
        (["train", "--latent-dims", "3"], "'--latent-dims'; did you mean '--latent-dim'?"),
        (["train", "--steps", "abc"], "'steps' must be a whole number, got abc"),
        (
            ["train", "--model", "diffusion", "--widths", "1,2"],
            "'widths' must be whole numbers, with spaces between them, got 1,2",
        ),
        (["train", "--latent-dim", "0"], "error: 'latent_dim' must be at least 1, got 0"),
        (["train", "--steps", "0"], "'steps' must be above 0, got 0"),
        (["train", "--model", "vea"], "'model' must be one of vae,"),
        (["train", "--epochs", "1", "--steps", "1"], "'epochs' and 'steps' exclude each other"),
        (["train", "nowhere/at/all"], "nowhere/at/all"),
        (["train", "mnist:nowhere"], "nowhere"),
        (["train", "digits", "--likelihood", "gaussian"], "'likelihood' must be one that fits"),
        (["train", "--resume", "nowhere"], "'nowhere' does not exist; --resume takes"),
        (["train", "--resume", "."], "'resume' must be the folder of a run, or auto, got ."),
        (
            ["train", "digits", "more"],
            "no use for 'more' without a flag; did you mean --out more?",
        ),
        (["models", "vae"], "models has no use for 'vae' without a flag; leave it out"),
        (["sample", "nowhere", "-n", "3"], "sample has no flag '-n'"),
        (["compare"], "'runs' must be at least one run folder, got none"),
        (["train", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["evaluate", "nowhere"], "'nowhere' does not exist"),
        (["evaluate"], "evaluate needs RUN, the folder of a run, as in `lowerbound evaluate RUN`"),
        (["sample", "nowhere"], "does not exist"),
        (["compare", "nowhere"], "'nowhere' has no evaluation.json"),
        (
            ["train", "--objective", "iwea"],
            "'objective' must be one of elbo, iwae,",
        ),
        (["train", "--objective", "iwea"], "got iwea; did you mean 'iwae'?"),
        (
            ["train", "--logger", "tensorboard", "wandbb", "--steps", "3"],
            "one of tensorboard, trackio, wandb, got wandbb; did you mean 'wandb'?",
        ),
        (["train", "--logger=wandbb"], "got wandbb; did you mean 'wandb'?"),
        (["train", "--device", "warp"], "'device' must be one that this machine has"),
    ],
)
def test_a_mistake_is_one_line_with_exit_code_2(args, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *args)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["evaluate", "RUN", "--samples", "0"], "'samples' must be at least 1"),
        (["sample", "RUN", "--num", "0"], "'num' must be at least 1"),
        (["sample", "RUN", "--out", "x.gif"], "'out' must be a file ending in .png, .npz or .csv"),
        (["sample", "RUN", "--out", "x.csv"], "ending in .npz for examples of shape 1×8×8"),
        (["reconstruct", "RUN", "--out", "x.csv"], "ending in .npz for examples of shape 1×8×8"),
        (["decode", "RUN", "--out", "x.csv"], "ending in .npz for examples of shape 1×8×8"),
        (["sample", "RUN", "9"], "did you mean --num 9?"),
        (["decode", "RUN", "z.npz"], "did you mean --latents z.npz?"),
        (["encode", "RUN", "x.npy"], "did you mean --data x.npy?"),
        (["score", "RUN", "x.npy"], "did you mean --data x.npy?"),
        (["sample", "RUN", "--label", "3"], "'label' must be left out"),
        (["interpolate", "RUN", "--steps", "1"], "'steps' must be at least 2"),
        (["encode", "RUN", "--out", "z.txt"], "'out' must be a file ending in .npz or .csv"),
        (["decode", "RUN"], "latents.npz"),
        (["decode", "RUN", "--latents", "nowhere.npz"], "nowhere.npz"),
        (["evaluate", "RUN", "--data", "other.npy"], "shape 1×8×8, got 1×9×9"),
        (["train", "digits", "--out", "RUN", "--steps", "1"], "'out' must be an empty or new"),
        (["train", "--resume", "RUN", "--steps", "9"], "'steps' must be as the run began, 30"),
    ],
)
def test_a_mistake_with_a_run_leaves_nothing(args, message, run, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("other.npy", np.zeros((20, 9, 9), np.uint8))
    before = sorted(p.name for p in run.iterdir())
    assert message in refused(capsys, *[str(run) if a == "RUN" else a for a in args])
    assert sorted(p.name for p in run.iterdir()) == before
    assert [p.name for p in tmp_path.iterdir()] == ["other.npy"]


def test_a_config_with_an_unknown_key_names_it(tmp_path, capsys):
    path = tmp_path / "config.yaml"
    path.write_text("data: digits\nlearning_rat: 0.1\n")
    assert "'learning_rat'; did you mean 'learning_rate'?" in refused(
        capsys, "train", "--config", path
    )
    path.write_text("options: {latent_dims: 3}\n")
    assert "did you mean 'latent_dim'?" in refused(capsys, "train", "--config", path)
    path.write_text("steps: many\n")
    assert "'steps'" in refused(capsys, "train", "--config", path)
    path.write_text("format_version: 7\n")
    assert "upgrade" in refused(capsys, "train", "--config", path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[1, 2\n", "line 2: expected ',' or ']'"),
        (b"data: digits\nsteps: 3: 4\n", "line 2: mapping values are not allowed here"),
        (b"data: \x00\n", "unacceptable character #x0000"),
        (b"data: \xff\n", "it is not UTF-8 text"),
        (b"[" * 20_000, "it is nested too deeply"),
        (None, "No such file or directory"),
    ],
)
def test_a_config_that_cannot_be_read_is_named_once_with_line_and_reason(
    content, reason, tmp_path, capsys
):
    path = tmp_path / "c.yaml"
    if content is not None:
        path.write_bytes(content)
    said = refused(capsys, "train", "--config", path)
    assert f"'{path}' cannot be read: {reason}" in said
    assert said.count(str(path)) == 1
    assert "Errno" not in said
    assert "<unicode" not in said


def test_a_bug_is_one_line_and_a_log(monkeypatch, capsys):
    def broken(flags):
        raise RuntimeError("something\nunforeseen")

    monkeypatch.setitem(COMMANDS, "models", replace(COMMANDS["models"], run=broken))
    line = refused(capsys, "models", code=1)
    assert "this is a bug: RuntimeError" in line
    log = Path(line.split()[-1])
    assert "unforeseen" in log.read_text()
    log.unlink()


def test_memory_that_ran_out_is_exit_code_4(monkeypatch, capsys):
    def hungry(flags):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setitem(COMMANDS, "models", replace(COMMANDS["models"], run=hungry))
    assert "out of memory" in refused(capsys, "models", code=4)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write anywhere")
def test_a_folder_that_cannot_be_written_is_exit_code_4(run, tmp_path, capsys):
    tmp_path.chmod(0o500)
    refused(capsys, "sample", run, "--out", tmp_path / "a.png", code=4)


def test_overwrite_replaces_a_run_and_spares_what_is_not_its_own(run, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    for _ in range(2):
        assert call("train", "digits", "--out", out, "--overwrite", "--steps", 2, *TRAIN[2:]) == 0
    assert (out / "notes.txt").read_text() == "mine"
    assert len(list((out / "checkpoints").glob("step-*"))) >= 1
