"""``evaluate --quality``: a block of its own, the same for the same seed, refused in one line."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

import lowerbound
from lowerbound.data import load_data
from lowerbound.errors import InputError
from lowerbound.evaluation import frechet_distance
from lowerbound.evaluation.exported import ExportedFeatures
from lowerbound.generation import draw
from tests.commands.calling import TRAIN, call, refused

# An ONNX graph of one node: Flatten, from float32 (n, 1, 8, 8) to (n, 64).
FLATTEN = base64.b64decode(
    "CAgSADpVChwKAXgSAXkiB0ZsYXR0ZW4qCwoEYXhpcxgBoAECEgFnWhwKAXgSFwoVCAESEQoDEgFuCgIIAQoCCAgK"
    "AggIYhQKAXkSDwoNCAESCQoDEgFuCgIIQEIECgAQDQ=="
)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr("lowerbound.evaluation.features.STEPS", 30)


def quality_of(capsys, run, *flags) -> dict:
    capsys.readouterr()
    assert call("evaluate", run, "--samples", 2, "--quality", "--json", *flags) == 0
    return json.loads(capsys.readouterr().out)["quality"]


def test_the_block_says_how_it_came_about_and_follows_from_the_seed(run, capsys):
    block = quality_of(capsys, run)
    assert (block["features"], block["num_samples"], block["seed"]) == ("lenet", 179, 0)
    assert {"fd", "kd", "precision", "recall"} < set(block) & {*block["floor"], *block}
    assert quality_of(capsys, run) == block
    other = quality_of(capsys, run, "--seed", 1)
    assert other["fd"] != block["fd"]
    assert other["floor"] == block["floor"]  # the same features of the same real examples
    some = quality_of(capsys, run, "--quality-samples", 50, "--split", "validation")
    assert (some["num_samples"], some["split"], some["floor"]["split"]) == (
        50,
        "validation",
        "test",
    )


def test_the_table_has_a_row_for_each_number(run, capsys):
    assert call("evaluate", run, "--samples", 2, "--quality") == 0
    printed = capsys.readouterr().out
    for name in ("FD-lenet", "KD-lenet", "precision-lenet", "recall-lenet"):
        assert name in printed


def test_without_the_flag_there_is_no_such_block(run, capsys):
    assert call("evaluate", run, "--samples", 2, "--json") == 0
    assert "quality" not in json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("condition", ["labels", "mask:2"])
def test_conditional_models_are_given_what_they_draw_for(condition, tmp_path, capsys):
    out, given = tmp_path / "cvae", ("--model", "cvae", "--condition", condition)
    assert call("train", "digits", *given, "--out", out, *TRAIN) == 0
    assert quality_of(capsys, out, "--quality-samples", 30)["num_samples"] == 30


def test_data_without_labels_and_models_without_samples_are_refused(run, tmp_path, capsys):
    x = tmp_path / "x.npy"
    np.save(x, np.random.default_rng(0).integers(0, 17, (60, 8, 8), np.uint8))
    error = refused(capsys, "evaluate", run, "--data", x, "--quality")
    assert "'quality' must be asked of data with class labels" in error
    out = tmp_path / "dct"
    assert (
        call("train", "digits", "--model", "dct", "--latent-dim", 2, "--out", out, "--quiet") == 0
    )
    error = refused(capsys, "evaluate", out, "--quality")
    assert "'quality' must be asked of a model with samples, got dct" in error
    error = refused(capsys, "evaluate", run, "--quality", "--quality-samples", 3)
    assert "'quality_samples' must be at least 4, got 3" in error


def test_features_may_be_those_of_a_network_in_a_file(run, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    network = tmp_path / "pixels.onnx"
    network.write_bytes(FLATTEN)
    block = quality_of(capsys, run, "--features", network)
    assert (block["features"], block["accuracy"]) == ("pixels", None)
    source = load_data("digits")
    samples = draw(lowerbound.load(run), 179, seed=0)
    real = source.test.x.flatten(1).float()
    distance = frechet_distance(samples.flatten(1).float(), real)
    assert block["fd"] == pytest.approx(distance, rel=1e-5)
    x = tmp_path / "x.npy"  # no labels are needed
    np.save(x, np.random.default_rng(0).integers(0, 17, (60, 8, 8), np.uint8))
    assert quality_of(capsys, run, "--features", network, "--data", x)["features"] == "pixels"


def test_features_that_cannot_be_had_are_refused_before_any_work(run, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    network, broken = tmp_path / "pixels.onnx", tmp_path / "broken.onnx"
    network.write_bytes(FLATTEN)
    broken.write_bytes(FLATTEN[:40])
    flags = ("evaluate", run, "--quality", "--features")
    assert "an ONNX file, got" in refused(capsys, *flags, tmp_path / "none.onnx")
    assert "an ONNX network of 1×8×8 examples" in refused(capsys, *flags, broken)
    assert "left out without --quality" in refused(capsys, "evaluate", run, "--features", network)
    with pytest.raises(InputError, match="an ONNX network of 3×4×4 examples"):
        ExportedFeatures(network, (3, 4, 4))
