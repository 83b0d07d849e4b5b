"""Objectives in a run: their dials in the configuration, and a few steps of each."""

from __future__ import annotations

import math
import typing
from dataclasses import fields

import pytest
import torch

from lowerbound import config
from lowerbound.build import MODELS, create_model
from lowerbound.config import TrainingConfig
from lowerbound.errors import InputError
from lowerbound.objectives import IMPORTANCE_WEIGHTED, OBJECTIVES, UNWEIGHTED, Weights
from lowerbound.training import fit_model
from lowerbound.training.step import Step
from tests.models.test_contract import context_for, small
from tests.objectives.toy import slopes


def test_the_configuration_knows_every_objective_and_its_dials():
    assert set(typing.get_args(config.Objective)) == set(OBJECTIVES)
    assert IMPORTANCE_WEIGHTED < set(OBJECTIVES)
    assert {name for owners in config.DIALS.values() for name in owners} <= set(OBJECTIVES)
    dials = {field.name for field in fields(Weights)} | {"beta_warmup"}
    assert set(config.DIALS) == dials


@pytest.mark.parametrize("dial", config.DIALS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_dial_that_an_objective_does_not_read_is_refused(name, dial):
    value = 2 if dial == "num_groups" else 0.5
    if name in config.DIALS[dial]:
        beside = {"beta_warmup": 0.5} if dial == "kl_balancing" else {}
        given = {"objective": name, "num_samples": 4, dial: value}
        assert getattr(TrainingConfig(**given, **beside), dial)
    else:
        with pytest.raises(InputError, match=f"'{dial}' must be . for the objective {name}, got"):
            TrainingConfig(objective=name, num_samples=4, **{dial: value})


OF_ONE_RATE = [field for field in fields(Weights) if field.name != "kl_balancing"]
"""What changes a model of one rate; balancing rates needs two (test_balancing.py)."""


@pytest.mark.parametrize("field", OF_ONE_RATE, ids=lambda field: field.name)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_dial_belongs_to_the_objectives_whose_gradient_it_changes(name, field):
    value = 2 if field.name == "num_groups" else 0.5
    plain, dialled = (
        [g for g in slopes(name, 4, rows=5, weights=w).values() if g is not None]
        for w in (UNWEIGHTED, Weights(**{field.name: value}))
    )
    unchanged = all(torch.equal(one, other) for one, other in zip(plain, dialled, strict=True))
    assert unchanged == (name not in config.DIALS[field.name])


def test_dials_out_of_range_and_unknown_objectives_are_refused():
    for mix in (-0.1, 1.1, math.nan):
        with pytest.raises(InputError, match="'mix' must be from 0 to 1, got"):
            TrainingConfig(objective="ciwae", mix=mix)
    with pytest.raises(InputError, match="'num_groups' must be at least 1, got 0"):
        TrainingConfig(objective="miwae", num_groups=0)
    with pytest.raises(InputError, match="'num_groups' must be a divisor of the 6 samples, got 4"):
        TrainingConfig(objective="miwae", num_samples=6, num_groups=4)
    with pytest.raises(InputError, match="got iwea; did you mean 'iwae'"):
        TrainingConfig(objective="iwea")


DIALLED = {"miwae": {"num_groups": 2}, "piwae": {"num_groups": 2}, "ciwae": {"mix": 0.3}}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_trains_a_model(name, blobs):
    model = create_model("vae", blobs, latent_dim=2, width=8)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    options = TrainingConfig(objective=name, num_samples=4, steps=6, **DIALLED.get(name, {}))
    rows = fit_model(model, blobs, options).rows
    row = next(r for r in rows if r["kind"] == "train")
    assert row["loss"] == pytest.approx(-row["bound"], rel=1e-5)
    assert row["skipped"] == 0
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert {n for n in before if n.startswith("decoder")} <= moved
    assert ("encoder.last.bias" in moved) == (name != "prior-monte-carlo")


def test_a_step_hands_every_dial_to_the_objective(blobs):
    model = create_model("vae", blobs, latent_dim=2, width=8)
    options = {"objective": "piwae", "num_samples": 6, "num_groups": 3}
    step = Step(model, TrainingConfig(**options), "float32")
    assert step.weights(0.5) == Weights(num_groups=3)
    assert step.importance
    step = Step(model, TrainingConfig(beta=2.0, beta_warmup=0.5, free_bits=0.1), "float32")
    assert step.weights(0.25) == Weights(beta=1.0, free_bits=0.1)
    assert not step.importance
    mixed_step = Step(model, TrainingConfig(objective="ciwae", mix=0.3), "float32")
    assert mixed_step.weights(1.0) == Weights(mix=0.3)


@pytest.mark.parametrize("name", MODELS)
def test_the_latents_of_a_draw_are_those_that_its_weights_came_from(name):
    """Otherwise dreg's hook would be on nothing."""
    model = small(name, (4,))
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    try:
        draw = model.draw(
            x, 2, context_for(model, 3), noise=model.noise(3, 2, torch.Generator()), path=True
        )
    except InputError:
        pytest.skip("no importance weights")
    paths = [z for z in draw.latents.values() if z.requires_grad]
    if not paths:
        pytest.skip("nothing to learn by gradients")
    for value in (draw.log_weight, draw.log_likelihood):
        (gradient,) = torch.autograd.grad(value.sum(), paths[0], retain_graph=True)
        assert gradient.abs().max() > 0
