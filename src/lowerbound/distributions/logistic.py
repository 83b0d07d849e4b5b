r"""The logistic distribution discretised to ``levels`` values.

On the grid c_k = 2(k + ½)/levels − 1 with half-bin h = 1/levels,
P(k) = sigmoid((c_k + h − μ)/s) − sigmoid((c_k − h − μ)/s), the first and last bin being open.
With b and a the two arguments, σ(b) − σ(a) = σ(b) σ(−a) (1 − e^{a−b}), whose logarithm is a sum of
three terms that are finite wherever μ and log s are: no probability is clamped, so the bound stays
a bound. The third is log(1 − e^{−w}) of the width w = 2h/s, which is log w itself where w is so
small that its exponential would be 1.

References:
    Kingma et al., Improved Variational Inference with Inverse Autoregressive Flow, 2016.
    Salimans et al., PixelCNN++, 2017.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lowerbound._shapes import sum_event
from lowerbound.distributions.base import Distribution, Likelihood
from lowerbound.distributions.support import Binary, Discrete, Support

__all__ = ["DiscretizedLogistic", "LogisticLikelihood", "bounded_logistic"]

LOG_TINY = -37.0  # log w below which 1 − e^{−w} is w, in double precision too
ROOM = 8.0  # e⁸ is more than any distance on the axis: a distance over s stays a number


@dataclass(frozen=True)
class DiscretizedLogistic(Distribution):
    """Integers 0 … levels − 1 under a logistic of mean ``loc`` on the grid from −1 to 1.

    Args:
        loc: location (…, *event) on the axis where the levels fill [−1, 1].
        log_scale: log of the logistic's scale on that axis, broadcastable to ``loc``. Below the
            smallest scale whose inverse is a number (e⁻⁸⁰, or e⁻⁷⁰⁰ in double precision) it
            counts as that one.
        levels: number of values.
        event_ndim: how many trailing axes are the event.
    """

    loc: Tensor
    log_scale: Tensor
    levels: int
    event_ndim: int = 1

    @property
    def support(self) -> Discrete:
        """The integers 0 … levels − 1."""
        return Discrete(self.levels)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-mass of levels ``x``, nats, (…)."""
        x = x.to(self.loc.dtype)
        inverse_scale, bin_width = self._inverse_scale, 2 / self.levels
        lower = bin_width * x - 1 - self.loc
        upper = lower + bin_width
        below_b = torch.where(x >= self.levels - 1, 0.0, F.logsigmoid(upper * inverse_scale))
        above_a = torch.where(x <= 0, 0.0, F.logsigmoid(-lower * inverse_scale))
        inner = (x > 0) & (x < self.levels - 1)
        width = (bin_width * inverse_scale).clamp_min(math.exp(LOG_TINY))
        below_tiny = (math.log(bin_width) - LOG_TINY - self.log_scale).clamp_max(0.0)
        inside = torch.where(inner, torch.log(-torch.expm1(-width)) + below_tiny, 0.0)
        return sum_event(below_b + above_a + inside, self.event_ndim)

    @property
    def _inverse_scale(self) -> Tensor:
        """1/s, never infinite: an edge on the location itself is 0 scales away, not 0 · ∞."""
        most = math.log(torch.finfo(self.log_scale.dtype).max) - ROOM
        return torch.exp((-self.log_scale).clamp_max(most))

    @property
    def mean(self) -> Tensor:
        """Expected level Σ_k P(x > k), (…, *event), exact."""
        inverse_scale = self._inverse_scale
        total = torch.zeros_like(self.loc)
        for k in range(1, self.levels):
            total += torch.sigmoid((self.loc + 1 - 2 * k / self.levels) * inverse_scale)
        return total

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw of levels: uint8 up to 256 of them, else int64."""
        u = torch.empty_like(self.loc).uniform_(generator=generator)
        # A scale without end times a logit of 0, or the other way round, is no distance at all.
        value = self.loc + (torch.exp(self.log_scale) * torch.logit(u)).nan_to_num(
            nan=0.0, posinf=math.inf, neginf=-math.inf
        )
        level = torch.floor((value + 1) * (self.levels / 2)).clamp(0, self.levels - 1)
        return level.detach().to(torch.uint8 if self.levels <= 256 else torch.int64)


class LogisticLikelihood(Likelihood):
    """p(x|z) for levels: the decoder gives a location and a log-scale per element."""

    name: ClassVar[str] = "logistic"
    supports: ClassVar[tuple[type[Support], ...]] = (Discrete, Binary)
    num_outputs: int = 2

    def forward(self, raw: Tensor, x: Tensor | None = None) -> DiscretizedLogistic:
        """Discretised logistic from raw outputs; see `Likelihood.forward`."""
        loc, log_scale = self.outputs(raw)
        levels = self.support.levels  # type: ignore[union-attr]
        return bounded_logistic(loc, log_scale, levels, len(self.event_shape))


def bounded_logistic(
    loc: Tensor, log_scale: Tensor, levels: int, event_ndim: int
) -> DiscretizedLogistic:
    """The discretised logistic of raw outputs of any size."""
    # At the lower end a bin is e⁵ scales wide: sharper cannot be told apart by any level.
    # A neutral start of a few bins' width learns faster than one of the whole axis.
    log_scale = (log_scale - 2).clamp(-5.0 - math.log(levels / 2), 5.0)
    return DiscretizedLogistic(loc.clamp(-1e3, 1e3), log_scale, levels, event_ndim)
