"""What a hierarchy encodes to: q over all of its levels side by side, as one latent vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lowerbound._shapes import repeated_rows, sum_event
from lowerbound.distributions import DiagonalGaussian, Distribution
from lowerbound.models.levels import drawn, in_units_of

if TYPE_CHECKING:
    from lowerbound.models.hierarchy import Hierarchy

__all__ = ["JointPosterior"]


@dataclass(frozen=True)
class JointPosterior(Distribution):
    """q(u|x) of a hierarchy over joint vectors (B, d): a Gaussian at each level, given the others.

    Args:
        model: the hierarchy.
        x: standardised examples (B, *event).
        loc: every level at its posterior mean, given the others at theirs, (B, d).
        log_scale: log standard deviations there, (B, d).
        beside: an embedding (B, E) of the context, or nothing.
    """

    model: Hierarchy
    x: Tensor
    loc: Tensor
    log_scale: Tensor
    beside: tuple[Tensor, ...] = ()
    event_ndim: int = 1

    @property
    def mean(self) -> Tensor:
        """Every level at its posterior mean, given the others at theirs: (B, d)."""
        return self.loc

    @property
    def stddev(self) -> Tensor:
        """Of every level, given the others at their means: (B, d)."""
        return self.log_scale.exp()

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of joint vectors (B, d) or (K, B, d): (B,) or (K, B), nats."""
        joint = x if x.ndim == 3 else x.unsqueeze(0)
        found: dict[int, Tensor] = {}
        place = self.model._from_joint(joint.flatten(0, 1))

        def keep(level: int, p: DiagonalGaussian) -> Tensor:
            found[level] = place(level, p)
            return found[level]

        repeated = [repeated_rows(e, len(joint)) for e in self.beside]
        self.model._generate(len(joint) * joint.shape[1], keep, *repeated)
        levels, _ = self.model._infer(
            self.x, len(joint), lambda level, _: found[level], *self.beside
        )
        parts = [
            level.q.log_prob(level.z)
            + sum_event(level.p.log_scale.expand_as(level.z), level.p.event_ndim)
            for level in levels
        ]
        return torch.stack(parts).sum(0).unflatten(0, joint.shape[:2]).reshape(x.shape[:-1])

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw (B, d): down all levels, each given those that were drawn."""
        with torch.no_grad():
            noise = self.model.noise(len(self.x), 1, generator)
            levels, _ = self.model._infer(self.x, 1, drawn(noise), *self.beside)
            return torch.cat([in_units_of(lv.p, lv.z).flatten(1) for lv in levels], 1)
