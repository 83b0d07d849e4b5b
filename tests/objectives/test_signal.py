"""How much of a gradient is signal: |mean| / standard deviation, against its exact limit.

With w = p(x, z)/q(z|x), p = E w and K draws, a gradient is a ratio of means of draws, so that for
large K its noise follows from the noise of those means (the delta method), to first order:

    decoder   Σ w g / Σ w,       g = ∂ log p(x, z)/∂c
              mean m = E wg / p,  variance E w²(g − m)² / p² K
    encoder   Σ w g / Σ w,       g = ∂ log p(x, z)/∂z, whose E wg = 0
              mean A / p² K,      variance E w²g² / p² K
    dreg      Σ w² h / (Σ w)²,   h = ∂ log w/∂z
              mean A / p² K,      variance Var(w²h − 2Aw/p) / p⁴ K³

where A = E w²h, z = η + τ ε, and E is over z ~ q: one integral, by Gauss–Hermite quadrature. The
ratio grows as √K for the decoder, falls as 1/√K for the encoder, and grows as √K with dreg.

References:
    Rainforth et al., Tighter Variational Bounds are Not Necessarily Better, 2018, theorem 1.
    Tucker et al., Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives, 2019.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.objectives.toy import KNOWN, slopes

SAMPLES = (16, 64, 256)
GROWTH = {("iwae", "c"): 0.5, ("dreg", "c"): 0.5, ("iwae", "eta"): -0.5, ("dreg", "eta"): 0.5}


def limits() -> dict[tuple[str, str], float]:
    """What |mean| / sd, divided by its power of K, tends to."""
    o = KNOWN
    eps, mass = np.polynomial.hermite_e.hermegauss(120)
    mass = mass / mass.sum()
    z = o.eta + o.tau * eps
    log_joint = -0.5 * (z**2 + (o.x - o.c * z) ** 2 / o.s**2) - math.log(2 * math.pi * o.s)
    w = np.exp(log_joint + 0.5 * eps**2 + math.log(o.tau) + 0.5 * math.log(2 * math.pi))
    p = mass @ w
    assert math.log(p) == pytest.approx(o.log_evidence, abs=1e-9)
    # Decoder: the limit of the mean is the slope of the evidence itself.
    g = (o.x - o.c * z) * z / o.s**2
    mean = mass @ (w * g) / p
    decoder = abs(mean) / math.sqrt(mass @ (w / p * (g - mean)) ** 2)
    # Encoder: log q(z|x) does not move with η along z = η + τ ε; its score does.
    along = o.c * (o.x - o.c * z) / o.s**2 - z  # ∂ log p(x, z)/∂z
    h = along + (z - o.eta) / o.tau**2
    a = mass @ (w**2 * h)
    encoder = abs(a) / p**2 / math.sqrt(mass @ (w / p * along) ** 2)
    spread = w**2 * h - 2 * a * w / p
    dreg = abs(a) / math.sqrt(mass @ (spread - mass @ spread) ** 2)
    return {
        ("iwae", "c"): decoder,
        ("dreg", "c"): decoder,
        ("iwae", "eta"): encoder,
        ("dreg", "eta"): dreg,
    }


@pytest.fixture(scope="module")
def ratios() -> dict[tuple[str, str], list[float]]:
    """Measured |mean| / sd of each gradient for each number of samples."""
    found: dict[tuple[str, str], list[float]] = {case: [] for case in GROWTH}
    for k in SAMPLES:
        grads = {name: slopes(name, k, rows=16_000) for name in ("iwae", "dreg")}
        for name, parameter in GROWTH:
            # Both have one mean; where noise drowns it, dreg's is known well enough to be it.
            signal = grads["dreg"][parameter].mean().abs()
            found[name, parameter].append(float(signal / grads[name][parameter].std()))
    return found


@pytest.mark.parametrize("case", GROWTH)
def test_the_ratio_of_signal_to_noise_tends_to_its_exact_limit(ratios, case):
    measured = ratios[case][-1] / SAMPLES[-1] ** GROWTH[case]
    assert measured == pytest.approx(limits()[case], rel=0.06)


@pytest.mark.parametrize("case", GROWTH)
def test_the_ratio_grows_or_falls_with_the_root_of_the_samples(ratios, case):
    growth = np.polyfit(np.log(SAMPLES), np.log(ratios[case]), 1)[0]
    assert growth == pytest.approx(GROWTH[case], abs=0.08)
