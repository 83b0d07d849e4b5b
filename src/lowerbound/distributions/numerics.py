"""The few functions that several families need in a form that does not cancel.

All work in any precision and are differentiable; none clamps a probability.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "HALF_LOG_2PI",
    "deviance",
    "excess",
    "gamma_draw",
    "gamma_half_step",
    "moments",
    "stirling_error",
]

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def excess(u: Tensor) -> Tensor:
    """By how much eᵘ lies above its tangent at 0: eᵘ − 1 − u, never negative.

    It is the distance in which KL divergences of scales, rates and counts are measured. Its
    derivative is expm1(u).

    >>> excess(torch.tensor([0.0, 1e-4])) * 2e8
    tensor([0.0000, 1.0000])
    """
    value: Tensor = _Excess.apply(u)  # type: ignore[no-untyped-call]
    return value


def moments(blocks: Iterable[Tensor], axes: list[int]) -> tuple[Tensor, Tensor]:
    """Mean and variance (over N, not N − 1) along ``axes`` of blocks (B, …), joined along B.

    Those of two parts of n and m rows are joined without going back: with δ the difference of
    their means, n var_n + m var_m + δ² n m / (n + m) are the squares about the mean of both.

    References:
        Chan, Golub and LeVeque, Updating Formulae and a Pairwise Algorithm, 1979.

    >>> mean, variance = moments([torch.tensor([1.0, 2.0]), torch.tensor([6.0])], [0])
    >>> float(mean), round(float(variance), 4)
    (3.0, 4.6667)
    """
    count, mean, variance = 0, torch.zeros(()), torch.zeros(())
    for block in blocks:
        size = len(block)
        new_mean, new_variance = block.mean(axes), block.var(axes, correction=0)
        if not count:
            count, mean, variance = size, new_mean, new_variance
            continue
        share, delta = size / (count + size), new_mean - mean
        mean = mean + share * delta
        within = (1 - share) * variance + share * new_variance
        variance = within + share * (1 - share) * delta.square()
        count += size
    return mean, variance


class _Excess(torch.autograd.Function):
    """One node: autograd through both branches would multiply infinity by zero for large u."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        """By its series u²/2 · (1 + u/3 + u²/12 + u³/60 + u⁴/360 + u⁵/2520) where |u| < 0.02."""
        ctx.save_for_backward(u)
        series = 1 + u / 3 * (1 + u / 4 * (1 + u / 5 * (1 + u / 6 * (1 + u / 7))))
        return torch.where(u.abs() < 0.02, 0.5 * u.square() * series, torch.expm1(u) - u)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """Made of tensors' own operations, so that it can be differentiated again."""
        (u,) = ctx.saved_tensors
        return grads[0] * torch.expm1(u)


def deviance(log_a: Tensor, log_b: Tensor) -> Tensor:
    """How far b is from a: a (eᵘ − 1 − u) with u = log b − log a, which is b − a − a u.

    Summed over probabilities a and b it is KL(a ‖ b), by terms none of which is negative; of two
    rates it is the KL of their Poissons. At a = 0 it is b: what never happens under a adds
    nothing to −Σ a u.

    >>> deviance(torch.tensor([0.0, 0.5, 0.0]).log(), torch.tensor([0.0, 0.5, 0.3]).log())
    tensor([0.0000, 0.0000, 0.3000])
    """
    never = log_a == -math.inf
    log_a = log_a.masked_fill(never, 0.0)  # any number: 0 · ∞ must not arise
    u = log_b - log_a
    near = log_a.exp() * excess(u.clamp_max(1))
    # Where b is far above a, a may be 0 to rounding and eᵘ infinite.
    far = log_b.exp() - torch.where(never, 0.0, log_a.exp() * (1 + u))
    return torch.where((u < 1) & ~never, near, far)


def stirling_error(x: Tensor) -> Tensor:
    """What Stirling's formula leaves out: log Γ(x + 1) − (x + ½) log x + x − ½ log 2π, for x > 0.

    By its series from 16 on, where the logarithms would cancel (1e-14 of the true value).

    References:
        Loader, Fast and Accurate Computation of Binomial Probabilities, 2000.
    """
    small, large = x.clamp_max(16), x.clamp_min(16)
    direct = torch.lgamma(small + 1) - (small + 0.5) * small.log() + small - HALF_LOG_2PI
    inverse = 1 / large
    square = inverse.square()
    terms = 1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680))
    return torch.where(x < 16, direct, inverse * terms)


def gamma_half_step(x: Tensor) -> Tensor:
    """Log Γ(x + ½) − log Γ(x) for x > 0: the difference without its large terms.

    >>> gamma_half_step(torch.tensor([0.5, 1e6])).exp()
    tensor([5.6419e-01, 1.0000e+03])
    """
    small, large = x.clamp_max(16), x.clamp_min(16)
    direct = torch.lgamma(small + 0.5) - torch.lgamma(small)
    inverse = 1 / large
    square = inverse.square()
    terms = 1 / 8 - square * (1 / 192 - square * (1 / 640 - square * (17 / 14336)))
    return torch.where(x < 16, direct, 0.5 * large.log() - inverse * terms)


def gamma_draw(shape: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One draw of a gamma variable of rate 1 per element of ``shape``, by a private generator."""
    return torch._standard_gamma(shape.detach(), generator=generator)
