"""Diffusion of Gaussian data by the denoiser that is right: every term has a known answer."""

from __future__ import annotations

import math

import pytest
import torch

from lowerbound.models.chain import step
from lowerbound.noising import alpha, sigma
from lowerbound.schedules import SCHEDULES, LinearSchedule, make_schedule
from tests.models.gaussian_diffusion import (
    LAMBDA,
    NODES,
    WEIGHTS,
    averaged,
    continuous_term,
    mean_rate_at,
    mean_step_rates,
    optimal_model,
    prior_term,
    quadrature,
    reconstruction_term,
    step_term,
    total,
)

ENDS = (-13.0, 5.0)
CONTINUOUS, STEPS_1000, EXACT, CHAIN_999 = 0.816957636, 0.865819004, 0.816972337, 0.865868


def mean_reconstruction(model) -> float:
    """E log p(x|z_0) by the model's own formulas, exactly."""
    x = model.end.mean + math.sqrt(LAMBDA) * NODES.unsqueeze(-1)
    eps = NODES.reshape(3, 1, 1).expand(3, 3, 1)
    return float(averaged(model.reconstruction(x, x, eps)))


def mean_prior(model) -> float:
    x = model.end.mean + math.sqrt(LAMBDA) * NODES.unsqueeze(-1)
    return float(WEIGHTS @ model.prior_rate(x))


@pytest.mark.parametrize("mean", [0.0, 0.7])
def test_continuous_time_gives_the_known_number(mean):
    model = optimal_model(mean=mean)
    t, w = quadrature()
    diffusion = float(w @ mean_rate_at(model, t))
    assert diffusion == pytest.approx(continuous_term(*ENDS), abs=1e-8)
    assert mean_prior(model) == pytest.approx(prior_term(ENDS[1], mean), abs=1e-12)
    assert mean_reconstruction(model) == pytest.approx(reconstruction_term(ENDS[0]), abs=1e-9)
    value = mean_reconstruction(model) - mean_prior(model) - diffusion
    assert -value == pytest.approx(total(*ENDS, mean), abs=1e-8)
    if mean == 0:
        assert -value == pytest.approx(CONTINUOUS, abs=1e-6)


@pytest.mark.parametrize(("levels", "expected"), [(1001, STEPS_1000), (1000, CHAIN_999)])
def test_a_chain_gives_the_known_number_step_by_step(levels, expected):
    model = optimal_model(timesteps=levels)
    gammas = model.schedule.levels(levels)
    rates = mean_step_rates(model, gammas[:-1], gammas[1:])
    torch.testing.assert_close(rates, step_term(gammas[:-1], gammas[1:]), rtol=1e-9, atol=1e-12)
    assert len(rates) == levels - 1  # from t = 2: q(x_0|x_1, x_0) is a point
    value = mean_reconstruction(model) - mean_prior(model) - float(rates.sum())
    assert -value == pytest.approx(expected, abs=1e-6)


def test_a_random_step_times_their_number_is_the_sum_of_all():
    model = optimal_model(timesteps=9)
    gammas = model.schedule.levels(9)
    x = math.sqrt(LAMBDA) * NODES.repeat(8).unsqueeze(-1)
    eps = NODES.reshape(3, 1, 1).expand(3, 24, 1)
    time = ((torch.arange(8) + 0.5) / 8).repeat_interleave(3).expand(3, -1)
    rate = averaged(model._of_chain(x, eps, time, 9)[0].unflatten(1, (-1, 3)))
    assert float(rate.mean()) == pytest.approx(float(step_term(gammas[:-1], gammas[1:]).sum()))


def test_with_the_variance_of_z_s_given_z_t_no_step_costs_more_than_it_must():
    """E KL(q(z_s|z_t, x) ‖ q(z_s|z_t)) is an information, and these add up whatever T is."""
    model = optimal_model(timesteps=31, learn_variance=True)
    gammas = model.schedule.levels(31)
    rates = mean_step_rates(model, gammas[:-1], gammas[1:])
    nu = torch.exp(-gammas)
    expected = 0.5 * ((1 + nu[:-1] * LAMBDA) / (1 + nu[1:] * LAMBDA)).log()
    torch.testing.assert_close(rates, expected, rtol=1e-7, atol=1e-10)
    assert float(rates.sum()) == pytest.approx(continuous_term(*ENDS), abs=1e-7)
    fixed = mean_step_rates(optimal_model(timesteps=31), gammas[:-1], gammas[1:])
    assert (fixed > rates).all()


def test_the_excess_of_a_chain_falls_as_one_over_its_steps():
    excess = []
    for num in (200, 400, 800, 1600):
        model = optimal_model(timesteps=num + 1)
        gammas = model.schedule.levels(num + 1)
        rates = mean_step_rates(model, gammas[:-1], gammas[1:])
        excess.append(float(rates.sum()) - continuous_term(*ENDS))
    assert all(e > 0 for e in excess)
    for num, e in zip((200, 400, 800, 1600), excess, strict=True):
        rule = 18 * (math.log(math.exp(13) * LAMBDA) - 1) / (4 * num)
        assert e == pytest.approx(rule, rel=0.05)
    assert excess[2] / excess[3] == pytest.approx(2, rel=0.01)


def exact_variance(model, gammas) -> torch.Tensor:
    """That of the marginal of x under the ancestral chain, which is Gaussian."""
    variance, one = torch.ones((), dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    for gamma_t, gamma_s in zip(gammas[1:].flip(0), gammas[:-1].flip(0), strict=True):
        p = step(one, model.denoise(one, gamma_t).x, gamma_s, gamma_t)
        variance = p.mean.squeeze() ** 2 * variance + p.variance
    end = model.end(one / alpha(gammas[0]), gammas[0])
    return end.mean.squeeze() ** 2 * variance + end.stddev.squeeze() ** 2


def test_the_bound_of_a_chain_is_below_its_exact_log_likelihood():
    model = optimal_model(timesteps=1001)
    variance = exact_variance(model, model.schedule.levels(1001))
    exact = 0.5 * float((2 * math.pi * variance).log() + LAMBDA / variance)  # over the data
    assert exact == pytest.approx(EXACT, abs=1e-6)
    assert exact < STEPS_1000


@pytest.mark.parametrize("name", SCHEDULES)
def test_in_continuous_time_the_interior_of_the_schedule_changes_nothing(name):
    model = optimal_model(make_schedule(name, *ENDS))
    if name == "learned":
        with torch.no_grad():
            model.schedule.heights[7] = 3.0
    t = (torch.arange(39_960, dtype=torch.float64) + 0.5) / 39_960
    diffusion = float(mean_rate_at(model, t).detach().mean())
    assert diffusion == pytest.approx(continuous_term(*ENDS), abs=1e-4)


@pytest.mark.parametrize("timesteps", [None, 40])
@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_every_term_and_the_total_are_right_on_average(name, timesteps):
    dims, num = 3, 4000
    model = optimal_model(make_schedule(name, *ENDS), dims, 0.7, timesteps)
    generator = torch.Generator().manual_seed(3)
    x = 0.7 + math.sqrt(LAMBDA) * torch.randn(num, dims, generator=generator)
    # Blocks of few, so that their means are independent.
    bound = model.bound(x, noise=blocked_noise(model, num, 20, generator))
    gammas = model.schedule.levels(timesteps or 2)
    diffusion = continuous_term(*ENDS)
    if timesteps is not None:
        diffusion = float(step_term(gammas[:-1], gammas[1:]).sum())
    expected = {
        "reconstruction": dims * reconstruction_term(ENDS[0]),
        "prior": dims * prior_term(ENDS[1], 0.7),
        "diffusion": dims * diffusion,
    }
    for term, values in {**bound.terms(), "total": bound.value}.items():
        blocks = values.unflatten(0, (-1, 20)).mean(1)
        error = float(blocks.std() / math.sqrt(len(blocks)))
        known = expected.get(term)
        if known is None:
            known = expected["reconstruction"] - expected["prior"] - expected["diffusion"]
        assert abs(float(blocks.mean()) - known) < 4 * error + 1e-9, term


def blocked_noise(model, num, size, generator):
    parts = [model.noise(size, 1, generator) for _ in range(num // size)]
    return {name: torch.cat([p[name] for p in parts], 1) for name in parts[0]}


def test_ends_follow_the_bound_itself():
    """With p(x|z_0) the exact posterior γ_0 changes nothing; γ_1 follows the prior's mismatch."""
    schedule = LinearSchedule(-7.0, 2.0, learn_ends=True)
    model = optimal_model(schedule, mean=0.7).train()
    t, w = quadrature()
    x = 0.7 + math.sqrt(LAMBDA) * NODES.unsqueeze(-1)
    eps = NODES.reshape(3, 1, 1).expand(3, 3, 1)
    value = averaged(model.reconstruction(x, x, eps)) - WEIGHTS @ model.prior_rate(x)
    value = value - w @ mean_rate_at(model, t)
    by_0, by_1 = torch.autograd.grad(value, [schedule.gamma_0, schedule.gamma_1])
    gamma = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    a2, s2 = alpha(gamma) ** 2, sigma(gamma) ** 2
    v = a2 * LAMBDA + s2
    (expected,) = torch.autograd.grad(-0.5 * (v + a2 * 0.49 - 1 - v.log()), gamma)
    assert float(by_0) == pytest.approx(0, abs=1e-7)
    assert float(by_1) == pytest.approx(float(expected), abs=1e-7)


def test_an_interior_that_follows_the_variance_lowers_it_and_leaves_the_bound():
    model = optimal_model(make_schedule("learned", *ENDS)).train()
    t = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    before = mean_rate_at(model, t).detach()
    optimizer = torch.optim.Adam(model.schedule.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        x = math.sqrt(LAMBDA) * torch.randn(64, 1, generator=generator)
        optimizer.zero_grad()
        (-model.bound(x, generator=generator).value).mean().backward()
        optimizer.step()
    after = mean_rate_at(model, t).detach()
    assert float(after.var()) < 0.5 * float(before.var())
    assert float(after.mean()) == pytest.approx(float(before.mean()), rel=1e-2)


@pytest.mark.parametrize("timesteps", [None, 12])
def test_draws_have_the_moments_of_the_chain(timesteps):
    model = optimal_model(LinearSchedule(*ENDS), 4, 0.7, timesteps)
    gammas = model.schedule.levels(timesteps or 101)
    variance = float(exact_variance(optimal_model(LinearSchedule(*ENDS)), gammas))
    x = model.sample(4000, generator=torch.Generator().manual_seed(0)).flatten()
    assert abs(float(x.mean()) - 0.7) < 4 * math.sqrt(variance / len(x)) + 2e-3
    assert float(x.var()) == pytest.approx(variance, rel=4 * math.sqrt(2 / len(x)))


def test_draws_of_a_learned_variance_have_the_moments_of_the_data():
    model = optimal_model(LinearSchedule(*ENDS), 4, 0.0, 31, learn_variance=True)
    x = model.sample(4000, generator=torch.Generator().manual_seed(0)).flatten()
    assert float(x.var()) == pytest.approx(LAMBDA, rel=4 * math.sqrt(2 / len(x)) + 5e-3)
