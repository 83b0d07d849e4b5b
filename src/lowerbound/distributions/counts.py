"""Counts: the Poisson and the negative binomial.

    Poisson:            log P(x) = x log λ − λ − log x!
    negative binomial:  log P(x) = log Γ(x + r) − log Γ(r) − log x! + r log p + x log(1 − p),
                        p = r/(r + μ): mean μ, variance μ + μ²/r, Poisson as r → ∞.

Evaluated so, terms of order x log x cancel to a few nats and take single precision with them. We
use Loader's form instead. With D(a, b) = a (eᵘ − 1 − u), u = log b − log a, never negative, and
δ(x) what Stirling's formula leaves out, for x > 0

    Poisson:            −D(x, λ) − δ(x) − ½ log 2πx
    negative binomial:  −D(r, np) − D(x, n(1 − p)) + δ(n) − δ(r) − δ(x) − ½ log(2πxn/r),
                        n = x + r.

KL between Poissons: λ_q (eᵘ − 1 − u), u = log λ_p − log λ_q.

References:
    Loader, Fast and Accurate Computation of Binomial Probabilities, 2000.
    Lopez et al., Deep Generative Modeling for Single-Cell Transcriptomics, 2018 (negative
    binomial decoders).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowerbound._shapes import sum_event
from lowerbound.distributions.base import Distribution, Likelihood
from lowerbound.distributions.numerics import (
    HALF_LOG_2PI,
    deviance,
    excess,
    gamma_draw,
    stirling_error,
)
from lowerbound.distributions.support import Counts, Support

__all__ = [
    "CountLikelihood",
    "NegativeBinomial",
    "NegativeBinomialLikelihood",
    "Poisson",
    "PoissonLikelihood",
    "kl_poisson",
]


@dataclass(frozen=True)
class Poisson(Distribution):
    """Independent counts of rates exp(``log_rate``), (…, *event)."""

    log_rate: Tensor
    event_ndim: int = 1

    @property
    def support(self) -> Counts:
        """Integers from 0."""
        return Counts()

    @property
    def mean(self) -> Tensor:
        """The rate λ, (…, *event)."""
        return torch.exp(self.log_rate)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-mass of counts ``x``, nats, (…)."""
        x = x.to(self.log_rate.dtype)
        positive = x.clamp_min(1)
        log_x = positive.log()
        some = -positive * excess(self.log_rate - log_x)
        some = some - stirling_error(positive) - 0.5 * log_x - HALF_LOG_2PI
        none = -torch.exp(self.log_rate)
        return sum_event(torch.where(x > 0, some, none), self.event_ndim)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw of counts, float."""
        return torch.poisson(self.mean.detach(), generator=generator)


def kl_poisson(q: Poisson, p: Poisson) -> Tensor:
    """KL(q ‖ p) in nats, summed over the event, (…)."""
    return sum_event(deviance(q.log_rate, p.log_rate), q.event_ndim)


@dataclass(frozen=True)
class NegativeBinomial(Distribution):
    """Independent counts that vary more than a Poisson.

    Args:
        log_mean: log μ, (…, *event).
        log_total_count: log r, broadcastable to ``log_mean``; the smaller, the wider.
        event_ndim: how many trailing axes are the event.
    """

    log_mean: Tensor
    log_total_count: Tensor
    event_ndim: int = 1

    @property
    def support(self) -> Counts:
        """Integers from 0."""
        return Counts()

    @property
    def mean(self) -> Tensor:
        """Expectation μ, (…, *event)."""
        return torch.exp(self.log_mean)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-mass of counts ``x``, nats, (…)."""
        x = x.to(self.log_mean.dtype)
        log_r, positive = self.log_total_count, x.clamp_min(1)
        r, log_x = torch.exp(log_r), positive.log()
        n = positive + r
        # log n − log(r + μ), by which both parts of n miss their expectation.
        surplus = n.log() - torch.logaddexp(log_r, self.log_mean)
        deviance = r * excess(surplus) + positive * excess(surplus + self.log_mean - log_x)
        errors = stirling_error(n) - stirling_error(r) - stirling_error(positive)
        some = errors - deviance - 0.5 * (log_x + n.log() - log_r) - HALF_LOG_2PI
        none = -r * F.softplus(self.log_mean - log_r)
        return sum_event(torch.where(x > 0, some, none), self.event_ndim)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw of counts, float: a Poisson whose rate is a gamma variable."""
        r = torch.exp(self.log_total_count).expand_as(self.log_mean)
        rate = self.mean.detach() * gamma_draw(r, generator) / r.detach()
        return torch.poisson(rate, generator=generator)


class CountLikelihood(Likelihood):
    """p(x|z) for counts: the decoder gives a log-rate relative to the training data's; abstract.

    Rates stay within e^±`WIDEST` times the mean count of a column, or of a channel.
    """

    supports: ClassVar[tuple[type[Support], ...]] = (Counts,)
    num_outputs: int = 1
    WIDEST: ClassVar[float] = 20.0

    log_mean: Tensor

    def __init__(self, event_shape: Sequence[int], support: Support) -> None:
        super().__init__(event_shape, support)
        self.register_buffer("log_mean", torch.zeros(self._unit_shape()))

    def calibrate(self, x: Tensor | Iterable[Tensor]) -> None:
        """Measure also the mean counts of ``x`` (N, *event)."""
        super().calibrate(x)
        size = len(x) if isinstance(x, Tensor) else sum(len(block) for block in x)
        # Half an event in N + 1 examples stands for a column that was never above zero.
        mean = (self._moments(x, on_axis=False)[0] * size + 0.5) / (size + 1)
        self.log_mean.copy_(mean.log().reshape(self._unit_shape()))

    def _log_rate(self, raw: Tensor) -> Tensor:
        return self.log_mean + raw.clamp(-self.WIDEST, self.WIDEST)

    @abstractmethod
    def of_elements(self, outputs: tuple[Tensor, ...], event_ndim: int) -> Distribution:
        """The distribution over counts, with ``event_ndim`` axes to sum over."""

    def forward(self, raw: Tensor, x: Tensor | None = None) -> Distribution:
        """Distribution over counts from raw outputs; see `Likelihood.forward`."""
        return self.of_elements(self.outputs(raw), len(self.event_shape))


class PoissonLikelihood(CountLikelihood):
    """p(x|z) = Poisson(λ(z)) for counts whose variance, given z, is their mean."""

    name: ClassVar[str] = "poisson"

    def of_elements(self, outputs: tuple[Tensor, ...], event_ndim: int) -> Poisson:
        """Poisson(x; λ)."""
        return Poisson(self._log_rate(outputs[0]), event_ndim)


class NegativeBinomialLikelihood(CountLikelihood):
    """p(x|z) for counts that vary more than a Poisson: r is learned per column, or per channel."""

    name: ClassVar[str] = "negative-binomial"
    LOWEST: ClassVar[float] = -7.0
    HIGHEST: ClassVar[float] = 14.0

    def __init__(self, event_shape: Sequence[int], support: Support) -> None:
        super().__init__(event_shape, support)
        self.log_total_count = nn.Parameter(torch.zeros(self._unit_shape()))

    def of_elements(self, outputs: tuple[Tensor, ...], event_ndim: int) -> NegativeBinomial:
        """NegativeBinomial(x; μ, r)."""
        log_r = self.log_total_count.clamp(self.LOWEST, self.HIGHEST)
        return NegativeBinomial(self._log_rate(outputs[0]), log_r, event_ndim)
