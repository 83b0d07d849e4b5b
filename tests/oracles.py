"""Known answers: closed forms against which the library is held, in float64."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

# scikit-learn's digits as real rows x/16, all 1,797 of them: nats of the optimal linear VAE,
# which equals probabilistic PCA with k components.
DIGITS_PPCA = {
    2: 0.005707,
    5: 8.907637,
    10: 17.451947,
    16: 23.929443,
    20: 27.277300,
    32: 35.247022,
}


def affine_bound(
    mu: float, sigma: float, *, a: float, b: float, c: float, v: float, t: float, s: float
) -> float:
    """E_x ELBO for x ~ N(μ, σ²), z ~ N(0, 1), q = N(ax + b, t²), p(x|z) = N(cz + v, s²)."""
    m = a * mu + b
    error = (mu - c * m - v) ** 2 + (1 - a * c) ** 2 * sigma**2 + c**2 * t**2
    reconstruction = -0.5 * math.log(2 * math.pi * s**2) - error / (2 * s**2)
    kl = 0.5 * (t**2 + m**2 + a**2 * sigma**2 - 1 - math.log(t**2))
    return reconstruction - kl


class LinearGaussian:
    """z ~ N(0, 1), x|z ~ N(cz, s²), q = N(η, τ²) at one x: every estimator in closed form."""

    x, c, s, eta, tau = 1.2, 0.9, math.sqrt(0.5), 0.3, math.sqrt(0.6)
    elbo, second_moment, l_50 = -2.02368, 1.50245, -1.60865

    @property
    def posterior(self) -> tuple[float, float]:
        """Mean and variance of p(z|x)."""
        total = self.c**2 + self.s**2
        return self.c * self.x / total, self.s**2 / total

    @property
    def log_evidence(self) -> float:
        variance = self.c**2 + self.s**2
        return -0.5 * (math.log(2 * math.pi * variance) + self.x**2 / variance)


# Nats by which prior Monte Carlo with 500 draws falls short of log p(x), in d copies of
# `LinearGaussian`: mean over 20,000 repetitions of `prior_shortfall`, and its standard error.
PRIOR_SHORTFALL = {
    1: (0.00098, 0.00031),
    8: (0.1602, 0.0040),
    16: (1.8156, 0.0115),
    32: (9.2366, 0.0226),
    64: (30.9486, 0.0382),
}


def prior_shortfall(d: int, num_samples: int, num_repetitions: int, seed: int) -> np.ndarray:
    """Nats by which each estimate from draws of the prior is below log p(x)."""
    o, generator = LinearGaussian(), np.random.default_rng(seed)
    short = np.empty(num_repetitions)
    for i in range(num_repetitions):
        z = generator.standard_normal((num_samples, d))
        log_p = -0.5 * np.square((o.x - o.c * z) / o.s).sum(1)
        log_p -= d * (math.log(o.s) + 0.5 * math.log(2 * math.pi))
        largest = log_p.max()
        mean = np.exp(log_p - largest).mean()
        short[i] = d * o.log_evidence - largest - math.log(mean)
    return short


def gaussian_log_prob(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """Log-density of rows of ``x`` under a full Gaussian, by torch.distributions."""
    return torch.distributions.MultivariateNormal(mean, covariance).log_prob(x)


def integral(values: Tensor, grid: Tensor) -> float:
    """Trapezoidal integral over a one-dimensional grid."""
    return float(torch.trapezoid(values, grid).detach())


def importance_bound(
    num_samples: int, *, c: float, eta: float, log_tau: float, num_nodes: int = 60
) -> float:
    """L_K of `LinearGaussian` at other (c, η, log τ), by Gauss–Hermite quadrature over K draws."""
    o = LinearGaussian()
    nodes, masses = np.polynomial.hermite_e.hermegauss(num_nodes)
    masses = masses / masses.sum()
    z = eta + math.exp(log_tau) * nodes
    log_joint = -0.5 * (z**2 + (o.x - c * z) ** 2 / o.s**2) - math.log(2 * math.pi * o.s)
    log_weight = log_joint + 0.5 * nodes**2 + log_tau + 0.5 * math.log(2 * math.pi)
    total, mass = np.exp(log_weight), masses
    for _ in range(num_samples - 1):  # one more axis of the grid for each further draw
        total = total[..., None] + np.exp(log_weight)
        mass = mass[..., None] * masses
    return float((mass * np.log(total / num_samples)).sum())


def importance_slope(num_samples: int, name: str, **at: float) -> float:
    """∂ L_K / ∂ ``name`` by central differences of `importance_bound`."""
    step = 1e-4
    above, below = (
        importance_bound(num_samples, **{**at, name: at[name] + h}) for h in (step, -step)
    )
    return (above - below) / (2 * step)
