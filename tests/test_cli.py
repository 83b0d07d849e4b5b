"""The command line: every verb on a real run, every refusal one line with its exit code."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lowerbound.cli import run_command_line
from lowerbound.commands import COMMANDS

TRAIN = ["--steps", "30", "--latent-dim", "2", "--width", "16", "--quiet"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "one"
    assert run_command_line(["train", "digits", "--out", str(folder), *TRAIN]) == 0
    return folder


def call(*args: object) -> int:
    return run_command_line([str(arg) for arg in args])


def refused(capsys, *args: object, code: int = 2) -> str:
    """The one line of a refusal."""
    capsys.readouterr()
    assert call(*args) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("lowerbound: error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


def subprocess_of(*args: object, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "lowerbound", *map(str, args)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


# --- help ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [["--help"], ["train", "--help"], ["models"]])
def test_help_imports_no_torch(args):
    code = (
        "import sys\nfrom lowerbound.cli import run_command_line\n"
        f"try: run_command_line({args!r})\nexcept SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as stop:
        call(name, "--help")
    assert not stop.value.code
    text = capsys.readouterr().out
    assert f"usage: lowerbound {name}" in text
    assert "{None}" not in text


def test_the_models_own_flags_have_a_sentence_each(capsys):
    with pytest.raises(SystemExit):
        call("train", "--model", "vae", "--help")
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--latent-dim INT Number of latent dimensions d." in text
    assert "--kl {analytic,sampled} KL(q ‖ p) in closed form" in text


def test_the_overview_names_every_command(capsys):
    assert call() == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in COMMANDS)


# --- verbs --------------------------------------------------------------------------------------


def test_a_run_folder_holds_everything(run):
    names = {p.name for p in run.iterdir()}
    assert names >= {
        "config.yaml", "metrics.jsonl", "checkpoints", "model.safetensors", "config.json",
        "evaluation.json", "report.html", "samples.png", "reconstructions.png", "latents.png",
        "interpolations.png", "plane.png", "training.png",
    }  # fmt: skip
    assert not [p for p in run.rglob("*") if p.name.startswith((".tmp", ".trash"))]
    for picture in run.glob("*.png"):
        Image.open(picture).verify()


def test_the_config_of_a_run_repeats_it(run, tmp_path):
    out = tmp_path / "two"
    assert call("train", "--config", run / "config.yaml", "--out", out, "--quiet") == 0
    for name in ("model.safetensors", "config.json", "config.yaml"):
        assert (out / name).read_bytes() == (run / name).read_bytes()


def test_flags_override_a_config(run, tmp_path):
    out = tmp_path / "three"
    assert call("train", "--config", run / "config.yaml", "--steps", 3, "--latent-dim", 3,
                "--out", out, "--quiet") == 0  # fmt: skip
    text = (out / "config.yaml").read_text()
    assert "steps: 3\n" in text
    assert "latent_dim: 3\n" in text
    assert "width: 16\n" in text


def test_evaluate_prints_one_json_object(run, capsys):
    assert call("evaluate", run, "--samples", 5, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["log_likelihood"]["num_samples"] == 5
    assert result["num_examples"] == 179
    assert call("evaluate", run, "--samples", 5, "--split", "validation") == 0
    assert "log-likelihood" in capsys.readouterr().out


def test_evaluate_agrees_with_what_train_wrote(run, capsys):
    assert call("evaluate", run, "--samples", 100, "--json") == 0
    again, before = (
        json.loads(capsys.readouterr().out),
        json.loads((run / "evaluation.json").read_text()),
    )
    for result in (again, before):
        result.pop("seconds")
    assert again == before


def test_samples_go_into_pictures_and_arrays(run, tmp_path):
    assert call("sample", run, "--num", 9, "--out", tmp_path / "s.png") == 0
    assert Image.open(tmp_path / "s.png").size[0] > 100
    for _ in range(2):
        assert call("sample", run, "--num", 9, "--seed", 4, "--out", tmp_path / "s.npz") == 0
        x = np.load(tmp_path / "s.npz")["x"]
        assert (x.shape, x.dtype) == ((9, 1, 8, 8), np.uint8)
    assert call("sample", run, "--num", 9, "--seed", 5, "--out", tmp_path / "t.npz") == 0
    assert (np.load(tmp_path / "t.npz")["x"] != x).any()


def test_reconstruct_and_interpolate(run, tmp_path):
    for verb, key, shape in (
        ("reconstruct", "reconstructions", (4, 1, 8, 8)),
        ("interpolate", "x", (4, 7, 1, 8, 8)),
    ):
        steps = ["--steps", 7] if verb == "interpolate" else []
        assert call(verb, run, "--num", 4, *steps, "--out", tmp_path / "a.npz") == 0
        assert np.load(tmp_path / "a.npz")[key].shape == shape
        assert call(verb, run, "--num", 4, "--out", tmp_path / "a.png") == 0
        Image.open(tmp_path / "a.png").verify()


def test_encode_then_decode_keeps_every_row_in_its_place(run, tmp_path):
    z, x = tmp_path / "z.npz", tmp_path / "x.npz"
    assert call("encode", run, "--data", "digits", "--out", z) == 0
    latents = np.load(z)
    assert latents["z"].shape == latents["sigma"].shape == (1797, 2)
    assert call("decode", run, "--latents", z, "--out", x) == 0
    assert np.load(x)["x"].shape == (1797, 1, 8, 8)
    one = tmp_path / "one.npy"
    from sklearn.datasets import load_digits

    np.save(one, load_digits().images[5:6].astype(np.uint8))
    assert call("encode", run, "--data", one, "--out", z) == 0  # a single row is enough
    assert np.allclose(np.load(z)["z"], latents["z"][5:6], atol=1e-5)


def test_score_is_a_table_of_every_row(run, tmp_path):
    assert call("score", run, "--data", "digits", "--out", tmp_path / "s.csv") == 0
    rows = list(csv.DictReader((tmp_path / "s.csv").open()))
    assert list(rows[0]) == ["index", "bound", "bits_per_dim"]
    assert [int(r["index"]) for r in rows] == list(range(1797))
    assert float(rows[0]["bits_per_dim"]) == pytest.approx(
        -float(rows[0]["bound"]) / (64 * np.log(2)), abs=1e-6
    )


def test_compare_and_the_lists(run, capsys):
    assert call("compare", run, run, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["runs"]) == 2
    assert call("models", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    keys = "name summary reference nats is_likelihood samples conditional".split()
    assert list(rows[0]) == keys
    for verb in ("models", "datasets", "compare"):
        assert call(verb, *([run] if verb == "compare" else [])) == 0
        assert capsys.readouterr().out


def test_runs_on_differently_prepared_data_are_not_called_comparable(run, tmp_path, capsys):
    other = tmp_path / "static"
    assert call("train", "digits", "--binarize", "static", "--out", other, *TRAIN) == 0
    capsys.readouterr()
    assert call("compare", run, other, "--json") == 0
    out, err = capsys.readouterr()
    assert not json.loads(out)["comparable"]
    assert "different data" in err


def test_doctor_and_completion(capsys):
    assert call("doctor", "--json") == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "ready"
    with pytest.raises(SystemExit):
        call("completion", "bash")
    assert "lowerbound" in capsys.readouterr().out


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["trian"], "there is no command 'trian'; did you mean 'train'?"),
        (["train", "--latent-dims", "3"], "'--latent-dims'; did you mean '--latent-dim'?"),
        (["train", "--steps", "abc"], "'steps' must be a whole number, got abc"),
        (["train", "--latent-dim", "0"], "error: 'latent_dim' must be at least 1, got 0"),
        (["train", "--steps", "0"], "'steps' must be above 0, got 0"),
        (["train", "--model", "vea"], "'model' must be one of vae,"),
        (["train", "--epochs", "1", "--steps", "1"], "'epochs' and 'steps' exclude each other"),
        (["train", "nowhere/at/all"], "nowhere/at/all"),
        (["train", "mnist:nowhere"], "nowhere"),
        (["train", "digits", "--likelihood", "gaussian"], "'likelihood' must be one that fits"),
        (["train", "--resume", "nowhere"], "'resume' must be the folder of a run"),
        (["train", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["evaluate", "nowhere"], "'nowhere' does not exist"),
        (["evaluate"], "Missing"),
        (["sample", "nowhere"], "does not exist"),
        (["compare", "nowhere"], "'nowhere' has no evaluation.json"),
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
        (["sample", "RUN", "--out", "x.gif"], "'out' must be a file ending in .png or .npz"),
        (["sample", "RUN", "--label", "3"], "'label' must be left out"),
        (["interpolate", "RUN", "--steps", "1"], "'steps' must be at least 2"),
        (["encode", "RUN", "--out", "z.csv"], "'out' must be a file ending in .npz"),
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
    path.write_text("[1, 2\n")
    assert "cannot be read" in refused(capsys, "train", "--config", path)
    path.write_text("format_version: 7\n")
    assert "upgrade" in refused(capsys, "train", "--config", path)


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


# --- stopping and resuming ----------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_run_resumes(tmp_path, number, code, capsys):
    out = tmp_path / "run"
    args = ["train", "digits", "--out", out, "--steps", 3000, "--latent-dim", 2, "--width", 16]
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
    assert steps[-1] == 3000
    assert call("train", "--resume", out, "--quiet") == 0


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
