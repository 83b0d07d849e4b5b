"""KL balancing: the formula, that weights carry no gradient, and when it is on."""

from __future__ import annotations

import pytest
import torch

from lowerbound.build import create_model
from lowerbound.config import TrainingConfig
from lowerbound.errors import InputError
from lowerbound.objectives import Bound, Weights, elbo
from lowerbound.training import fit_model
from lowerbound.training.step import Step


class Rates:
    """A model whose bound is a function of two parameters and the rows."""

    def __init__(self, details=False):
        self.a = torch.tensor(2.0, requires_grad=True)
        self.b = torch.tensor(3.0, requires_grad=True)
        self.details = details

    def bound(self, x, context=None, *, num_samples=1, noise=None, generator=None):
        rates = {"kl_1": self.a * x, "kl_2": self.b * x.square()}
        details = {k: torch.stack([r / 4, 3 * r / 4], 1) for k, r in rates.items()}
        return Bound(-x, rates, details if self.details else {})


X = torch.tensor([1.0, 2.0, 6.0])
MEANS = {"kl_1": 2 * 3.0, "kl_2": 3 * 41 / 3}


def test_each_rate_is_weighted_by_its_share_of_the_batch_mean_and_the_weights_are_numbers():
    model = Rates()
    loss, bound = elbo(model, X, None, {}, 1, Weights(beta=0.5, kl_balancing=True))
    total = sum(MEANS.values())
    first, second = (2 * m / total for m in MEANS.values())
    expected = X + 0.5 * (first * 2 * X + second * 3 * X.square())
    torch.testing.assert_close(loss, expected, rtol=1e-3, atol=1e-3)
    # What is reported is not weighted.
    torch.testing.assert_close(bound.value, -X - 2 * X - 3 * X.square())
    slopes = torch.autograd.grad(loss.mean(), [model.a, model.b])
    assert float(slopes[0]) == pytest.approx(0.5 * first * 3, rel=1e-3)
    assert float(slopes[1]) == pytest.approx(0.5 * second * 41 / 3, rel=1e-3)


def test_the_whole_rate_of_levels_that_cost_the_same_is_what_it_was():
    model = Rates()
    model.a = torch.tensor(3.0 * 41 / 9, requires_grad=True)
    plain, balanced = (elbo(model, X, None, {}, 1, Weights(kl_balancing=b))[0] for b in (0, 1))
    torch.testing.assert_close(plain, balanced)


def test_levels_that_carry_nothing_are_weighed_alike():
    class Nothing(Rates):
        def bound(self, x, *args, **kwargs):
            return Bound(-x, {"kl_1": 0 * self.a * x, "kl_2": 0 * self.b * x})

    loss, _ = elbo(Nothing(), X, None, {}, 1, Weights(kl_balancing=True))
    torch.testing.assert_close(loss, X)


def test_free_bits_and_balancing_meet_group_by_group():
    loss, _ = elbo(Rates(details=True), X, None, {}, 1, Weights(free_bits=5.0, kl_balancing=True))
    total = sum(MEANS.values())
    paid = {k: max(m / 4, 5.0) + max(3 * m / 4, 5.0) for k, m in MEANS.items()}
    expected = sum(2 * MEANS[k] / total * paid[k] for k in MEANS)
    torch.testing.assert_close(loss, X + expected, rtol=1e-3, atol=1e-3)


def test_it_lasts_as_long_as_beta_rises():
    model = create_model("ladder", (4,), levels=2, width=8)
    step = Step(model, TrainingConfig(beta_warmup=0.2, kl_balancing=True), "float32")
    assert [step.weights(p).kl_balancing for p in (0.0, 0.1, 0.2, 0.9)] == [
        True,
        True,
        False,
        False,
    ]
    plain = Step(model, TrainingConfig(beta_warmup=0.2), "float32")
    assert not plain.weights(0.1).kl_balancing


def test_without_a_rise_of_beta_it_is_refused():
    with pytest.raises(InputError, match=r"'beta_warmup' must be above 0 for --kl-balancing, got"):
        TrainingConfig(kl_balancing=True)


def test_a_ladder_trains_with_it(blobs):
    model = create_model("ladder", blobs, levels=2, latent_dim=2, width=8)
    rows = fit_model(
        model, blobs, TrainingConfig(steps=8, beta_warmup=0.5, kl_balancing=True)
    ).rows
    assert all(row["bound"] == pytest.approx(row["bound"]) for row in rows)
    assert {"kl_1", "kl_2"} <= set(rows[0])
