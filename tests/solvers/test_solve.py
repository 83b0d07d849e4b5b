"""Solvers of Gaussian data, whose denoiser is linear and whose every answer is known."""

from __future__ import annotations

import math

import pytest
import torch

from lowerbound.errors import InputError
from lowerbound.noising import Denoised, alpha, sigma
from lowerbound.solvers import METHODS, finish, grid, inpaint, invert, plan, solve
from tests.solvers.gaussian import (
    EIGENVALUES,
    FIRST,
    LAST,
    MEAN,
    Optimal,
    diagonal,
    levels,
    normal,
    spread,
)

MEMBERS = METHODS.items()
STILL = [name for name, member in MEMBERS if member.draws != "always"]
BY_ETA = [name for name, member in MEMBERS if member.draws == "by eta"]
NOISY = [("ancestral", {}), ("ancestral", {"variance": 1.0})]
NOISY += [(name, {"eta": eta}) for name in BY_ETA for eta in (0.5, 1.0)]
EXACT = spread(LAST) / spread(FIRST)  # the ODE keeps (z − α m)/spread as it is


def factor(method, steps, kind="gamma"):
    """What a deterministic solver multiplies each direction by: the linear map itself."""
    z = torch.ones(1, len(EIGENVALUES), dtype=torch.float64)
    return solve(diagonal(), z, levels(steps, kind), method=method)[0]


@pytest.mark.parametrize("kind", ["gamma", "karras", "flow"])
@pytest.mark.parametrize("method", STILL)
def test_the_error_of_the_map_falls_with_the_order_of_the_method(method, kind):
    steps = 64 if kind == "gamma" else 128
    once, twice = ((factor(method, n, kind) / EXACT - 1).abs() for n in (steps, 2 * steps))
    rate = torch.log2(once / twice) - METHODS[method].order
    # The flow's steps are too long at the clean end for the smallest variance.
    assert rate[2 if kind == "flow" else 0 :].abs().max() < 0.35


# The log of the factor errs by Σ c(g) h^(p+1) over the steps, g = ς²/(λ + ς²): c is found by
# expanding one step in h. As dg = 2 g (1 − g) du along u = log ς, the sum is h^p times the change
# of C(g) = ∫ c dg/(2 g (1 − g)). The first step of dpm++ is one of DDIM.
LEADING = {
    "ddim": (lambda g: -g / 4, lambda g: 0 * g),
    "euler": (lambda g: -g / 4, lambda g: 0 * g),
    "heun": (lambda g: g**2 / 8, lambda g: 0 * g),
    "dpm++": (lambda g: 3 * g / 8 - 5 * g**2 / 16, lambda g: -g * (1 - g) / 2),
}


@pytest.mark.parametrize("steps", [100, 200])
@pytest.mark.parametrize("method", STILL)
def test_the_error_of_the_spread_has_the_leading_term_that_was_derived(method, steps):
    h = (FIRST - LAST) / (2 * steps)
    noisy, clean = (math.exp(g) / (EIGENVALUES + math.exp(g)) for g in (FIRST, LAST))
    over_all, at_first = LEADING[method]
    expected = h ** METHODS[method].order * (over_all(noisy) - over_all(clean) + at_first(noisy))
    found = (factor(method, steps) / EXACT).log()
    torch.testing.assert_close(found, expected, rtol=h, atol=0)


@pytest.mark.parametrize("method", STILL)
def test_samples_have_mean_and_spread_of_the_data(method):
    at = (alpha(torch.tensor(g, dtype=torch.float64)) for g in (FIRST, LAST))
    first, last = (a * MEAN for a in at)
    z = torch.stack([first, first + spread(FIRST), first - spread(FIRST)])
    found = solve(diagonal(MEAN), z, levels(200), method=method)
    expected = torch.stack([last, last + spread(LAST), last - spread(LAST)])
    tolerance = 0.013 if METHODS[method].order == 1 else 3e-4
    assert ((found - expected) / spread(LAST)).abs().max() < tolerance
    x = finish(diagonal(MEAN), found[0], levels(200))
    torch.testing.assert_close(x, MEAN, rtol=0, atol=tolerance)


def chain_variance(gammas, method, eigenvalues, start, **options):
    """Variances at the last level: V_s = k² V_t + τ², from the numbers of the steps.

    The second-order method also remembers x̂ of the step before; then the recursion is one of the
    covariance of both.
    """
    covariance = torch.zeros(len(eigenvalues), 2, 2, dtype=torch.float64)
    covariance[:, 0, 0] = start
    a, s = alpha(gammas), sigma(gammas)
    for i, leap in enumerate(plan(gammas, method, **options)):
        total = a[i] ** 2 * eigenvalues + s[i] ** 2
        x, eps = a[i] * eigenvalues / total, s[i] / total
        here = leap.x * x + leap.eps * eps + leap.pull * x
        old = torch.full_like(x, -leap.pull)
        move = torch.stack([here, old, x, torch.zeros_like(x)], -1).reshape(-1, 2, 2)
        covariance = move @ covariance @ move.mT
        covariance[:, 0, 0] += leap.noise**2
    return covariance[:, 0, 0]


@pytest.mark.parametrize(("method", "options"), NOISY)
def test_random_methods_have_the_variance_of_their_recursion(method, options):
    gammas, n = levels(20), 10_000
    z = normal(n, len(EIGENVALUES))
    found = solve(diagonal(), z, gammas, method=method, **options).var(0)
    expected = chain_variance(gammas, method, EIGENVALUES, 1.0, **options)
    torch.testing.assert_close(found, expected, rtol=4.5 * math.sqrt(2 / n), atol=0)


@pytest.mark.parametrize(("method", "options"), NOISY)
def test_random_methods_are_exact_in_the_limit_of_many_steps(method, options):
    start = spread(FIRST) ** 2
    once, twice = (
        chain_variance(levels(n), method, EIGENVALUES, start, **options) / spread(LAST) ** 2 - 1
        for n in (200, 400)
    )
    assert twice.abs().max() < 0.05
    rate = torch.log2(once.abs() / twice.abs())[once.abs() > 1e-9]
    assert len(rate) >= 4
    assert rate.min() > 0.8


def test_the_ancestral_chain_makes_the_variance_too_small_by_a_known_share():
    # Each step lacks 4 h² g (1 − g) of the variance, of which 1 − g is left in the end.
    values = torch.tensor([0.05, 0.3], dtype=torch.float64)
    for steps in (200, 400):
        gammas = grid("gamma", steps, lambda t: -18 + 28 * t)
        start, end = (spread(g, values) ** 2 for g in (10.0, -18.0))
        found = (chain_variance(gammas, "ancestral", values, start) / end).log()
        h = 14 / steps
        torch.testing.assert_close(found, torch.full_like(found, -h), rtol=h, atol=0)


@pytest.mark.parametrize(("variance", "eigenvalue"), [(0.0, 0.0), (1.0, 1.0)])
def test_each_variance_is_exact_for_the_data_that_it_is_right_for(variance, eigenvalue):
    # One point, and white noise: the chain has the right variance whatever the number of steps.
    values = torch.tensor([eigenvalue], dtype=torch.float64)
    start = spread(FIRST, values) ** 2
    found = chain_variance(levels(5), "ancestral", values, start, variance=variance)
    torch.testing.assert_close(found, spread(LAST, values) ** 2, rtol=1e-9, atol=0)


def test_the_ancestral_chain_has_the_known_evidence():
    # 1001 levels γ_i = −13 + 18 i/1000, λ = 0.3, p(z_1) = N(0, 1), p(x|z_0) the exact posterior.
    gammas, eigenvalue = levels(1000), 0.3
    values = torch.tensor([eigenvalue], dtype=torch.float64)
    variance = float(chain_variance(gammas, "ancestral", values, 1.0))
    a, s = float(alpha(gammas[-1])), float(sigma(gammas[-1]))
    total = a**2 * eigenvalue + s**2
    slope = a * eigenvalue / total
    seen = slope**2 * variance + eigenvalue * s**2 / total  # variance of x under the model
    nats = 0.5 * (math.log(2 * math.pi * seen) + eigenvalue / seen)
    assert nats == pytest.approx(0.816972337, abs=1e-8)


@pytest.mark.parametrize("method", STILL)
def test_the_same_noise_gives_the_same_picture_whatever_the_number_of_steps(method):
    z = normal(8, 5)
    few, many = (solve(diagonal(MEAN), z, levels(n), method=method) for n in (25, 400))
    assert (few - many).abs().max() < 0.1 * (many - many.mean(0)).abs().max()
    torch.testing.assert_close(few, solve(diagonal(MEAN), z, levels(25), method=method))


@pytest.mark.parametrize("method", STILL)
def test_how_examples_are_batched_changes_nothing(method):
    z = normal(7, 5)
    whole = solve(diagonal(MEAN), z, levels(12), method=method)
    parts = [solve(diagonal(MEAN), part, levels(12), method=method) for part in z.split([1, 4, 2])]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("method", METHODS)
def test_evaluations_are_counted_and_each_step_is_seen(method):
    denoise, seen = diagonal(), []
    solve(denoise, normal(2, 5), levels(6), method=method, keep=lambda *step: seen.append(step))
    assert denoise.calls == 6 * METHODS[method].evaluations
    assert [i for i, _, _ in seen] == list(range(6))
    for (_, z, found), gamma in zip(seen, levels(6), strict=False):
        torch.testing.assert_close(alpha(gamma) * found.x + sigma(gamma) * found.eps, z)


@pytest.mark.parametrize(("method", "options"), [*NOISY, ("heun", {})])
def test_randomness_is_private_and_repeats(method, options):
    z, state = normal(3, 5), torch.get_rng_state()

    def run(seed=None):
        own = None if seed is None else torch.Generator().manual_seed(seed)
        return solve(diagonal(), z, levels(5), method=method, generator=own, **options)

    assert torch.equal(run(), run())
    assert torch.equal(run(1), run(1))
    assert torch.equal(run(1), run(2)) == (method == "heun")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(z, normal(3, 5))  # what was given is left alone


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_stays_in_the_network(method):
    def coarse(z, gamma):
        assert z.dtype == gamma.dtype == torch.float32
        found = diagonal(MEAN.float())(z, gamma)
        return Denoised(found.x.bfloat16(), found.eps.bfloat16())

    found = solve(coarse, normal(4, 5, dtype=torch.bfloat16), levels(20), method=method)
    assert found.dtype == torch.float32
    assert finish(coarse, found, levels(20)).dtype == torch.float32
    single = solve(diagonal(MEAN.float()), normal(4, 5).float(), levels(20), method=method)
    double = solve(diagonal(MEAN), normal(4, 5).float().double(), levels(20), method=method)
    if METHODS[method].draws != "always":
        torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5)


def test_solving_records_no_gradients():
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)

    def denoise(z, gamma):
        found = diagonal()(z, gamma)
        return Denoised(found.x * weight, found.eps * weight)

    gammas = levels(3).requires_grad_()
    z = solve(denoise, normal(2, 5), gammas)
    assert not z.requires_grad
    assert not finish(denoise, z, gammas).requires_grad
    assert not invert(denoise, z, gammas).requires_grad
    assert not inpaint(denoise, z, gammas, z, torch.zeros(5)).requires_grad


@pytest.mark.parametrize("refinements", [0, 30])
def test_inverting_and_solving_returns_what_was_given(refinements):
    gammas, x = levels(40), MEAN + normal(6, 5)
    z = invert(diagonal(MEAN), x, gammas, refinements=refinements)
    found = solve(diagonal(MEAN), z, gammas)
    assert (found - x).abs().max() < (1e-9 if refinements else 0.4)


@pytest.mark.parametrize("method", STILL)
def test_inverted_data_are_noise(method):
    z = alpha(levels(2)[-1]) * MEAN + spread(LAST) * normal(6, 5)
    noise = invert(diagonal(MEAN), z, levels(200), method=method)
    expected = alpha(levels(2)[0]) * MEAN + spread(FIRST) * normal(6, 5)
    tolerance = 0.02 if METHODS[method].order == 1 else 1e-3
    torch.testing.assert_close(noise, expected, rtol=tolerance, atol=tolerance)
    returned = solve(diagonal(MEAN), noise, levels(200), method=method)
    torch.testing.assert_close(returned, z, rtol=3 * tolerance, atol=tolerance)


def test_correlated_data_come_out_correlated():
    root = normal(5, 5)
    optimal = Optimal(root @ root.mT + 0.1 * torch.eye(5, dtype=torch.float64))
    z = torch.eye(5, dtype=torch.float64)
    found = solve(optimal, z, levels(300), method="heun")
    share = spread(LAST, optimal.eigenvalues) / spread(FIRST, optimal.eigenvalues)
    exact = (optimal.axes * share) @ optimal.axes.mT  # of the ODE
    torch.testing.assert_close(found, exact, rtol=0, atol=5e-4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": "plms"}, "'method' must be one of ancestral, ddim"),
        ({"eta": 1.5}, "'eta' must be between 0 and 1, got 1.5"),
        ({"eta": float("nan")}, "'eta' must be between 0 and 1"),
        ({"method": "heun", "eta": 0.5}, "'eta' must be 0 for the method heun"),
        ({"method": "ddim", "variance": 0.5}, "'variance' must be 0 for the method ddim"),
        ({"gammas": torch.tensor([1.0])}, "'gammas' must be at least two levels"),
        ({"gammas": torch.tensor([1.0, 1.0])}, "'gammas' must be finite and falling"),
        ({"gammas": torch.tensor([1.0, -torch.inf])}, "'gammas' must be finite and falling"),
    ],
)
def test_bad_input_is_refused_by_name(change, said):
    given = {"gammas": levels(3), **change}
    with pytest.raises(InputError, match=said):
        solve(diagonal(), normal(2, 5), **given)


def test_what_cannot_be_inverted_is_refused():
    with pytest.raises(InputError, match="'method' must be one that draws no noise"):
        invert(diagonal(), normal(2, 5), levels(3), method="ancestral")
    with pytest.raises(InputError, match="'refinements' must be 0 for the method heun"):
        invert(diagonal(), normal(2, 5), levels(3), method="heun", refinements=2)
