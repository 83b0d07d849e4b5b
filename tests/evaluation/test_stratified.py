"""Draws that share out the noise levels: their error, and how a training is judged by them."""

from __future__ import annotations

import math

import pytest
import torch

from lowerbound.build import create_model
from lowerbound.data import InMemorySplit
from lowerbound.engine import Engine
from lowerbound.evaluation import Judge, judge
from lowerbound.evaluation.base import judging
from lowerbound.evaluation.nats import monte_carlo_error, nats
from lowerbound.schedules import LinearSchedule
from tests.models.gaussian_diffusion import LAMBDA, optimal_model

CPU = torch.device("cpu")


def rows(num: int, dims: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    return math.sqrt(LAMBDA) * torch.randn(num, dims, generator=generator)


def test_the_error_of_stratified_draws_is_how_far_other_draws_move_the_mean():
    """At levels of very different cost, so that the spread of the draws says little of it."""
    model, num, draws = optimal_model(LinearSchedule(-13.0, 5.0), 60), 40, 16
    x, means, errors, naive = rows(num, 60), [], [], []
    for seed in range(40):
        noise = model.judging_noise(range(num), draws, seed)
        parts = [{k: t[i : i + 1] for k, t in noise.items()} for i in range(draws)]
        with judging(model):
            value = torch.stack([model.bound(x, noise=one).value for one in parts], 1)
        means.append(float(value.mean()))
        errors.append(monte_carlo_error(value, stratified=True))
        naive.append(monte_carlo_error(value))
    actual = float(torch.tensor(means).std())
    mean_error = math.sqrt(sum(e**2 for e in errors) / len(errors))
    assert mean_error == pytest.approx(actual, rel=0.35)  # 40 means know it to a ninth
    assert min(naive) > 1.5 * mean_error
    assert all(math.isfinite(e) for e in errors)


def test_of_independent_draws_both_errors_are_the_same_on_average():
    value = torch.randn(20_000, 5, generator=torch.Generator().manual_seed(0)).double()
    expected = 1 / math.sqrt(5 * 20_000)
    for stratified in (False, True):  # odd numbers of draws too
        assert monte_carlo_error(value, stratified) == pytest.approx(expected, rel=0.03)
    assert monte_carlo_error(value[:, :1], True) is None
    # What every set of draws shares moves no mean.
    trend = value + 10 * torch.tensor([0.0, 1.0, 0.5, 0.5, 0.5])
    assert monte_carlo_error(trend[:, [0, 1]], True) > 10 * expected
    shares = value + torch.tensor([0.0, 0.0, 9.0, 9.0, 0.0])
    assert monte_carlo_error(shares[:, :4], True) == pytest.approx(
        1 / math.sqrt(4 * 20_000), rel=0.03
    )


def test_an_evaluation_of_a_diffusion_says_the_smaller_error():
    model = optimal_model(dims=3)
    split, each = InMemorySplit(rows(50)), {}
    with judging(model):
        found = nats(model, split, 16, each, Engine(CPU))["bound"]["monte_carlo_error"]
        value = torch.stack([one_draw(model, split.x, k) for k in range(16)], 1)
    assert found == pytest.approx(monte_carlo_error(value, True))


def one_draw(model, x, k):
    noise = model.judging_noise(range(len(x)), 16)
    return model.bound(x, noise={name: t[k : k + 1] for name, t in noise.items()}).value.double()


def test_a_diffusion_in_training_is_judged_by_four_draws_and_a_vae_by_one(monkeypatch):
    x = rows(6)
    split = InMemorySplit(x)
    for model, num in ((optimal_model(dims=3), 4), (create_model("vae", (3,), latent_dim=2), 1)):
        noise = model.judging_noise(range(6), num)
        expected = model.bound(x, num_samples=num, noise=noise).value.detach().double().mean()
        said = Judge(split, Engine(CPU), 100)
        assert said(model)["bound"] == pytest.approx(float(expected), rel=1e-6)
        monkeypatch.setattr(judge, "NUMBERS_IN_MEMORY", 10)
        assert Judge(split, Engine(CPU), 100)(model)["bound"] == said(model)["bound"]
        monkeypatch.undo()
