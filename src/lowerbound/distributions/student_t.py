"""Student's t: a Gaussian with heavy tails, for data with outliers.

log p(x) = log Γ((ν + 1)/2) − log Γ(ν/2) − ½ log πν − log s − (ν + 1)/2 · log(1 + t²/ν),
t = (x − μ)/s. As ν → ∞ it is the Gaussian. The mean exists for ν > 1 and the variance
s² ν/(ν − 2) for ν > 2; the likelihood keeps ν above 2.

References:
    Takahashi et al., Student-t Variational Autoencoder for Robust Density Estimation, 2018.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lowerbound._shapes import sum_event
from lowerbound.distributions.base import Distribution
from lowerbound.distributions.location_scale import LocationScaleLikelihood, Sigma
from lowerbound.distributions.numerics import gamma_draw, gamma_half_step
from lowerbound.distributions.support import Support

__all__ = ["StudentT", "StudentTLikelihood"]


@dataclass(frozen=True)
class StudentT(Distribution):
    """Independent real elements under Student's t.

    Args:
        loc: locations (…, *event), the mean for ν > 1.
        log_scale: log s, broadcastable to ``loc``.
        df: degrees of freedom ν, broadcastable to ``loc``.
        event_ndim: how many trailing axes are the event.
    """

    loc: Tensor
    log_scale: Tensor
    df: Tensor
    event_ndim: int = 1

    @property
    def mean(self) -> Tensor:
        """Expectation (…, *event); there is none where ν ≤ 1."""
        return self.loc

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density in nats, (…)."""
        t = (x - self.loc) * torch.exp(-self.log_scale)
        constant = gamma_half_step(self.df / 2) - 0.5 * torch.log(math.pi * self.df)
        tail = 0.5 * (self.df + 1) * torch.log1p(t.square() / self.df)
        return sum_event(constant - self.log_scale - tail, self.event_ndim)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw (…, *event): a Gaussian whose precision is a gamma variable of mean 1."""
        normal = torch.empty_like(self.loc).normal_(generator=generator)
        half = (self.df / 2).expand_as(self.loc)
        precision = gamma_draw(half, generator) / half
        return (self.loc + torch.exp(self.log_scale) * normal * precision.rsqrt()).detach()


class StudentTLikelihood(LocationScaleLikelihood):
    """p(x|z) = Student-t(μ(z), s, ν) on real data; ``sigma`` says where the scale s comes from.

    The degrees of freedom are learned, one number per dimension where ``sigma`` is
    ``"dimension"``, else one for all, and stay between `LOWEST` and `HIGHEST`.
    """

    name: ClassVar[str] = "student-t"
    title: ClassVar[str] = "Student-t"
    LOWEST: ClassVar[float] = 2.05
    HIGHEST: ClassVar[float] = 1000.0

    def __init__(
        self, event_shape: Sequence[int], support: Support, sigma: Sigma = "scalar"
    ) -> None:
        super().__init__(event_shape, support, sigma)
        self.log_df = nn.Parameter(torch.full(self._shared_shape(), math.log(8.0)))

    def forward(self, raw: Tensor, x: Tensor | None = None) -> StudentT:
        """Student-t(x; μ, s, ν) from raw outputs; see `Likelihood.forward`."""
        outputs = self.outputs(raw)
        df = self.log_df.clamp(math.log(self.LOWEST), math.log(self.HIGHEST)).exp()
        loc, log_scale = self._location(outputs), self._log_scale(outputs)
        return StudentT(loc, log_scale, df, len(self.event_shape))

    def notes(self) -> list[str]:
        """The floors of the scale and of the degrees of freedom."""
        first, *rest = super().notes()
        return [f"{first} Its degrees of freedom stay above 2, so that it has a variance.", *rest]
