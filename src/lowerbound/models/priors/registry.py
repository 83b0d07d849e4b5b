"""Priors by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from lowerbound.models.priors.base import Prior
from lowerbound.models.priors.flow import AutoregressivePrior, CouplingPrior
from lowerbound.models.priors.mixture import MixturePrior
from lowerbound.models.priors.normal import StandardNormal
from lowerbound.models.priors.vamp import VampPrior

__all__ = ["PriorName", "make_prior"]

PriorName = Literal["normal", "mixture", "vamp", "flow", "autoregressive"]


def make_prior(
    name: str,
    latent_dim: int,
    event_shape: Sequence[int],
    *,
    num_components: int = 500,
    num_layers: int = 6,
    width: int = 256,
) -> Prior:
    """The prior of a name over d = ``latent_dim`` latents of examples (B, *event_shape)."""
    if name == "mixture":
        return MixturePrior(latent_dim, num_components)
    if name == "vamp":
        return VampPrior(event_shape, num_components)
    if name == "flow":
        return CouplingPrior(latent_dim, num_layers, width=width)
    if name == "autoregressive":
        return AutoregressivePrior(latent_dim, num_layers, width=width)
    assert name == "normal", name
    return StandardNormal(latent_dim)
