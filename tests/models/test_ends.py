"""The clean end: normalised over the levels, and the known cost of γ_0 and γ_1."""

from __future__ import annotations

import math

import pytest
import torch

from lowerbound.distributions import Binary, Counts, Discrete, Product, Real, Unit
from lowerbound.errors import InputError
from lowerbound.models import Diffusion, DiffusionOptions
from lowerbound.models.ends import GridCategorical, LevelsEnd, RealEnd, make_end

LN2 = math.log(2)


def places(num: int = 400) -> torch.Tensor:
    """Places on the axis, also far outside it and in the middle between levels."""
    return torch.cat(
        [torch.linspace(-1.5, 1.5, num, dtype=torch.float64), torch.tensor([-40.0, 7.0, 1.0])]
    ).double()


@pytest.mark.parametrize("levels", [2, 3, 17, 256])
@pytest.mark.parametrize("gamma_0", [None, -4.0, 1.0])
def test_the_masses_of_all_levels_sum_to_one(levels, gamma_0):
    gamma_0 = 2 * math.log(1 / (3 * levels)) if gamma_0 is None else gamma_0
    end = LevelsEnd((1,), Discrete(levels), gamma_0)
    p = end(places().unsqueeze(-1), torch.tensor(gamma_0, dtype=torch.float64))
    k = torch.arange(levels, dtype=torch.float64).reshape(-1, 1, 1)
    log_mass = p.log_prob(k.expand(-1, *p.u.shape))
    torch.testing.assert_close(log_mass.exp().sum(0), torch.ones(len(places())).double())
    torch.testing.assert_close(log_mass.exp().T @ k[:, 0], p.mean)


@pytest.mark.parametrize("levels", [17, 64, 256])
@pytest.mark.parametrize("gamma_0", [None, -9.0, -6.0])
def test_levels_that_are_passed_over_change_nothing(levels, gamma_0):
    gamma_0 = 2 * math.log(1 / (3 * levels)) if gamma_0 is None else gamma_0
    end = LevelsEnd((), Discrete(levels), gamma_0)
    gamma, u = torch.tensor(gamma_0, dtype=torch.float64), places()
    few, all_ = end(u, gamma), GridCategorical(u, gamma, levels, None, 0)
    for k in (0, 1, levels // 2, levels - 1):
        x = torch.full_like(u, k)
        torch.testing.assert_close(few.log_prob(x), all_.log_prob(x), rtol=1e-13, atol=1e-13)
    if gamma_0 < -10:
        assert end.reach == 2  # and not all 256


def test_an_impossible_level_costs_what_it_costs():
    """No clamp: a bound that is cut off at 27.6 nats per dimension would be none."""
    end = LevelsEnd((), Discrete(256), -13.3)
    gamma = torch.tensor(-13.3, dtype=torch.float64)
    u = end.scaled(torch.tensor(0.0)).double()
    cost = -float(end(u, gamma).log_prob(torch.tensor(255.0, dtype=torch.float64)))
    assert cost == pytest.approx(0.5 * math.exp(13.3) * (2 * 255 / 256) ** 2, rel=1e-6)


def test_the_grid_is_that_of_the_levels_middles():
    end = LevelsEnd((), Discrete(256))
    y = end.scaled(torch.tensor([0, 128, 255]))
    torch.testing.assert_close(y, torch.tensor([-255 / 256, 1 / 256, 255 / 256]))
    torch.testing.assert_close(
        LevelsEnd((), Binary()).scaled(torch.tensor([0, 1])), torch.tensor([-0.5, 0.5])
    )


def test_the_clean_end_costs_what_theory_says():
    """About .0105 bits for an inner level at γ_0 = −13.3, and half of it at an edge."""
    end, gamma = LevelsEnd((), Discrete(256), -13.3), torch.tensor(-13.3, dtype=torch.float64)
    middles = torch.special.ndtri((torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000)
    costs = []
    for level in (100.0, 0.0, 255.0):
        x = torch.full_like(middles, level)
        u = 2 * (x + 0.5) / 256 - 1 + math.exp(-13.3 / 2) * middles
        costs.append(-float(end(u, gamma).log_prob(x).mean()) / LN2)
    assert costs[0] == pytest.approx(0.0105, abs=1e-4)
    assert costs[1] == pytest.approx(costs[2], rel=1e-3)
    assert costs[1] == pytest.approx(costs[0] / 2, rel=1e-3)


def test_the_noisy_end_costs_what_theory_says():
    """.00483 E y² + .00002 bits per dimension at γ_1 = 5."""
    model = Diffusion.build((1,), Discrete(256), DiffusionOptions(network="mlp", width=4))
    zero, one = (float(model.prior_rate(torch.full((1, 1), y))) / LN2 for y in (0.0, 1.0))
    assert zero == pytest.approx(0.00002, abs=5e-6)
    assert one - zero == pytest.approx(0.00483, abs=1e-5)


def test_draws_follow_the_masses():
    end = LevelsEnd((), Discrete(17), -2.0)
    u = torch.full((20_000,), 0.2)
    p = end(u, torch.tensor(-2.0))
    x = p.sample(torch.Generator().manual_seed(0))
    assert p.support.contains(x)
    assert float(x.mean()) == pytest.approx(float(p.mean[0]), abs=4 * float(x.std()) / 140)


def test_real_data_keep_their_own_unit():
    """A density in the data's unit: in units a thousand times as small, log 1000 nats less."""

    class Source:
        def __init__(self, x):
            self.train = type("Split", (), {"x": x, "in_memory": True})()

    x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * 5 + 2
    nats = []
    for unit in (1.0, 1000.0):
        end = RealEnd((3,), Real())
        end.calibrate(Source(unit * x))
        y = end.scaled(unit * x)
        torch.testing.assert_close(y.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
        torch.testing.assert_close(y.std(0), torch.ones(3), atol=1e-2, rtol=0)
        nats.append(end(y + 0.01, torch.tensor(-6.0)).log_prob(unit * x))
    difference = (nats[0] - nats[1]).mean()
    assert float(difference) == pytest.approx(3 * math.log(1000), rel=1e-4)


@pytest.mark.parametrize("support", [Counts(), Unit(), Product((Real(), Binary()))], ids=str)
def test_data_without_a_clean_end_are_refused(support):
    with pytest.raises(InputError, match="'support' must be binary, discrete:LEVELS or real"):
        make_end((2,), support)
