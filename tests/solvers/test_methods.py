"""The numbers of a step are those of the published formulas, written here as they are there."""

from __future__ import annotations

import math

import pytest
import torch

from lowerbound.noising import alpha, sigma
from lowerbound.solvers import METHODS, plan, solve
from tests.solvers.gaussian import MEAN, diagonal, levels, normal

BY_ETA = [name for name, member in METHODS.items() if member.draws == "by eta"]


def test_the_ancestral_step_is_the_textbook_posterior():
    gammas = levels(7)
    a, s = alpha(gammas), sigma(gammas)
    x, eps = normal(2, 50)
    for i, leap in enumerate(plan(gammas, "ancestral")):
        z = a[i] * x + s[i] * eps
        ratio = a[i] / a[i + 1]
        fresh = s[i] ** 2 - ratio**2 * s[i + 1] ** 2
        mean = (ratio * s[i + 1] ** 2 * z + a[i + 1] * fresh * x) / s[i] ** 2
        torch.testing.assert_close(leap.x * x + leap.eps * eps, mean)
        variance = float(fresh * s[i + 1] ** 2 / s[i] ** 2)
        assert leap.noise**2 == pytest.approx(variance, rel=1e-6)
    for i, leap in enumerate(plan(gammas, "ancestral", variance=1.0)):
        ratio = a[i] / a[i + 1]
        assert leap.noise**2 == pytest.approx(float(s[i] ** 2 - ratio**2 * s[i + 1] ** 2))


def test_a_learned_variance_is_read_element_by_element_unless_another_is_asked_for():
    z, gammas = normal(4, 5), levels(9)
    half = torch.cat([torch.zeros(4, 2), torch.ones(4, 3)], 1).double()

    def learned(z, gamma):
        return (*diagonal(MEAN)(z, gamma), half)

    def run(denoise, **options):
        return solve(denoise, z, gammas, method="ancestral", **options)

    low, high = (run(diagonal(MEAN), variance=v) for v in (0.0, 1.0))
    assert not torch.equal(low, high)
    torch.testing.assert_close(run(learned), torch.where(half == 0, low, high))
    assert torch.equal(run(learned, variance=0.0), low)
    assert torch.equal(run(diagonal(MEAN)), low)
    assert torch.equal(solve(learned, z, gammas), solve(diagonal(MEAN), z, gammas))


def test_ddim_with_all_its_noise_is_ancestral():
    z, gammas = normal(9, 5), levels(11)
    found = solve(diagonal(MEAN), z, gammas, method="ddim", eta=1.0)
    torch.testing.assert_close(found, solve(diagonal(MEAN), z, gammas, method="ancestral"))
    for one, other in zip(plan(gammas, "dpm++", 1.0), plan(gammas, "ancestral"), strict=True):
        assert one[:3] == pytest.approx(other[:3], rel=1e-12)


@pytest.mark.parametrize("method", BY_ETA)
def test_eta_is_the_share_of_the_standard_deviation_of_the_posterior(method):
    whole, part = (plan(levels(9), method, eta) for eta in (1.0, 0.3))
    for one, other in zip(whole, part, strict=True):
        assert other.noise == pytest.approx(0.3 * one.noise, rel=1e-12)
    clean = sigma(levels(9)[1:]).tolist()
    for leap, s in zip(part, clean, strict=True):
        assert leap.eps**2 + leap.noise**2 == pytest.approx(s**2, rel=1e-12)
    assert whole[0].pull == 0  # nothing came before


def test_numbers_of_very_short_steps_lose_nothing():
    # Differences of σ² and α² in float32 would have no digit left.
    gammas = torch.tensor([5.0, 5.0 - 1e-9], dtype=torch.float64)
    h = float(gammas[0] - gammas[1]) / 2
    (leap,) = plan(gammas, "ancestral")
    assert leap.noise == pytest.approx(float(sigma(gammas[1])) * math.sqrt(2 * h), rel=1e-6)
    (leap,) = plan(gammas, "heun")
    assert leap.push == pytest.approx(-float(sigma(gammas[1])) * h / 2, rel=1e-6)


def test_euler_is_the_step_of_flow_matching():
    # In its own variables: w = (1 − t) x + t ε, w_s = w_t + (s − t) (ε̂ − x̂), z = (α + σ) w.
    gammas, denoise = levels(13, "flow"), diagonal(MEAN)
    scale, t = alpha(gammas) + sigma(gammas), sigma(gammas) / (alpha(gammas) + sigma(gammas))
    z = normal(4, 5)
    w = z / scale[0]
    for i in range(13):
        found = denoise(w * scale[i], gammas[i])
        w = w + (t[i + 1] - t[i]) * (found.eps - found.x)
    torch.testing.assert_close(solve(denoise, z, gammas, method="euler"), w * scale[-1])


def test_heun_is_the_trapezoid_in_the_variance_exploding_variables():
    gammas, denoise = levels(13, "karras"), diagonal(MEAN)
    z = normal(4, 5)
    y, ratio = z / alpha(gammas[0]), (gammas / 2).exp()
    for i in range(13):
        step = ratio[i + 1] - ratio[i]
        slope = denoise(y * alpha(gammas[i]), gammas[i]).eps
        ahead = denoise((y + step * slope) * alpha(gammas[i + 1]), gammas[i + 1]).eps
        y = y + step * (slope + ahead) / 2
    torch.testing.assert_close(
        solve(denoise, z, gammas, method="heun"), y * alpha(gammas[-1]), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_dpm_is_the_published_multistep(eta):
    # z_s = (σ_s/σ_t) e^(−ηh) z − α_s (e^(−(1+η)h) − 1) D + σ_s √(1 − e^(−2ηh)) n,
    # D = x̂ + (x̂ − x̂_before) h/(2 h_before); the first step has D = x̂.
    gammas, denoise = levels(9, "karras"), diagonal(MEAN)
    z, own, before = normal(4, 5), torch.Generator().manual_seed(3), None
    w, h = z, -gammas.diff() / 2
    for i in range(9):
        x = denoise(w, gammas[i]).x
        leading = x if before is None else x + (x - before) * h[i] / (2 * h[i - 1])
        shrink = sigma(gammas[i + 1]) / sigma(gammas[i]) * (-eta * h[i]).exp()
        w = shrink * w - alpha(gammas[i + 1]) * (-(1 + eta) * h[i]).expm1() * leading
        if eta:
            noise = torch.randn(4, 5, generator=own, dtype=torch.float64)
            w = w + sigma(gammas[i + 1]) * (-(-2 * eta * h[i]).expm1()).sqrt() * noise
        before = x
    generator = torch.Generator().manual_seed(3)
    found = solve(denoise, z, gammas, method="dpm++", eta=eta, generator=generator)
    torch.testing.assert_close(found, w)
