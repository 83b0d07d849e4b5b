"""The true posterior p(z|x) on a grid, against the best Gaussian q(z|x).

With an affine decoder the posterior is Gaussian, q can be equal to it, and the bound touches
log p(x). With a bent decoder, x | z ~ N(z², 0.3²), it has two peaks: the best single Gaussian
hides in one of them and loses about log 2, exactly the KL divergence from q to the posterior.
"""

import math

import numpy as np
import torch
from _shared import DATA, MARK, MODEL, arguments, finish, panels

from lowerbound.distributions import DiagonalGaussian, kl_gaussian

x, s = torch.tensor(1.0, dtype=torch.float64), 0.3
DECODERS = {"affine: z + 0.2": lambda z: z + 0.2, "bent: z²": lambda z: z.square()}


def normal(mean, sigma) -> DiagonalGaussian:
    """N(mean, σ²) as distributions over events of no axes."""
    mean, sigma = (torch.as_tensor(v, dtype=torch.float64) for v in (mean, sigma))
    return DiagonalGaussian(mean, sigma.log(), event_ndim=0)


def best_gaussian(decode, steps: int) -> tuple[DiagonalGaussian, float]:
    """The Gaussian of the largest bound, by Gauss-Hermite quadrature and gradients."""
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(60))
    weights = weights / weights.sum()
    start = torch.tensor([0.6, math.log(0.5)], dtype=torch.float64)
    parameters = start.requires_grad_()
    optimizer = torch.optim.LBFGS([parameters], max_iter=steps, line_search_fn="strong_wolfe")

    def bound():
        q = normal(parameters[0], parameters[1].exp())
        z = q.rsample(nodes)
        return (weights * normal(decode(z), s).log_prob(x)).sum() - kl_gaussian(q)

    def loss():
        optimizer.zero_grad()
        value = -bound()
        value.backward()
        return value

    optimizer.step(loss)
    mean, log_sigma = parameters.detach()
    return normal(mean, log_sigma.exp()), float(bound().detach())


def main() -> None:
    args = arguments(__doc__)
    grid = torch.linspace(-4, 4, 4_001 if args.quick else 40_001, dtype=torch.float64)
    figure, axes = panels(*(f"Decoder {name}" for name in DECODERS))
    rows = []
    for ax, (name, decode) in zip(axes, DECODERS.items(), strict=True):
        # Bayes' rule on the grid: p(z|x) = p(x|z) p(z) / p(x).
        log_joint = normal(decode(grid), s).log_prob(x) + normal(0, 1).log_prob(grid)
        evidence = torch.trapezoid(log_joint.exp(), grid)
        posterior = (log_joint - evidence.log()).exp()
        mean = torch.trapezoid(posterior * grid, grid)
        moments = [torch.trapezoid(posterior * (grid - mean) ** n, grid) for n in (2, 4)]
        kurtosis = moments[1] / moments[0] ** 2
        q, bound = best_gaussian(decode, steps=100)
        log_q = q.log_prob(grid)
        divergence = torch.trapezoid(log_q.exp() * (log_q - log_joint + evidence.log()), grid)
        gap = evidence.log() - bound
        kind = name.split(":")[0]
        rows.append((f"{kind}: log p(x) − bound, against the dropped KL", gap, divergence, 1e-6))
        if kind == "affine":
            P = s**2 / (1 + s**2)
            exact = normal(0.2, math.sqrt(1 + s**2)).log_prob(x)
            rows += [
                ("affine: log p(x) on the grid", evidence.log(), exact, 1e-9),
                ("affine: kurtosis of the posterior (a Gaussian's)", kurtosis, 3, 1e-6),
                ("affine: variance of q", q.log_scale.exp() ** 2, P, 1e-5),
                ("affine: gap of the best q, nats", gap, 0, 1e-9),
            ]
        else:
            rows += [
                ("bent: kurtosis of the posterior (not a Gaussian's 3)", kurtosis, 1.12, 5e-3),
                ("bent: gap of the best q, about log 2", gap, math.log(2), 0.05),
            ]
        ax.fill_between(grid, posterior, color=DATA, alpha=0.4, label="p(z|x) on the grid")
        ax.plot(grid, log_q.exp(), color=MODEL, label="best Gaussian q(z|x)")
        ax.plot(grid, normal(0, 1).log_prob(grid).exp(), ":", color=MARK, label="prior p(z)")
        ax.set(xlabel="z", xlim=(-2.5, 2.5))
    finish(rows, figure, args.out)


if __name__ == "__main__":
    main()
