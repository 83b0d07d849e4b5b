"""Gaussian data x ~ N(m, Σ), the optimal denoiser of them, and what every solver should make."""

from __future__ import annotations

import torch
from torch import Tensor

from lowerbound.noising import Denoised, alpha, sigma
from lowerbound.solvers import grid

FIRST, LAST = 5.0, -13.0
EIGENVALUES = torch.tensor([0.001, 0.05, 0.3, 1.0, 4.0], dtype=torch.float64)
MEAN = torch.tensor([0.3, -1.0, 0.5, 2.0, 0.0], dtype=torch.float64)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def schedule(t: Tensor) -> Tensor:
    """A straight γ(t)."""
    return LAST + (FIRST - LAST) * t


def levels(steps: int, kind: str = "gamma") -> Tensor:
    """From noise to data."""
    return grid(kind, steps, schedule)


def spread(gamma, eigenvalues: Tensor = EIGENVALUES) -> Tensor:
    """Standard deviations of q(z) at a level, per eigenvalue of Σ."""
    gamma = torch.as_tensor(gamma, dtype=torch.float64)
    return (alpha(gamma) ** 2 * eigenvalues + sigma(gamma) ** 2).sqrt()


class Optimal:
    """E[x|z] for x ~ N(mean, covariance), and how often it was asked."""

    def __init__(self, covariance: Tensor, mean: Tensor | float = 0.0) -> None:
        self.eigenvalues, self.axes = torch.linalg.eigh(covariance)
        self.mean, self.calls = mean, 0

    def __call__(self, z: Tensor, gamma: Tensor) -> Denoised:
        self.calls += 1
        assert gamma.ndim == 0
        assert gamma.dtype == z.dtype
        a, s, values, axes = alpha(gamma), sigma(gamma), self.eigenvalues.to(z), self.axes.to(z)
        whitened = (z - a * self.mean) @ axes / (a**2 * values + s**2)
        return Denoised(self.mean + (a * whitened * values) @ axes.mT, s * whitened @ axes.mT)


def diagonal(mean: Tensor | float = 0.0, eigenvalues: Tensor = EIGENVALUES) -> Optimal:
    """The denoiser of independent dimensions with the variances that are tested."""
    return Optimal(torch.diag(eigenvalues), mean)
