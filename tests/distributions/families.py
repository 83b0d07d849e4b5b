"""Every registered likelihood with the supports that it fits, and sums or integrals over those."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lowerbound.distributions import (
    LIKELIHOODS,
    Binary,
    Counts,
    Discrete,
    Likelihood,
    Product,
    Real,
    Support,
    Unit,
)

SUPPORTS: list[Support] = [
    Binary(),
    Discrete(5),
    Discrete(256),
    Counts(),
    Unit(),
    Real(),
    Product((Counts(),)),
    Product((Real(), Binary(), Discrete(5), Real(), Counts(), Unit())),
]
CASES = [
    pytest.param(cls, support, id=f"{name}-{str(support)[:12]}")
    for name, cls in LIKELIHOODS.items()
    for support in SUPPORTS
    if isinstance(support, cls.supports)
]
ELEMENTS = [case for case in CASES if case.values[1] != SUPPORTS[-1]]
"""Those that have events of a single element."""


def head(cls, support, event_shape=(3,), *, learned: int | None = 8) -> Likelihood:
    """A likelihood, its parameters moved by a seed; a product has a shape of its own."""
    shape = (len(support.parts),) if isinstance(support, Product) else event_shape
    likelihood = cls(shape, support)
    return likelihood if learned is None else moved(likelihood, learned)


def moved(likelihood: Likelihood, seed: int) -> Likelihood:
    """With parameters away from where they start, as after training."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in likelihood.parameters():
        parameter.data += 0.5 * torch.randn(parameter.shape, generator=generator)
    return likelihood


def raw_outputs(likelihood, batch: int, scale: float = 1.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    size = likelihood.num_outputs * math.prod(likelihood.event_shape)
    return scale * torch.randn(batch, size, generator=generator)


def num_draws(likelihood, most: int) -> int:
    """How many draws, fewer where each has many outputs behind it."""
    return min(most, 2_000_000 // likelihood.num_outputs)


def extremes(support: Support) -> list[float]:
    """The lowest and the highest values that data take."""
    if isinstance(support, Product):
        return extremes(support.parts[0]) if len(support.parts) == 1 else [0.0, 1.0]
    if isinstance(support, Real):
        return [-1e4, 1e4]
    if isinstance(support, Counts):
        return [0.0, 2.0**24]
    return [0.0, 1.0 if isinstance(support, Unit) else support.levels - 1.0]


def outside(support: Support) -> list[float]:
    """Values that data cannot take."""
    never = [math.nan, math.inf, -math.inf]
    if isinstance(support, Real):
        return never
    if isinstance(support, Unit):
        return [*never, -0.01, 1.01]
    above = [] if isinstance(support, Counts | Product) else [float(support.levels)]
    return [*never, -1.0, 0.5, *above]


def quadrature(support: Support) -> tuple[Tensor, Tensor]:
    """Values v (n,) and weights w (n,): Σ w f(v) sums, or integrates, f over the support."""
    if isinstance(support, Product):
        return quadrature(support.parts[0])
    if isinstance(support, Real):  # a wide axis for heavy tails
        t = torch.linspace(-30, 30, 300_001, dtype=torch.float64)
        return t.sinh(), t.cosh() * (t[1] - t[0])
    if isinstance(support, Unit):
        x = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
        return x, torch.full_like(x, 1e-5)
    num = 4000 if isinstance(support, Counts) else support.levels
    return torch.arange(num, dtype=torch.float64), torch.ones(num, dtype=torch.float64)
