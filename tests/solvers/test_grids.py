"""Levels fall from end to end, uniformly in what their name says."""

from __future__ import annotations

import math

import pytest
import torch

from lowerbound.errors import InputError
from lowerbound.noising import alpha, sigma
from lowerbound.solvers import GRIDS, grid
from tests.solvers.gaussian import FIRST, LAST, schedule


def cosine(t):
    """A bent schedule between the same ends, in float32."""
    t = t.float()
    return (LAST + (FIRST - LAST) * (1 - torch.cos(math.pi * t)) / 2).float()


@pytest.mark.parametrize("gamma", [schedule, cosine])
@pytest.mark.parametrize("steps", [1, 2, 17])
@pytest.mark.parametrize("kind", GRIDS)
def test_levels_fall_from_one_end_of_the_schedule_to_the_other(kind, steps, gamma):
    levels = grid(kind, steps, gamma)
    assert levels.shape == (steps + 1,)
    assert levels.dtype == torch.float64
    assert (levels[0], levels[-1]) == (FIRST, LAST)
    assert (levels.diff() < 0).all()


UNIFORM = {
    "gamma": lambda g: g,
    "karras": lambda g: (g / 2).exp() ** (1 / 7),
    "flow": lambda g: sigma(g) / (alpha(g) + sigma(g)),
    "time": lambda g: (g - LAST) / (FIRST - LAST),  # of the straight schedule
}


@pytest.mark.parametrize("kind", GRIDS)
def test_levels_are_uniform_in_what_their_name_says(kind):
    places = UNIFORM[kind](grid(kind, 10, schedule))
    torch.testing.assert_close(places.diff(), (places[-1] - places[0]).expand(10) / 10)


def test_times_follow_a_bent_schedule():
    expected = cosine(torch.linspace(1, 0, 6, dtype=torch.float64)).double()
    torch.testing.assert_close(grid("time", 5, cosine), expected)


def test_rho_of_one_is_uniform_in_the_ratio():
    ratio = (grid("karras", 5, schedule, rho=1.0) / 2).exp()
    torch.testing.assert_close(ratio.diff(), ratio.diff()[:1].expand(5))


@pytest.mark.parametrize("steps", [1, 3, 7, 10])
def test_a_chain_is_asked_for_levels_that_it_has_and_each_once(steps):
    levels = grid("time", steps, schedule, chain=10)
    known = schedule(torch.arange(11, dtype=torch.float64) / 10)
    assert len(levels.unique()) == steps + 1
    assert (levels[:, None] - known).abs().min(1).values.max() < 1e-12


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("cosine", 5, schedule), "'grid' must be one of time, gamma, karras, flow"),
        (("time", 0, schedule), "'steps' must be at least 1, got 0"),
        (("gamma", 5, schedule, 10), "'grid' must be time for a chain"),
        (("time", 11, schedule, 10), "'steps' must be at most the 10 of the chain, got 11"),
    ],
)
def test_bad_input_is_refused_by_name(arguments, said):
    kind, steps, gamma, *chain = arguments
    with pytest.raises(InputError, match=said):
        grid(kind, steps, gamma, chain=chain[0] if chain else None)
