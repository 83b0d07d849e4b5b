"""The Laplace distribution: absolute errors in place of squared ones.

log p(x) = −|x − μ|/b − log 2b, the variance is 2b². With b learned it is the likelihood behind a
mean absolute error; outliers pull on μ with a constant force.

KL(q ‖ p) = [eᵘ − 1 − u] + eᵘ [e⁻ᵗ − 1 + t],   u = log b_q − log b_p,  t = |μ_q − μ_p| / b_q:
both brackets are the excess of the exponential over its tangent, so that nothing cancels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lowerbound._shapes import sum_event
from lowerbound.distributions.base import Distribution
from lowerbound.distributions.location_scale import LocationScaleLikelihood
from lowerbound.distributions.numerics import excess

__all__ = ["Laplace", "LaplaceLikelihood", "kl_laplace"]


@dataclass(frozen=True)
class Laplace(Distribution):
    """Independent real elements with location ``loc`` and scale b = exp(``log_scale``).

    Args:
        loc: locations (…, *event).
        log_scale: log b, broadcastable to ``loc``.
        event_ndim: how many trailing axes are the event.
    """

    loc: Tensor
    log_scale: Tensor
    event_ndim: int = 1

    @property
    def mean(self) -> Tensor:
        """Expectation (…, *event)."""
        return self.loc

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density in nats, (…)."""
        distance = (x - self.loc).abs() * torch.exp(-self.log_scale)
        return sum_event(-distance - self.log_scale - math.log(2), self.event_ndim)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw (…, *event): the difference of two exponential variables."""
        above, below = (
            torch.empty_like(self.loc).exponential_(generator=generator) for _ in range(2)
        )
        return (self.loc + torch.exp(self.log_scale) * (above - below)).detach()


def kl_laplace(q: Laplace, p: Laplace) -> Tensor:
    """KL(q ‖ p) in nats, summed over the event, (…)."""
    u = (q.log_scale - p.log_scale).expand_as(q.loc)
    t = (q.loc - p.loc).abs() * torch.exp(-q.log_scale)
    return sum_event(excess(u) + torch.exp(u) * excess(-t), q.event_ndim)


class LaplaceLikelihood(LocationScaleLikelihood):
    """p(x|z) = Laplace(μ(z), b) on real data; ``sigma`` says where the scale b comes from."""

    name: ClassVar[str] = "laplace"
    title: ClassVar[str] = "Laplace"

    def forward(self, raw: Tensor, x: Tensor | None = None) -> Laplace:
        """Laplace(x; μ, b) from raw outputs; see `Likelihood.forward`."""
        outputs = self.outputs(raw)
        return Laplace(self._location(outputs), self._log_scale(outputs), len(self.event_shape))
