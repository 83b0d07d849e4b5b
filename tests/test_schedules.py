"""Schedules: pinned ends, rising, and a derivative that is the derivative."""

from __future__ import annotations

import math

import pytest
import torch

from lowerbound.errors import InputError
from lowerbound.schedules import (
    SCHEDULES,
    LearnedSchedule,
    TableSchedule,
    ddpm_gammas,
    make_schedule,
)


def schedule_of(name, **options):
    """A schedule whose interior, where it is learned, is far from a line."""
    schedule = make_schedule(name, -7.25, 4.5, **options).double()
    if isinstance(schedule, LearnedSchedule):
        with torch.no_grad():
            for p in (schedule.heights, schedule.slopes, schedule.places):
                p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)) * 2)
    return schedule


@pytest.fixture(params=SCHEDULES)
def schedule(request):
    return schedule_of(request.param)


def test_ends_are_exact_and_the_rest_rises_between_them(schedule):
    t = torch.linspace(0, 1, 2001, dtype=torch.float64)
    gamma = schedule.gamma(t).detach()
    assert (float(gamma[0]), float(gamma[-1])) == (-7.25, 4.5)
    assert (gamma.diff() > 0).all()
    torch.testing.assert_close(schedule.levels(2001), gamma)


@pytest.mark.parametrize("name", SCHEDULES)
def test_ends_are_exact_in_float32(name):
    schedule = make_schedule(name, -13.3, 5.0)
    gamma = schedule.gamma(torch.tensor([0.0, 1.0]))
    assert torch.equal(gamma, torch.stack([schedule.gamma_0, schedule.gamma_1]))


def test_the_rate_is_the_derivative_and_integrates_to_the_width(schedule):
    t = torch.linspace(0.0003, 0.9997, 71, dtype=torch.float64, requires_grad=True)
    level = schedule(t)
    if not isinstance(schedule, TableSchedule):
        (expected,) = torch.autograd.grad(level.gamma.sum(), t)
        torch.testing.assert_close(level.rate, expected)
    middles = (torch.arange(99_900, dtype=torch.float64) + 0.5) / 99_900
    assert float(schedule(middles).rate.detach().mean()) == pytest.approx(11.75, rel=1e-4)
    assert (level.rate > 0).all()


@pytest.mark.parametrize("name", SCHEDULES)
def test_learned_ends_are_parameters_and_follow_the_interior(name):
    schedule = schedule_of(name, learn_ends=True)
    level = schedule(torch.tensor([0.25], dtype=torch.float64))
    ends = [schedule.gamma_0, schedule.gamma_1]
    start, end = torch.autograd.grad(level.gamma, ends, retain_graph=True)
    assert float(start) == pytest.approx(1 - float(level.interior))
    assert float(end) == pytest.approx(float(level.interior))
    slope_0, slope_1 = torch.autograd.grad(level.rate, ends)
    assert float(slope_1) == pytest.approx(float(level.rate) / 11.75)
    assert float(slope_0) == pytest.approx(-float(slope_1))


def test_the_interior_of_a_learned_schedule_has_a_gradient_and_its_ends_have_none_by_it():
    schedule = schedule_of("learned")
    gamma = schedule.gamma(torch.tensor([0.0, 1.0], dtype=torch.float64))
    gamma.sum().backward()
    assert all(not p.grad.abs().max() > 1e-12 for p in schedule.parameters())
    schedule(torch.tensor([0.3], dtype=torch.float64)).rate.sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in schedule.parameters())


def test_the_cosine_schedule_turns_at_a_constant_pace():
    schedule = schedule_of("cosine")
    gamma = schedule.gamma(torch.linspace(0, 1, 11, dtype=torch.float64))
    angle = torch.atan(torch.exp(gamma / 2))
    torch.testing.assert_close(angle.diff(), angle.diff().mean().expand(10))


@pytest.mark.parametrize("num_steps", [1000, 250])
def test_the_table_is_that_of_the_products_of_one_minus_beta(num_steps):
    product, expected = 1.0, []
    for i in range(num_steps):
        beta = (1e-4 + (0.02 - 1e-4) * i / (num_steps - 1)) * 1000 / num_steps
        product *= 1 - beta
        expected.append(math.log((1 - product) / product))
    gammas = ddpm_gammas(num_steps)
    torch.testing.assert_close(gammas, torch.tensor(expected, dtype=torch.float64))
    table = TableSchedule(gammas).double()
    torch.testing.assert_close(table.levels(num_steps), gammas, rtol=1e-6, atol=1e-6)


def test_halves_are_taken_as_full_numbers():
    schedule = make_schedule("learned")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        level = schedule(torch.tensor([0.3], dtype=torch.bfloat16))
        same = schedule(torch.tensor([0.3], dtype=torch.bfloat16).float())
    assert level.gamma.dtype == level.rate.dtype == torch.float32
    assert torch.equal(level.gamma, same.gamma)


@pytest.mark.parametrize("table", [[0.0, 1.0, 1.0], [0.0, -1.0], [1.0], [0.0, math.nan]])
def test_a_table_that_does_not_rise_is_refused(table):
    with pytest.raises(InputError, match="'gammas' must be"):
        TableSchedule(torch.tensor(table))


@pytest.mark.parametrize("ends", [(5.0, -13.0), (1.0, 1.0), (0.0, math.inf), (math.nan, 1.0)])
@pytest.mark.parametrize("name", SCHEDULES)
def test_ends_that_do_not_rise_are_refused(name, ends):
    with pytest.raises(InputError, match="'gamma_max' must be finite and above gamma_min"):
        make_schedule(name, *ends)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(InputError, match="'schedule' must be one of linear, cosine"):
        make_schedule("quadratic")
    with pytest.raises(InputError, match="'num_steps' must be at least 2"):
        ddpm_gammas(1)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_may_be_moved_between_precisions(name):
    schedule, t = make_schedule(name, -6.0, 4.0), torch.linspace(0, 1, 9)
    gammas = schedule.gamma(t)
    moved = make_schedule(name, -6.0, 4.0).double().float()
    torch.testing.assert_close(moved.gamma(t), gammas, rtol=1e-5, atol=1e-5)
    assert [float(g) for g in moved.gamma(t)[[0, -1]]] == [-6.0, 4.0]
