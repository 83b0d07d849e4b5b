"""The importance-weighted bound L_K rises to log p(x) with K, and how fast is known.

For z ~ N(0, 1), x | z ~ N(cz, s²) and an encoder q = N(η, τ²) that is off, L_1 is the ELBO and
L_K ≈ log p(x) − (E r² − 1)/2K with r = w/p(x). With the true posterior as encoder all weights are
equal: no variance is left, and one sample is as good as a thousand.
"""

import itertools
import math

import torch
from _shared import DATA, MARK, MODEL, arguments, finish, panels

from lowerbound.distributions import DiagonalGaussian, kl_gaussian

x = torch.tensor(1.2, dtype=torch.float64)
c, s, eta, tau = 0.9, math.sqrt(0.5), 0.3, math.sqrt(0.6)


def normal(mean, variance) -> DiagonalGaussian:
    """N(mean, variance) in one dimension."""
    mean, variance = (torch.as_tensor(v, dtype=torch.float64) for v in (mean, variance))
    return DiagonalGaussian(mean, 0.5 * variance.log(), event_ndim=0)


def log_weights(q: DiagonalGaussian, eps: torch.Tensor) -> torch.Tensor:
    """Log p(x, z) − log q(z|x) at z = μ + σε, nats."""
    z = q.rsample(eps)
    joint = normal(0, 1).log_prob(z) + normal(c * z, s**2).log_prob(x)
    return joint - q.log_prob(z)


def main() -> None:
    args = arguments(__doc__)
    total = c**2 + s**2
    P, m = s**2 / total, c * x / total  # variance and mean of p(z|x)
    log_p = normal(0, total).log_prob(x)
    q, posterior = normal(eta, tau**2), normal(m, P)
    second = tau**2 / math.sqrt(P * (2 * tau**2 - P)) * math.exp((m - eta) ** 2 / (2 * tau**2 - P))
    elbo = log_p - kl_gaussian(q, posterior)

    repeats = 40_000 if args.quick else 400_000
    generator = torch.Generator().manual_seed(0)
    Ks, means, errors = [1, 2, 5, 10, 20, 50], [], []
    eps = torch.randn(50, repeats, dtype=torch.float64, generator=generator)
    log_w = log_weights(q, eps)
    for K in Ks:
        estimates = log_w[:K].logsumexp(0) - math.log(K)  # each row a private draw
        means.append(float(estimates.mean()))
        errors.append(float(estimates.std() / math.sqrt(repeats)))
    expansion = [float(log_p) - (second - 1) / (2 * K) for K in Ks]
    falls = sum(later < sooner for sooner, later in itertools.pairwise(means))
    r_squared = (2 * (log_w - log_p)).exp().mean()
    exact_q = log_weights(posterior, eps[:, :1000])
    prior = log_weights(normal(0, 1), eps[:, :10_000])
    rows = [
        ("L_1 in closed form", elbo, -2.02368, 1e-5),
        ("L_1 by sampling", means[0], elbo, 5 * errors[0]),
        ("L_50 by sampling", means[-1], -1.60865, 1e-5 + 5 * errors[-1]),
        ("L_50 by the expansion in 1/K", expansion[-1], -1.608595, 1e-6),
        ("E r² in closed form", second, 1.50245, 1e-5),
        ("E r² by sampling", r_squared, second, 0.02),
        ("log p(x)", log_p, None, None),
        ("posterior as q: L_1, equal to log p(x)", exact_q.mean(), log_p, 1e-12),
        ("posterior as q: spread of the weights", exact_q.std(), 0, 1e-12),
        ("steps of K at which L_K falls", falls, 0, 0),
    ]
    figure, (rise, weights) = panels("L_K rises to log p(x)", "Log weights, one per draw")
    rise.axhline(float(log_p), color=DATA, label="log p(x)")
    rise.plot(Ks, means, "o-", color=MODEL, label="L_K, sampled")
    rise.plot(Ks[2:], expansion[2:], "--", color=MARK, label="log p − (E r² − 1)/2K")
    rise.set(xlabel="samples K", ylabel="nats", xscale="log")
    bins = torch.linspace(-6, 0, 61)
    style = {"bins": bins.tolist(), "density": True, "histtype": "step"}
    weights.hist(prior.flatten()[:100_000], color=MARK, label="z from the prior", **style)
    weights.hist(log_w[:, :2000].flatten(), color=MODEL, label="z from q", **style)
    weights.axvline(float(log_p), color=DATA, label="z from the posterior")
    weights.set(xlabel="log w, nats")
    finish(rows, figure, args.out)


if __name__ == "__main__":
    main()
