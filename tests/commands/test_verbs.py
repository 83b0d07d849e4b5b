"""Every verb on a real run: what it makes, where it puts it, and what it says."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.commands.calling import call


def test_a_run_folder_holds_everything(run):
    names = {p.name for p in run.iterdir()}
    assert names >= {
        "config.yaml", "metrics.jsonl", "checkpoints", "model.safetensors", "config.json",
        "evaluation.json", "report.html", "samples.png", "reconstructions.png", "latents.png",
        "interpolations.png", "plane.png", "training.png", "scores.safetensors",
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


RESULTS = [
    (["sample"], "samples.png"),
    (["sample", "--num", 64], "samples.png"),
    (["sample", "--num", 9, "--seed", 3], "samples-num-9-seed-3.png"),
    (["sample", "--mean"], "samples-mean.png"),
    (["reconstruct"], "reconstructions.png"),
    (["reconstruct", "--split", "train"], "reconstructions-split-train.png"),
    (["interpolate"], "interpolations.png"),
    (["interpolate", "--steps", 3], "interpolations-steps-3.png"),
    (["encode"], "latents.npz"),
    (["decode"], "decoded.npz"),
    (["score"], "scores.csv"),
]


def test_results_go_into_the_run_folder_and_their_path_is_said(run, tmp_path, monkeypatch, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    monkeypatch.chdir(tmp_path)
    before = {p.name: p.read_bytes() for p in copy.iterdir() if p.is_file()}
    for (verb, *flags), name in RESULTS:
        capsys.readouterr()
        assert call(verb, copy, *flags) == 0
        assert capsys.readouterr().out == f"{copy / name}\n"
    after = {p.name: p.read_bytes() for p in copy.iterdir() if p.is_file()}
    assert set(after) - set(before) == {name for _, name in RESULTS} - set(before)
    for name in ("samples.png", "reconstructions.png", "interpolations.png"):
        assert after[name] == before[name]  # the picture of the run, drawn again
    assert [p.name for p in tmp_path.iterdir()] == ["copy"]


def test_more_images_than_the_picture_shows_become_a_bare_grid_of_all(run, tmp_path):
    assert call("sample", run, "--num", 225, "--out", tmp_path / "s.png") == 0
    assert Image.open(tmp_path / "s.png").size == (15 * 50 - 2, 15 * 50 - 2)


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
    keys = "name summary reference nats is_likelihood samples conditional bits_per_dim".split()
    assert list(rows[0]) == [*keys, "preset_of", "settings"]
    for verb in ("models", "datasets", "compare"):
        assert call(verb, *([run] if verb == "compare" else [])) == 0
        assert capsys.readouterr().out


def test_doctor_and_completion(capsys):
    assert call("doctor", "--json") == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "ready"
    with pytest.raises(SystemExit):
        call("completion", "bash")
    assert "lowerbound" in capsys.readouterr().out
