"""Models that are given a context because it was asked for: trained, continued, used, refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

import lowerbound
from lowerbound.build import create_model
from lowerbound.conditions import condition_of
from lowerbound.config import CONDITIONS
from lowerbound.data import Classes, Mask, load_data, masked
from lowerbound.run import fit, run_config
from tests.commands.calling import call, refused

SMALL = ["--width", 16, "--quiet"]
LADDER = ["--model", "ladder", "--levels", 2, *SMALL]


@pytest.fixture(scope="module", params=["ladder", "hvae", "vqvae"])
def told(request, tmp_path_factory) -> Path:
    """A run of each model that is given labels because they were asked for."""
    folder = tmp_path_factory.mktemp("runs") / request.param
    args = ["--model", request.param, "--condition", "labels", *SMALL]
    args += ["--places", 4, "--prior-width", 16] if request.param == "vqvae" else []
    assert call("train", "digits", "--steps", 8, "--out", folder, *args) == 0
    return folder


def test_a_model_that_may_be_told_follows_its_own_context_everywhere(told, tmp_path, capsys):
    context = lowerbound.load(told).context
    assert context == load_data("digits").context
    assert run_config(told).condition == "labels"
    out = tmp_path / "s.npz"
    assert call("sample", told, "--label", "all", "--num", 2, "--out", out) == 0
    assert np.load(out)["labels"].tolist() == [c for c in range(10) for _ in range(2)]
    assert call("sample", told, "--label", 3, "--out", tmp_path / "s.png") == 0
    own, other = tmp_path / "own.npz", tmp_path / "other.npz"
    assert call("reconstruct", told, "--num", 5, "--out", own) == 0
    assert call("reconstruct", told, "--label", 5, "--num", 5, "--out", other) == 0
    assert (np.load(own)["reconstructions"] != np.load(other)["reconstructions"]).any()
    z, x = tmp_path / "z.npz", tmp_path / "x.npz"
    assert call("encode", told, "--out", z) == 0
    assert call("decode", told, "--latents", z, "--label", 8, "--out", x) == 0
    assert call("score", told, "--out", tmp_path / "s.csv") == 0
    capsys.readouterr()
    assert call("evaluate", told, "--samples", 2, "--json") == 0
    judged = json.loads(capsys.readouterr().out)
    assert "log p(x | context)" in judged["notes"][0]
    assert judged["context"] == str(context)
    assert call("train", "--resume", told, "--quiet") == 0


def test_what_levels_hold_is_shown_for_a_class(told, tmp_path, capsys):
    if not (told / "levels.png").exists():
        pytest.skip("a model without levels")
    args = [told, "--levels", "--out", tmp_path / "l.npz", "--num", 3]
    made = {}
    for label in (3, 4):
        assert call("sample", *args, "--label", label) == 0
        made[label] = np.load(tmp_path / "l.npz")["x"]
    assert (made[3] != made[4]).any()
    error = refused(capsys, "sample", *args, "--label", "all")
    assert "'label' must be one class with --levels, got all" in error


def test_a_run_that_was_told_is_continued_as_one(tmp_path):
    run = tmp_path / "run"
    args = ["--condition", "labels", "--label-dropout", 0.2, "--steps", 8]
    assert call("train", "digits", *LADDER, *args, "--out", run) == 0
    weights = load_file(run / "model.safetensors")
    for name in ("model.safetensors", "config.json", "evaluation.json", "report.html"):
        (run / name).unlink()
    checkpoints = sorted(p for p in (run / "checkpoints").iterdir())
    shutil.rmtree(checkpoints[-1])
    assert call("train", "--resume", run, "--quiet") == 0
    again = load_file(run / "model.safetensors")
    assert weights.keys() == again.keys()
    assert all((weights[key] == again[key]).all() for key in weights)


@pytest.mark.parametrize("condition", ["auto", "none"])
def test_a_model_that_may_be_told_is_of_p_of_x_unless_it_is_asked(condition, tmp_path, capsys):
    run = tmp_path / "run"
    args = ["--condition", condition, "--steps", 3, "--out", run]
    assert call("train", "digits", *LADDER, *args) == 0
    assert lowerbound.load(run).context is None
    assert "not conditional" in refused(capsys, "sample", run, "--label", 3)


def test_an_image_is_completed_by_a_ladder(tmp_path):
    run, out = tmp_path / "run", tmp_path / "r.npz"
    args = ["--condition", "mask:2", "--steps", 3, "--out", run]
    assert call("train", "digits", *LADDER, *args) == 0
    Image.open(run / "levels.png").verify()
    assert call("reconstruct", run, "--num", 3, "--out", out) == 0
    made = np.load(out)
    assert (made["completions"][..., :4] == made["x"][:, None, ..., :4]).all()
    assert call("sample", run, "--levels", "--out", tmp_path / "l.npz") == 0


def test_a_configuration_of_before_contexts_were_asked_for_still_reads(tmp_path, digits):
    model = create_model("ladder", digits, levels=2, width=16)
    fit(model, digits, steps=2, out=tmp_path / "run", quiet=True)
    path = tmp_path / "run" / "config.yaml"
    text = path.read_text()
    assert "condition: auto" in text
    text = text.replace("condition: auto", "condition: labels")
    path.write_text(text.replace("format_version: 2", "format_version: 1"))
    assert run_config(tmp_path / "run").condition == "auto"
    path.write_text(text)
    assert run_config(tmp_path / "run").condition == "labels"


@pytest.mark.parametrize(
    ("kind", "condition"), [(None, "auto"), (Classes(10), "labels"), (Mask(2), "mask:2")]
)
def test_a_run_of_a_program_says_what_its_model_is_given(kind, condition):
    model = create_model("hvae", (1, 8, 8), context=kind, width=8)
    assert condition_of(model) == condition


def test_the_conditions_of_a_run_are_those_of_data_and_two_more():
    assert set(CONDITIONS) - {"auto", "none"} == set(masked.CONDITIONS)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["digits", "--model", "mixture", "--condition", "labels"], "left out for a 'mixture', a"),
        (["digits", "--model", "cvae", "--condition", "none"], "labels or mask for a 'cvae', whi"),
        (["BARE", "--model", "ladder", "--condition", "labels"], "in the data of a 'ladder', got"),
        (["digits", "--model", "hvae", "--label-dropout", "0.5"], "must be left out for a model"),
        (
            ["digits", "--model", "ladder", "--network", "conv", "--levels", "40"],
            "'levels' must be at most 12 on 8×8 images, got 40; use fewer",
        ),
        (
            ["digits", "--model", "ladder", "--levels", "9"],
            "'levels' must be at most 8 for data of shape 1×8×8, got 9; use fewer",
        ),
        (
            ["digits", "--model", "vqvae", "--codebook-size", "1000000"],
            "'codebook_size' must be at most the",
        ),
        (["digits", "--allow-changed"], "'allow_changed' must be left out without --resume"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything(args, message, tmp_path, capsys):
    np.save(tmp_path / "bare.npy", np.random.default_rng(0).normal(size=(50, 4)))
    args = [tmp_path / "bare.npy" if arg == "BARE" else arg for arg in args]
    assert message in refused(capsys, "train", *args, "--out", tmp_path / "run")
    assert [p.name for p in tmp_path.iterdir()] == ["bare.npy"]
