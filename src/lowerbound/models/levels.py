"""The parts of a way through a hierarchy: one `Level` for each of its levels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lowerbound.distributions import DiagonalGaussian
from lowerbound.errors import refuse
from lowerbound.models.priors import MAX_LOG_SCALE, MIN_LOG_SCALE
from lowerbound.objectives import Noise

__all__ = [
    "Level",
    "Take",
    "drawn",
    "gaussian",
    "in_units_of",
    "kept",
    "limited",
    "parameters",
    "taken",
    "total_log_q",
]

Take = Callable[[int, DiagonalGaussian], Tensor]
"""(level, q) -> the latents of that level, (N, *shape): drawn from q, given, or its mean."""


SPREAD = (-5.0, 2.0)
"""Between which the log-scales of priors stay, and of posteriors in units of them. A level feeds
those below: without a limit a few large steps multiply from level to level, and the bound is lost
for good."""


@dataclass(frozen=True)
class Level:
    """One level of a way through the hierarchy.

    Args:
        q: posterior of z given what it depends on, (N, *shape).
        p: prior of z given what it depends on, (N, *shape).
        z: where the way goes, (N, *shape).
        rate: KL(q ‖ p) per group, or its estimate at z, (N, groups), nats.
    """

    q: DiagonalGaussian
    p: DiagonalGaussian
    z: Tensor
    rate: Tensor


def parameters(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Two numbers per latent, (N, 2 · channels, …), as (N, channels, …) each, in full precision.

    Raises:
        InputError: an odd number of channels.
    """
    if raw.shape[1] % 2:
        raise refuse("network", "one with two outputs per latent", raw.shape[1])
    first, second = (raw if raw.dtype == torch.float64 else raw.float()).chunk(2, dim=1)
    return first, second


def gaussian(loc: Tensor, log_scale: Tensor) -> DiagonalGaussian:
    """N(loc, exp 2 log_scale) over all axes but the first, its scale clamped as elsewhere."""
    clamped = F.hardtanh(log_scale, MIN_LOG_SCALE, MAX_LOG_SCALE)
    return DiagonalGaussian(loc, clamped, loc.ndim - 1)


def limited(log_scale: Tensor) -> Tensor:
    """A log-scale, or a difference of two, of any shape, within `SPREAD`."""
    return F.hardtanh(log_scale, *SPREAD)


def total_log_q(levels: Sequence[Level]) -> Tensor:
    """Log q(z|x) of all levels together, (N,), nats."""
    return torch.stack([level.q.log_prob(level.z) for level in levels]).sum(0)


def in_units_of(p: DiagonalGaussian, z: Tensor) -> Tensor:
    """U = (z − μ_p)/σ_p, of the shape of z."""
    return (z - p.loc) * torch.exp(-p.log_scale)


def drawn(noise: Noise) -> Take:
    """Draws by ``noise``, one tensor (M, B, *shape) per level."""
    return lambda level, q: q.rsample(noise[f"z_{level}"].flatten(0, 1))


def kept(take: Take, latents: dict[str, Tensor], shape: tuple[int, int]) -> Take:
    """As ``take``, and what it draws is put into ``latents``, (M, B, *shape) by name.

    All that comes after is made of those very tensors, so that a gradient with respect to them,
    or a hook on it, is of everything they do.
    """

    def keep(level: int, q: DiagonalGaussian) -> Tensor:
        z = latents[f"z_{level}"] = take(level, q).unflatten(0, shape)
        return z.flatten(0, 1)

    return keep


def taken(latents: Mapping[str, Tensor]) -> Take:
    """Latents that are given, each (K, B, *shape)."""
    return lambda level, _: latents[f"z_{level}"].flatten(0, 1)
