"""The known answers themselves: each number on paper against a formula, each formula another way.

An oracle that is wrong would make the library wrong, or fail for no reason.
"""

from __future__ import annotations

import itertools
import math
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import oracles
from tests.oracles import LinearGaussian, importance_bound, importance_slope

ROOT = Path(__file__).parent.parent
KNOWN = LinearGaussian()
AT = {"c": KNOWN.c, "eta": KNOWN.eta, "log_tau": math.log(KNOWN.tau)}


@pytest.fixture(scope="module")
def digits_eigenvalues() -> torch.Tensor:
    """Of the covariance (with 1/N) of the digits as real rows x/16, the largest first."""
    from sklearn.datasets import load_digits

    x = torch.from_numpy(load_digits().data / 16)
    return torch.linalg.eigvalsh(x.T.cov(correction=0)).flip(0).clamp_min(0)


@pytest.mark.parametrize("k", oracles.DIGITS_PPCA)
def test_the_digits_have_the_numbers_of_the_table(digits_eigenvalues, k):
    variance, nats = oracles.linear_optimum(digits_eigenvalues, k)
    assert nats == pytest.approx(oracles.DIGITS_PPCA[k], abs=1e-6)
    dropped = float(digits_eigenvalues[k:].sum()) / 64
    assert dropped == pytest.approx(oracles.DIGITS_PCA_ERROR[k], abs=5e-6)
    # The posterior mean shrinks a direction by 1 − σ²/λ, and so loses σ⁴/λ of it.
    shrunk = dropped + float((variance**2 / digits_eigenvalues[:k]).sum()) / 64
    assert shrunk == pytest.approx(oracles.DIGITS_POSTERIOR_ERROR[k], abs=5e-6)
    # With σ² given at its best value the formula for a given σ² is that of the optimum.
    assert oracles.linear_fixed(digits_eigenvalues, k, variance) == pytest.approx(nats, abs=1e-9)


def test_all_tables_of_the_digits_have_the_same_latents_and_the_unit_is_its_formula():
    for table in (oracles.DIGITS_PCA_ERROR, oracles.DIGITS_POSTERIOR_ERROR):
        assert list(table) == list(oracles.DIGITS_PPCA)
    assert pytest.approx(64 * math.log(16), abs=5e-5) == oracles.DIGITS_UNIT


def test_the_numbers_on_paper_are_those_of_the_formulas():
    mean, variance = KNOWN.posterior
    assert importance_bound(1, **AT) == pytest.approx(KNOWN.elbo, abs=1e-5)
    assert importance_bound(50, **AT) == pytest.approx(KNOWN.l_50, abs=1e-5)
    assert KNOWN.moment(2) == pytest.approx(KNOWN.second_moment, abs=1e-5)
    assert KNOWN.expansion(50) == pytest.approx(KNOWN.l_50_expanded, abs=1e-6)
    assert importance_slope(1, "eta", **AT) == pytest.approx((mean - KNOWN.eta) / variance)
    assert importance_slope(1, "log_tau", **AT) == pytest.approx(1 - KNOWN.tau**2 / variance)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_the_moments_of_a_weight_are_its_integrals(n):
    z = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    mean, variance = KNOWN.posterior
    p = torch.distributions.Normal(mean, math.sqrt(variance)).log_prob(z)
    q = torch.distributions.Normal(KNOWN.eta, KNOWN.tau).log_prob(z)
    assert KNOWN.moment(n) == pytest.approx(oracles.integral((n * p - (n - 1) * q).exp(), z))


def test_a_narrow_encoder_has_weights_of_infinite_variance():
    class Narrow(LinearGaussian):
        tau = math.sqrt(LinearGaussian().posterior[1] / 2)

    assert Narrow().moment(2) == math.inf
    assert math.isfinite(KNOWN.moment(50))  # wider than the posterior: all moments


@pytest.mark.parametrize("num_samples", [1, 2, 3])
def test_the_bound_by_one_integral_is_that_over_all_draws(num_samples):
    """A grid with one axis for each draw, by Gauss–Hermite quadrature."""
    eps, mass = np.polynomial.hermite_e.hermegauss(60)
    mass = mass / mass.sum()
    z = KNOWN.eta + KNOWN.tau * eps
    log_joint = -0.5 * (z**2 + (KNOWN.x - KNOWN.c * z) ** 2 / KNOWN.s**2)
    log_q = -0.5 * eps**2 - math.log(KNOWN.tau) - 0.5 * math.log(2 * math.pi)
    w = np.exp(log_joint - math.log(2 * math.pi * KNOWN.s) - log_q)
    total, masses = w, mass
    for _ in range(num_samples - 1):
        total, masses = total[..., None] + w, masses[..., None] * mass
    by_hand = float((masses * np.log(total / num_samples)).sum())
    assert importance_bound(num_samples, **AT) == pytest.approx(by_hand, abs=1e-9)


def test_the_gap_between_the_bound_of_many_samples_and_the_evidence_is_its_expansion():
    values = {k: importance_bound(k, **AT) for k in (1, 2, 4, 16, 64, 256)}
    assert all(a < b for a, b in itertools.pairwise([*values.values(), KNOWN.log_evidence]))
    for order in (1, 2):  # what is left out is of the next order in 1/K
        left = [abs(values[k] - KNOWN.expansion(k, order)) for k in (64, 256)]
        assert left[0] / left[1] == pytest.approx(4 ** (order + 1), rel=0.1)


def test_the_slope_of_the_evidence_is_the_limit_of_those_of_the_bounds():
    m, variance = KNOWN.posterior
    total = KNOWN.c**2 + KNOWN.s**2
    exact = KNOWN.c * (KNOWN.x**2 / total - 1) / total  # ∂ log p(x)/∂c
    assert importance_slope(10_000, "c", **AT) == pytest.approx(exact, abs=1e-4)
    at = {"c": KNOWN.c, "eta": m, "log_tau": 0.5 * math.log(variance)}
    for k in (1, 7):
        assert importance_bound(k, **at) == pytest.approx(KNOWN.log_evidence, abs=1e-9)
        assert importance_slope(k, "c", **at) == pytest.approx(exact, abs=1e-6)


def test_a_bent_decoder_has_the_posterior_of_the_known_kurtosis():
    z = torch.linspace(-6, 6, 60_001, dtype=torch.float64)
    density = (-0.5 * (z**2 + ((1 - z**2) / 0.3) ** 2)).exp()
    moments = [oracles.integral(density * z**n, z) for n in (0, 2, 4)]
    kurtosis = moments[2] * moments[0] / moments[1] ** 2
    assert kurtosis == pytest.approx(oracles.BENT_KURTOSIS, abs=5e-3)


def gradient(of, parts: dict[str, float], names: str) -> dict[str, float]:
    """Central differences of a function of parameters by name."""
    step = 1e-5
    ends = {n: [of(**{**parts, n: parts[n] + h}) for h in (step, -step)] for n in names}
    return {n: (above - below) / (2 * step) for n, (above, below) in ends.items()}


@pytest.mark.parametrize("t", [0.999, 0.6, 0.1])
def test_the_ridge_of_the_affine_model_is_flat_and_at_the_top(t):
    mu, sigma = 1.5, 2.0
    parts = oracles.affine_ridge(mu, sigma, t)
    reconstruction, kl = oracles.affine_terms(mu, sigma, **parts)
    assert reconstruction - kl == pytest.approx(oracles.affine_optimum(sigma))
    assert kl == pytest.approx(-math.log(t))
    slopes = gradient(lambda **p: oracles.affine_bound(mu, sigma, **p), parts, "abcvts")
    assert max(map(abs, slopes.values())) < 1e-6


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("s", [0.5, 1.2, 3.0])
def test_with_sigma_given_no_step_from_the_maximiser_leads_up(beta, s):
    mu, sigma = 1.5, 2.0

    def weighted(**parts):
        reconstruction, kl = oracles.affine_terms(mu, sigma, **parts)
        return reconstruction - beta * kl

    best = oracles.affine_fixed(mu, sigma, s, beta)
    assert (best["c"] == 0) == (beta * s**2 >= sigma**2)
    assert max(map(abs, gradient(weighted, best, "abcvt").values())) < 1e-6
    for step in (-0.3, 0.3):
        for name in "abcvt":
            assert weighted(**{**best, name: best[name] + step}) < weighted(**best) + 1e-12


def test_terms_that_are_maximised_one_by_one_end_half_a_nat_below():
    mu, sigma = 1.5, 2.0
    apart = oracles.affine_bound(mu, sigma, **oracles.affine_inverse(mu, sigma, 1.0, sigma))
    assert oracles.affine_optimum(sigma) - apart == pytest.approx(0.5)
    for t in (0.9, 0.1):
        inverse = oracles.affine_inverse(mu, sigma, t, sigma * t)
        below = oracles.affine_optimum(sigma) - oracles.affine_bound(mu, sigma, **inverse)
        assert below == pytest.approx(t**2 / 2)


def test_a_code_has_the_lengths_of_its_tree():
    p = torch.tensor([0.4, 0.3, 0.2, 0.1]).double()
    assert oracles.huffman_lengths(p).tolist() == [1, 2, 3, 3]
    assert float((2 ** -oracles.huffman_lengths(torch.rand(17).double())).sum()) == 1  # Kraft
    q = torch.tensor([0.5, 0.25, 0.125, 0.125]).double()
    assert oracles.cross_entropy(q, q) == 1.75
    divergence = float((p * (p / q).log2()).sum())
    excess = oracles.cross_entropy(p, q) - oracles.cross_entropy(p, p)
    assert excess == pytest.approx(divergence)


@pytest.fixture
def constants(monkeypatch):
    """The names at the top of a worked example, which stands alone and has its own numbers."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))

    def constants(script: str) -> dict:
        return runpy.run_path(str(ROOT / "examples" / f"{script}.py"), run_name="read")

    yield constants
    import sys

    sys.modules.pop("_shared", None)


def test_the_examples_compare_with_these_answers(constants):
    assert constants("linear_vae")["EXACT"] == oracles.DIGITS_PPCA
    assert constants("blurry_mean")["POSTERIOR_MEAN"] == oracles.DIGITS_POSTERIOR_ERROR
    names = constants("iwae_tightening")
    for name in ("c", "s", "eta", "tau"):
        assert names[name] == getattr(KNOWN, name)


def test_the_page_of_the_objectives_has_the_bounds_of_the_known_model():
    page = (ROOT / "docs" / "theory" / "objectives.md").read_text().replace("−", "-")
    counts, values = (
        next(line.split("|")[2:-1] for line in page.splitlines() if line.startswith(start))
        for start in ("| K | 1 | 2 | 3 |", "| L_K |")
    )
    assert len(counts) == len(values) >= 5
    for count, told in zip(counts, values, strict=True):
        k = count.strip()
        exact = KNOWN.log_evidence if k == "∞" else importance_bound(int(k), **AT)
        assert float(told) == pytest.approx(exact, abs=6e-6)
