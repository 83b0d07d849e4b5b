"""The continuous Bernoulli: a density on [0, 1] with the shape of a Bernoulli's likelihood.

log p(x) = η x − A(η),  A(η) = log ∫₀¹ e^{ηx} dx = log((e^η − 1)/η),  for a logit η.

A Bernoulli score of grey values leaves A out (it has softplus in its place) and is no density: it
does not integrate to one, and its nats mean nothing. With h = η/2,

A(η) = h + log(sinh h / h),   mean = A′(η) = ½ + ½ (coth h − 1/h),

where the second terms are even and odd in h. They are computed by their series next to h = 0, and
without large exponentials far from it.

KL(η ‖ η′) = A(η′) − A(η) − mean · (η′ − η).

References:
    Loaiza-Ganem and Cunningham, The Continuous Bernoulli: Fixing a Pervasive Error in
    Variational Autoencoders, 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lowerbound._shapes import sum_event
from lowerbound.distributions.base import Distribution, Likelihood
from lowerbound.distributions.support import Support, Unit

__all__ = ["ContinuousBernoulli", "ContinuousBernoulliLikelihood", "kl_continuous_bernoulli"]

SERIES_BELOW = 0.3


def log_sinhc(h: Tensor) -> Tensor:
    """log(sinh h / h), which is even, and 0 at 0."""
    small, large = h.clamp(-SERIES_BELOW, SERIES_BELOW), h.abs().clamp_min(SERIES_BELOW)
    s = small.square()
    series = s * (1 / 6 - s * (1 / 180 - s * (1 / 2835 - s * (1 / 37800 - s / 467775))))
    direct = large + torch.log(-torch.expm1(-2 * large) / (2 * large))
    return torch.where(h.abs() < SERIES_BELOW, series, direct)


def langevin(h: Tensor) -> Tensor:
    """The derivative of `log_sinhc`: coth h − 1/h, which is odd, and from −1 to 1."""
    small, large = h.clamp(-SERIES_BELOW, SERIES_BELOW), h.abs().clamp_min(SERIES_BELOW)
    s = small.square()
    terms = 1 / 45 - s * (2 / 945 - s * (1 / 4725 - s * 2 / 93555))
    series = small * (1 / 3 - s * terms)
    direct = torch.sign(h) * (1 / torch.tanh(large) - 1 / large)
    return torch.where(h.abs() < SERIES_BELOW, series, direct)


@dataclass(frozen=True)
class ContinuousBernoulli(Distribution):
    """Independent elements in [0, 1] with logits η, (…, *event)."""

    logits: Tensor
    event_ndim: int = 1

    @property
    def support(self) -> Unit:
        """The interval from 0 to 1."""
        return Unit()

    @property
    def mean(self) -> Tensor:
        """Expectation (…, *event); it is not sigmoid(η)."""
        return 0.5 + 0.5 * langevin(self.logits / 2)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of ``x`` in [0, 1], nats, (…)."""
        return sum_event(self.logits * (x - 0.5) - log_sinhc(self.logits / 2), self.event_ndim)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw (…, *event), by the inverse of the distribution function."""
        u = torch.empty_like(self.logits).uniform_(generator=generator)
        # Drawn for −|η|, where nothing overflows, and mirrored.
        size = self.logits.abs()
        safe = size.clamp_min(1e-6)
        x = -torch.log1p(u * torch.expm1(-safe)) / safe
        return torch.where(self.logits > 0, 1 - x, x).clamp(0, 1).detach()


def kl_continuous_bernoulli(q: ContinuousBernoulli, p: ContinuousBernoulli) -> Tensor:
    """KL(q ‖ p) in nats, summed over the event, (…)."""
    half_q, half_p = q.logits / 2, p.logits / 2
    kl = log_sinhc(half_p) - log_sinhc(half_q) - langevin(half_q) * (half_p - half_q)
    return sum_event(kl, q.event_ndim)


class ContinuousBernoulliLikelihood(Likelihood):
    """p(x|z) for shares and grey values in [0, 1]: the decoder gives logits.

    A density can grow without limit at 0 and at 1; logits stay within ±`LARGEST`, where the
    density is `LARGEST`.
    """

    name: ClassVar[str] = "continuous-bernoulli"
    supports: ClassVar[tuple[type[Support], ...]] = (Unit,)
    num_outputs: int = 1
    LARGEST: ClassVar[float] = 1e3

    def forward(self, raw: Tensor, x: Tensor | None = None) -> ContinuousBernoulli:
        """Continuous Bernoulli from raw outputs; see `Likelihood.forward`."""
        logits = self.outputs(raw)[0].clamp(-self.LARGEST, self.LARGEST)
        return ContinuousBernoulli(logits, len(self.event_shape))

    def notes(self) -> list[str]:
        """The ceiling of the density."""
        return [
            "The density of the continuous Bernoulli likelihood is at most "
            f"{self.LARGEST:g} per element. Nats are nats of a density on [0, 1]."
        ]
