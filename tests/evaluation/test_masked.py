"""Bits per dimension of a part of x: a fair coin for every pixel costs one bit, however many."""

from __future__ import annotations

import json
import math

import pytest
import torch

from lowerbound.build import create_model
from lowerbound.data import Classes, Mask, load_data
from lowerbound.engine import Engine
from lowerbound.evaluation import Judge, evaluate
from lowerbound.evaluation.base import mean_dims, num_dims
from lowerbound.evaluation.judging import scores
from lowerbound.run import config_from, train

CONDITIONS = ["mask", "mask:1", "mask:3"]
DIMS = {"mask:1": 48, "mask:2": 32, "mask:3": 16}


@pytest.fixture(scope="module")
def coins():
    """p(x|z) is a fair coin for each pixel that is not observed, and q(z|x) is the prior."""
    model = create_model("cvae", (1, 8, 8), support="binary", context=Mask(), latent_dim=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


def binary(condition):
    return load_data("digits", binarize="threshold", condition=condition)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_coin_for_every_pixel_that_is_not_observed_is_one_bit_of_each(coins, condition):
    source = binary(condition)
    result = evaluate(coins, source, num_samples=2, max_rows=60, baselines=False)
    assert result["bits_per_dim"] == pytest.approx(1, abs=1e-6)
    # Half a pixel beside every pixel that is not observed, whatever share of x that is.
    assert result["reconstruction_mse"] == pytest.approx(0.25, abs=1e-6)
    for importance in (False, True):
        judge = Judge(source.test, Engine(torch.device("cpu")), 60, importance=importance)
        assert judge(coins)["bits_per_dim"] == pytest.approx(1, abs=1e-6)
    x, context = source.test[slice(0, 60)]
    nats, bits = scores(coins, x, 1, context)
    assert bits == pytest.approx(torch.ones(60, dtype=torch.float64), abs=1e-6)
    assert (len(nats.unique()) > 1) == (condition == "mask")


@pytest.mark.parametrize(("condition", "dims"), DIMS.items())
def test_the_dimensions_are_those_that_a_mask_leaves(coins, condition, dims):
    source = binary(condition)
    assert mean_dims(coins, source.test) == dims
    assert mean_dims(create_model("vae", (1, 8, 8), support="binary"), source.test) == 64


def test_what_is_wholly_observed_has_no_bits_and_no_infinity(coins):
    x = torch.ones(3, 1, 8, 8)
    context = torch.stack([x, torch.ones_like(x)], 1)
    context[0, 1] = 0
    assert num_dims(coins, context, 3).tolist() == [64, 1, 1]
    _, bits = scores(coins, x, 1, context)
    assert bits == pytest.approx(torch.tensor([1, 0, 0], dtype=torch.float64), abs=1e-6)


def test_training_logs_bits_of_the_same_dimensions(tmp_path):
    prepared = {"condition": "mask:3", "binarize": "threshold"}
    values = {"model": "cvae", "options": {"latent_dim": 2, "width": 8}, "steps": 3, **prepared}
    train(config_from(values, "a test"), tmp_path / "run", quiet=True)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert {row["kind"] for row in rows} == {"train", "validation"}
    for row in rows:
        expected = -row["bound"] / (DIMS["mask:3"] * math.log(2))
        assert row["bits_per_dim"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("condition", ["mask", *DIMS])
def test_another_mask_than_that_of_training_is_said(condition):
    model = create_model("cvae", (1, 8, 8), support="binary", context=Mask(3), latent_dim=2)
    result = evaluate(model, binary(condition), num_samples=1, max_rows=20, baselines=False)
    said = f"trained with mask:3 and is judged with {condition}:"
    assert any(said in note for note in result["notes"]) == (condition != "mask:3")
    assert result["context"] == condition


def test_of_classes_and_of_models_of_p_of_x_nothing_of_the_kind_is_said():
    source = load_data("digits")
    assert isinstance(source.context, Classes)
    for name in ("cvae", "vae"):
        model = create_model(name, source, latent_dim=2, width=8)
        notes = evaluate(model, source, num_samples=1, max_rows=20, baselines=False)["notes"]
        assert not any("was trained with" in note for note in notes)
