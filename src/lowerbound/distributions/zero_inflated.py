"""Counts with more zeros than their distribution has: a zero by itself, or a count.

P(0) = π + (1 − π) P_c(0),  P(x) = (1 − π) P_c(x) for x > 0,  π = sigmoid(gate logit).

References:
    Lambert, Zero-Inflated Poisson Regression, 1992.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lowerbound._shapes import sum_event
from lowerbound.distributions.base import Distribution, Likelihood
from lowerbound.distributions.counts import (
    CountLikelihood,
    NegativeBinomialLikelihood,
    PoissonLikelihood,
)
from lowerbound.distributions.support import Counts, Support

__all__ = [
    "ZeroInflated",
    "ZeroInflatedLikelihood",
    "ZeroInflatedNegativeBinomialLikelihood",
    "ZeroInflatedPoissonLikelihood",
]


@dataclass(frozen=True)
class ZeroInflated(Distribution):
    """A distribution over counts, and a zero with probability sigmoid(``gate``) in its place.

    Args:
        gate: log-odds of a zero by itself, (…, *event).
        counts: any distribution over counts (…, *event), with ``event_ndim`` 0.
        event_ndim: how many trailing axes are the event.
    """

    gate: Tensor
    counts: Distribution
    event_ndim: int = 1

    @property
    def support(self) -> Support:
        """That of the counts."""
        return self.counts.support

    @property
    def mean(self) -> Tensor:
        """Expectation (1 − π) · mean of the counts, (…, *event)."""
        return torch.sigmoid(-self.gate) * self.counts.mean

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-mass of counts ``x``, nats, (…)."""
        counted = F.logsigmoid(-self.gate) + self.counts.log_prob(x)
        zero = torch.logaddexp(F.logsigmoid(self.gate), counted)
        return sum_event(torch.where(x == 0, zero, counted), self.event_ndim)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw of counts, float."""
        u = torch.empty_like(self.gate).uniform_(generator=generator)
        x = self.counts.sample(generator)
        return torch.where(u < torch.sigmoid(self.gate), torch.zeros_like(x), x)


class ZeroInflatedLikelihood(Likelihood):
    """p(x|z) for counts with many zeros: the decoder also gives the log-odds of a gate; abstract.

    It starts where 8 % are zeros by themselves, so that the rate is learned first.
    """

    supports: ClassVar[tuple[type[Support], ...]] = (Counts,)
    of: ClassVar[type[CountLikelihood]]
    START: ClassVar[float] = -2.5

    def __init__(self, event_shape: Sequence[int], support: Support) -> None:
        super().__init__(event_shape, support)
        self.counts = self.of(event_shape, support)
        self.num_outputs = self.of.num_outputs + 1

    def calibrate(self, x: Tensor | Iterable[Tensor]) -> None:
        """Measure the unit of counts, and what their distribution needs."""
        super().calibrate(x)
        self.counts.calibrate(x)

    def forward(self, raw: Tensor, x: Tensor | None = None) -> ZeroInflated:
        """Zero-inflated counts from raw outputs; see `Likelihood.forward`."""
        gate, *outputs = self.outputs(raw)
        counts = self.counts.of_elements(tuple(outputs), 0)
        return ZeroInflated(gate + self.START, counts, len(self.event_shape))


class ZeroInflatedPoissonLikelihood(ZeroInflatedLikelihood):
    """p(x|z): zeros by themselves, or a Poisson."""

    name: ClassVar[str] = "zero-inflated-poisson"
    of: ClassVar[type[CountLikelihood]] = PoissonLikelihood


class ZeroInflatedNegativeBinomialLikelihood(ZeroInflatedLikelihood):
    """p(x|z): zeros by themselves, or a negative binomial."""

    name: ClassVar[str] = "zero-inflated-negative-binomial"
    of: ClassVar[type[CountLikelihood]] = NegativeBinomialLikelihood
