"""``evaluate --quality``: a block of its own, the same for the same seed, refused in one line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.commands.calling import TRAIN, call, refused


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
