"""Known answers: closed forms against which the library is held, in float64, each of them once.

digits          the optimal linear VAE of scikit-learn's digits, and what it reconstructs
linear VAE      what another decoder, or a fixed sigma, costs
affine VAE      one dimension: the bound, its ridge, its other maximisers
LinearGaussian  one x: the ELBO, L_K for every K, its expansion in 1/K, prior Monte Carlo
codes           entropy, the cost of a wrong model, and the words of a real code
"""

from __future__ import annotations

import heapq
import math

import numpy as np
import torch
from torch import Tensor

# --- digits -------------------------------------------------------------------------------------
# scikit-learn's digits as real rows x/16, all 1,797 of them, by the number k of latents.

# Nats of the optimal linear VAE, which equals probabilistic PCA with k components.
DIGITS_PPCA = {
    2: 0.005707,
    5: 8.907637,
    10: 17.451947,
    16: 23.929443,
    20: 27.277300,
    32: 35.247022,
}
# Squared error per pixel of k principal components, and of the posterior mean, decoded.
DIGITS_PCA_ERROR = {2: 0.05243, 5: 0.03337, 10: 0.01920, 16: 0.01104, 20: 0.00775, 32: 0.00247}
DIGITS_POSTERIOR_ERROR = {
    2: 0.05256,
    5: 0.03359,
    10: 0.01952,
    16: 0.01142,
    20: 0.00813,
    32: 0.00272,
}
# Squared error per pixel of ten coefficients of the cosine transform.
DIGITS_DCT_ERROR = {"centred": 0.044, "the mean left in": 0.142}
# Nats of a density of the rows x/16 above one of the rows 0 … 16.
DIGITS_UNIT = 177.4457

# Kurtosis of p(z|x = 1) for z ~ N(0, 1), x|z ~ N(z², 0.3²); a Gaussian's is 3.
BENT_KURTOSIS = 1.12


# --- the linear VAE: p(x|z) = N(Wz + μ, σ²I), q = N(V(x − μ), diag δ) ---------------------------


def linear_optimum(eigenvalues: Tensor, k: int) -> tuple[float, float]:
    """σ² and E_x ELBO = E_x log p(x) of the best linear VAE, from all eigenvalues of the data."""
    largest = eigenvalues.sort(descending=True).values
    variance = float(largest[k:].mean())
    size = len(largest)
    logs = float(largest[:k].log().sum()) + (size - k) * math.log(variance)
    return variance, -0.5 * (size * math.log(2 * math.pi) + logs + size)


def linear_fixed(eigenvalues: Tensor, k: int, variance: float) -> float:
    """E_x ELBO of the best linear VAE with σ² given: directions above σ² are active, up to k."""
    largest = eigenvalues.sort(descending=True).values
    size, active = len(largest), min(k, int((largest > variance).sum()))
    on = float((largest[:active].log() + 1).sum())
    off = (size - active) * math.log(variance) + float(largest[active:].sum()) / variance
    return -0.5 * (size * math.log(2 * math.pi) + on + off)


def linear_gap(weight: Tensor, variance: float) -> float:
    """KL(q ‖ p(z|x)) of the best q with a diagonal covariance, for any decoder W: nats."""
    m = weight.mT @ weight + variance * torch.eye(weight.shape[1], dtype=weight.dtype)
    return 0.5 * float(m.diagonal().log().sum() - torch.logdet(m))


# --- the affine VAE: x ~ N(μ, σ²), q = N(ax + b, t²), p(x|z) = N(cz + v, s²) --------------------


def affine_terms(
    mu: float, sigma: float, *, a: float, b: float, c: float, v: float, t: float, s: float
) -> tuple[float, float]:
    """E_x of reconstruction and KL, nats."""
    m = a * mu + b
    error = (mu - c * m - v) ** 2 + (1 - a * c) ** 2 * sigma**2 + c**2 * t**2
    reconstruction = -0.5 * math.log(2 * math.pi * s**2) - error / (2 * s**2)
    return reconstruction, 0.5 * (t**2 + m**2 + a**2 * sigma**2 - 1 - math.log(t**2))


def affine_bound(mu: float, sigma: float, **parts: float) -> float:
    """E_x ELBO, nats."""
    reconstruction, kl = affine_terms(mu, sigma, **parts)
    return reconstruction - kl


def affine_optimum(sigma: float) -> float:
    """The largest E_x ELBO, which is minus the entropy of the data: nats."""
    return -0.5 * math.log(2 * math.pi * math.e * sigma**2)


def affine_fixed(mu: float, sigma: float, s: float, beta: float = 1.0) -> dict[str, float]:
    """Where reconstruction − beta · KL is largest with s given: collapsed if beta s² ≥ σ²."""
    c = math.sqrt(max(sigma**2 - beta * s**2, 0))
    a = c / sigma**2
    return {
        "a": a,
        "b": -a * mu,
        "c": c,
        "v": mu,
        "t": min(math.sqrt(beta) * s / sigma, 1),
        "s": s,
    }


def affine_ridge(mu: float, sigma: float, t: float) -> dict[str, float]:
    """A joint maximiser for each t in (0, 1]; all have the same bound, and KL = −log t."""
    return affine_fixed(mu, sigma, sigma * t)


def affine_inverse(mu: float, sigma: float, t: float, s: float) -> dict[str, float]:
    """Maps that undo one another, z = (x − μ)/σ and x = σz + μ.

    The terms maximised one by one give t = 1 and s = σ, ½ nat below the optimum; s = σt is ½t²
    below it.
    """
    return {"a": 1 / sigma, "b": -mu / sigma, "c": sigma, "v": mu, "t": t, "s": s}


# --- one x of a linear-Gaussian model -----------------------------------------------------------


class LinearGaussian:
    """z ~ N(0, 1), x|z ~ N(cz, s²), q = N(η, τ²) at one x: every estimator in closed form."""

    x, c, s, eta, tau = 1.2, 0.9, math.sqrt(0.5), 0.3, math.sqrt(0.6)
    elbo, second_moment, l_50, l_50_expanded = -2.02368, 1.50245, -1.60865, -1.608595

    @property
    def posterior(self) -> tuple[float, float]:
        """Mean and variance of p(z|x)."""
        total = self.c**2 + self.s**2
        return self.c * self.x / total, self.s**2 / total

    @property
    def log_evidence(self) -> float:
        """Log p(x), nats."""
        variance = self.c**2 + self.s**2
        return -0.5 * (math.log(2 * math.pi * variance) + self.x**2 / variance)

    def moment(self, n: int) -> float:
        """E r^n with r = w/p(x) = p(z|x)/q(z|x): finite iff n τ² > (n − 1) P."""
        mean, variance = self.posterior
        ours, theirs = n / variance, (n - 1) / self.tau**2
        if ours <= theirs:
            return math.inf
        exponent = ours * theirs / (ours - theirs) * (mean - self.eta) ** 2 / 2
        scale = variance ** (-n / 2) * self.tau ** (n - 1) / math.sqrt(ours - theirs)
        return scale * math.exp(exponent)

    def expansion(self, num_samples: int, order: int = 1) -> float:
        """L_K ≈ log p − V/2K + (μ₃/3 − 3V²/4)/K²: V and μ₃ are the central moments of r."""
        second, third = self.moment(2), self.moment(3)
        v, mu_3 = second - 1, third - 3 * second + 2
        terms = (-v / (2 * num_samples), (mu_3 / 3 - 0.75 * v**2) / num_samples**2)
        return self.log_evidence + sum(terms[:order])


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


def importance_bound(num_samples: int, *, c: float, eta: float, log_tau: float) -> float:
    """L_K of `LinearGaussian` at other (c, η, log τ), exact for every K: one integral.

    Frullani's log S = ∫ (e^{−t} − e^{−tS}) dt/t makes the mean over K independent draws a power:

        E log Σ_k w_k = ∫ (e^{−t} − M(t)^K) dt/t,   M(t) = E e^{−tw}.

    Both integrals, that over log t and the one inside M over the draw, are of smooth functions
    that vanish at their ends, for which equal steps converge exponentially.
    """
    o = LinearGaussian()
    eps = np.linspace(-9, 9, 361)
    mass = np.exp(-0.5 * eps**2)
    mass /= mass.sum()
    z = eta + math.exp(log_tau) * eps
    log_joint = -0.5 * (z**2 + (o.x - c * z) ** 2 / o.s**2) - math.log(2 * math.pi * o.s)
    log_weight = log_joint + 0.5 * eps**2 + log_tau + 0.5 * math.log(2 * math.pi)
    log_t = np.linspace(-45, 60, 1401)
    m = np.exp(-np.exp(log_t[:, None] + log_weight)) @ mass
    difference = np.exp(-np.exp(log_t)) - m**num_samples
    return float(difference.sum() * (log_t[1] - log_t[0])) - math.log(num_samples)


def importance_slope(num_samples: int, name: str, **at: float) -> float:
    """∂ L_K / ∂ ``name`` by central differences of `importance_bound`."""
    step = 1e-4
    above, below = (
        importance_bound(num_samples, **{**at, name: at[name] + h}) for h in (step, -step)
    )
    return (above - below) / (2 * step)


# --- codes --------------------------------------------------------------------------------------


def cross_entropy(p: Tensor, q: Tensor) -> float:
    """Bits per symbol of p in the ideal code of q: entropy of p, plus KL(p ‖ q)."""
    return float(-torch.special.xlogy(p, q).sum() / math.log(2))


def huffman_lengths(p: Tensor) -> Tensor:
    """Bits of each symbol's word in the best prefix code: join the two rarest until one is left.

    Their mean is at least the entropy, and less than one bit above it.
    """
    lengths = torch.zeros_like(p)
    heap = [(float(weight), i, [i]) for i, weight in enumerate(p)]
    heapq.heapify(heap)
    while len(heap) > 1:
        (one, order, some), (other, _, more) = heapq.heappop(heap), heapq.heappop(heap)
        lengths[some + more] += 1
        heapq.heappush(heap, (one + other, order, some + more))
    return lengths
