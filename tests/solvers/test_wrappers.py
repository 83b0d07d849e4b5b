"""Guided and clipped denoisers: z = α x̂ + σ ε̂ holds whatever is done to x̂."""

from __future__ import annotations

import pytest
import torch

from lowerbound.errors import InputError
from lowerbound.noising import Denoised, alpha, sigma
from lowerbound.solvers import Seen, clipped, grid, guided, guided_pair, solve, thresholded
from tests.solvers.gaussian import MEAN, diagonal, normal, schedule

GAMMA = torch.tensor(-1.3, dtype=torch.float64)


def explains(found, z, gamma=GAMMA):
    torch.testing.assert_close(alpha(gamma) * found.x + sigma(gamma) * found.eps, z)


def pair(z, gamma):
    """The first half of a doubled batch with the context, the second without."""
    with_, without = (
        diagonal(m)(half, gamma) for m, half in zip((MEAN, 0.0), z.chunk(2), strict=True)
    )
    return Denoised(torch.cat([with_.x, without.x]), torch.cat([with_.eps, without.eps]))


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("paired", [False, True])
def test_guidance_goes_from_without_towards_with(scale, paired):
    z = normal(6, 5)
    given, without = diagonal(MEAN), diagonal()
    made = guided_pair(pair, scale) if paired else guided(given, without, scale)
    found = Seen(*made(z, GAMMA))
    one, other = given(z, GAMMA), without(z, GAMMA)
    torch.testing.assert_close(found.eps, other.eps + scale * (one.eps - other.eps))
    torch.testing.assert_close(found.x, other.x + scale * (one.x - other.x))
    explains(found, z)


def test_no_guidance_and_no_context_cost_one_evaluation():
    z, gammas = normal(3, 5), grid("gamma", 4, schedule)
    for scale, calls in ((1.0, (4, 0)), (0.0, (0, 4)), (2.0, (4, 4))):
        given, without = diagonal(MEAN), diagonal()
        solve(guided(given, without, scale), z, gammas)
        assert (given.calls, without.calls) == calls
    plain = solve(diagonal(MEAN), z, gammas)
    assert torch.equal(solve(guided(diagonal(MEAN), diagonal(), 1.0), z, gammas), plain)


def test_guidance_of_means_samples_the_mean_it_points_to():
    # Both have the covariance C, so that the guided denoiser is that of N(s m, C).
    z, gammas = normal(4, 5), grid("gamma", 20, schedule)
    found = solve(guided(diagonal(MEAN), diagonal(), 2.5), z, gammas, method="heun")
    torch.testing.assert_close(found, solve(diagonal(2.5 * MEAN), z, gammas, method="heun"))


def test_clipping_moves_x_into_the_range_and_leaves_the_rest_alone():
    z = 3 * normal(6, 5)
    plain = diagonal(MEAN)(z, GAMMA)
    found = Seen(*clipped(diagonal(MEAN), -1.0, 0.8)(z, GAMMA))
    inside = (plain.x >= -1) & (plain.x <= 0.8)
    assert 0 < inside.sum() < inside.numel()
    assert torch.equal(found.x, plain.x.clamp(-1, 0.8))
    assert torch.equal(found.eps[inside], plain.eps[inside])
    explains(found, z)


@pytest.mark.parametrize("share", [0.5, 0.8, 1.0])
def test_thresholds_shrink_what_lies_outside(share):
    z = normal(6, 5) * torch.tensor([0.01, 0.1, 1, 3, 10, 30], dtype=torch.float64)[:, None]
    plain = diagonal()(z, GAMMA)
    found = Seen(*thresholded(diagonal(), share, 0.9)(z, GAMMA))
    assert found.x.abs().max() <= 0.9
    explains(found, z)
    for before, after in zip(plain.x, found.x, strict=True):
        limit = max(float(before.abs().sort().values[round(share * 5 + 0.49) - 1]), 0.9)
        torch.testing.assert_close(after, before.clamp(-limit, limit) * 0.9 / limit)


def test_a_large_example_can_be_clipped():
    z = normal(2, 3, 300, 300)
    x, _ = thresholded(lambda z, gamma: Denoised(2 * z, z), 0.9)(z, GAMMA)
    assert x.shape == z.shape
    assert float((x.abs() == 1).double().mean()) == pytest.approx(0.1, abs=1e-4)


@pytest.mark.parametrize("scale", [-0.1, float("nan"), float("inf")])
def test_a_scale_of_guidance_that_means_nothing_is_refused(scale):
    with pytest.raises(InputError, match="'guidance' must be a number of at least 0"):
        guided(diagonal(), diagonal(), scale)
    with pytest.raises(InputError, match="'guidance' must be a number of at least 0"):
        guided_pair(pair, scale)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda d: guided(d, diagonal(), 2.0),
        lambda d: guided_pair(d, 2.0),
        lambda d: clipped(d, -0.1, 0.1),
        lambda d: thresholded(d, 0.5, 0.1),
    ],
)
def test_a_learned_variance_goes_through(wrap):
    z, v = normal(6, 5), normal(6, 5, seed=1).sigmoid()

    def learned(z, gamma):
        return (*diagonal(MEAN)(z, gamma), v if len(z) == 6 else torch.cat([v, 1 - v]))

    _, _, found = wrap(learned)(z, GAMMA)
    assert torch.equal(found, v)


def test_ranges_that_hold_nothing_are_refused():
    with pytest.raises(InputError, match="'low' must be below the other end, 1"):
        clipped(diagonal(), 1, 1)
    for share, bound in ((0.0, 1.0), (1.1, 1.0), (0.5, 0.0)):
        with pytest.raises(InputError, match="'share' must be above 0 and at most 1"):
            thresholded(diagonal(), share, bound)
