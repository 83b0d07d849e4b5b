"""Contexts that training withholds: the right share, never when judging, and learned from."""

from __future__ import annotations

import math

import pytest
import torch

from lowerbound.config import TrainingConfig
from lowerbound.data import Classes
from lowerbound.errors import InputError
from lowerbound.evaluation import log_likelihood
from lowerbound.training.step import Step
from tests.models.test_conditional import (
    CONTEXTS,
    SHAPE,
    contexts,
    each_context,
    examples,
    linear_gaussian,
    small,
)


@each_context
def test_nothing_is_dropped_when_judging(context):
    model = small(context, label_dropout=0.5)
    x, given = examples(8), contexts(context, 8)
    assert set(model.noise(8)) == {"z"}
    assert set(model.judging_noise(range(8))) == {"z"}
    judged = model.bound(x, given).value
    model.train()
    noise = model.judging_noise(range(8))
    assert "drop" in noise
    # Even while training a bound is that of the context it is handed: only the step withholds.
    torch.testing.assert_close(model.bound(x, given, noise=noise).value, judged)
    evaluated = log_likelihood(model, x, num_samples=1, context=given).value
    torch.testing.assert_close(evaluated.float(), model.eval().log_weight(x, 1, given)[0])


@each_context
def test_training_withholds_the_share_that_was_asked_for(context):
    share, num = 0.3, 20_000
    model = small(context, label_dropout=share).train()
    noise = model.noise(num, 2, torch.Generator().manual_seed(0))
    given = contexts(context, num)
    seen = model.dropped(given, noise)
    nothing = context.unknown(num, SHAPE)
    rows = given.flatten(1) if given.ndim > 1 else given[:, None]
    kept = (seen.reshape(rows.shape) == rows).all(1)
    gone = torch.isclose(seen, nothing.to(seen), equal_nan=True).reshape(rows.shape).all(1)
    assert (kept ^ gone).all()
    error = math.sqrt(share * (1 - share) / num)
    assert float(gone.double().mean()) == pytest.approx(share, abs=4 * error)
    assert model.dropped(given, {"z": noise["z"]}) is given


@pytest.mark.parametrize("context", CONTEXTS[:2], ids=lambda c: c.kind)  # masks have no such row
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_what_stands_for_nothing_is_learned_where_contexts_are_dropped(context, share):
    model = small(context, label_dropout=share).train()
    step = Step(model, TrainingConfig(), "float32")
    x, given = examples(32), contexts(context, 32)
    loss, _ = step(x, given, model.noise(32, 1, torch.Generator().manual_seed(0)), 0.5)
    loss.mean().backward()
    embedding = model.embedding
    is_class = isinstance(context, Classes)
    gradient = embedding.table.weight.grad[-1] if is_class else embedding.unknown.grad
    moved = gradient is not None and bool((gradient != 0).any())
    assert moved == (share > 0)


@each_context
def test_without_a_context_a_model_of_dropped_ones_judges_p_of_x(context):
    model = small(context, label_dropout=0.2)
    x = examples(5)
    nothing = context.unknown(5, SHAPE)
    torch.testing.assert_close(model.bound(x).value, model.bound(x, nothing).value)
    with pytest.raises(InputError, match="'context' must be given to a 'cvae' without label dr"):
        small(context).bound(x)


def test_a_model_from_parts_alone_trains_and_drops_nothing():
    model, _ = linear_gaussian(is_prior_conditional=False)
    model.train()
    assert set(model.noise(4)) == {"z"}
    assert model.bound(torch.zeros(4, 1), torch.arange(4) % 3).value.isfinite().all()
