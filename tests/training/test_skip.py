"""Steps with a gradient that is too long: nothing moves, they are counted, and no run ends."""

from __future__ import annotations

import math

import pytest
import torch

from lowerbound.build import create_model
from lowerbound.config import TrainingConfig
from lowerbound.engine import Engine
from lowerbound.errors import DivergedError, InputError
from lowerbound.training import fit_model
from lowerbound.training.state import Position, TrainState
from lowerbound.training.update import update


def stepped(digits, skip_norm, share=1.0, bad=False, said=False):
    """Whether one step moved the weights, what it said, and the norm of its gradient."""
    model = create_model("vae", digits, latent_dim=3, width=16)
    state = TrainState(model, TrainingConfig())
    before = [p.detach().clone() for p in model.parameters()]
    x = digits.train.x[:50]
    noise = model.noise(50, 1, torch.Generator().manual_seed(0))
    loss = -model.bound(x, noise=noise).value.mean() * (math.nan if bad else 1.0)
    loss.backward()
    norm = float(torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]))
    limit = None if skip_norm is None else share * norm
    loss = loss * (math.nan if said else 1.0)
    done = update(state, loss, 1e-3, 1e9, Engine(torch.device("cpu")), limit)
    moved = any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    return moved, bool(done.used), bool(done.finite)


def test_a_gradient_above_the_limit_moves_nothing_and_is_finite(digits):
    assert stepped(digits, "limit", 0.99) == (False, False, True)
    assert stepped(digits, "limit", 1.01) == (True, True, True)
    assert stepped(digits, None) == (True, True, True)
    assert stepped(digits, None, bad=True) == (False, False, False)
    assert stepped(digits, "limit", 1.01, said=True) == (False, False, False)  # of the loss alone


def test_long_gradients_count_as_skipped_and_never_as_divergence():
    position = Position()
    for step in range(1, 101):
        position.count(step, used=False, finite=True)
    assert position.skipped == 100
    assert not position.diverged
    for step in range(101, 111):
        position.count(step, used=False)
    assert position.skipped == 110
    assert position.diverged == "10 steps in a row"


def test_a_run_that_skips_every_step_ends_where_it_began(digits):
    model = create_model("vae", digits, latent_dim=3, width=16)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    rows = fit_model(model, digits, TrainingConfig(steps=30, skip_norm=1e-6, patience=99)).rows
    assert [row["skipped"] for row in rows if row["kind"] == "train"][-1] == 30
    assert all(torch.equal(before[k], v) for k, v in model.named_parameters())


def test_a_limit_hides_nothing_that_is_not_finite(digits):
    model = create_model("vae", digits, latent_dim=3, width=16)
    with torch.no_grad():
        next(iter(model.decoder.parameters())).fill_(math.nan)
    with pytest.raises(DivergedError, match="10 steps in a row"):
        fit_model(model, digits, TrainingConfig(steps=300, skip_norm=1e9))


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_a_limit_that_is_none_is_refused(value):
    with pytest.raises(InputError, match="'skip_norm' must be above 0, got"):
        TrainingConfig(skip_norm=value)
