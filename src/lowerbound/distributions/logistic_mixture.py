"""A mixture of discretised logistics per element: pixels with more than one likely value.

log P(k) = log Σ_i π_i P_i(k), each P_i a discretised logistic with its own location and scale and
with open edge bins. The sum runs inside a log-sum-exp over the components, of each element by
itself: elements stay independent given z.

References:
    Salimans et al., PixelCNN++, 2017 (there with colours that depend on one another).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lowerbound._shapes import sum_event
from lowerbound.distributions.base import Distribution, Likelihood
from lowerbound.distributions.categorical import draw_index
from lowerbound.distributions.logistic import DiscretizedLogistic, bounded_logistic
from lowerbound.distributions.support import Binary, Discrete, Support
from lowerbound.errors import refuse

__all__ = ["LogisticMixture", "LogisticMixtureLikelihood"]


@dataclass(frozen=True)
class LogisticMixture(Distribution):
    """Σ_i π_i DiscretizedLogistic_i per element.

    Args:
        logits: unnormalised log-weights of the components (…, *event, K).
        components: their distributions (…, *event, K), with ``event_ndim`` 0.
        event_ndim: how many trailing axes, without that of the components, are the event.
    """

    logits: Tensor
    components: DiscretizedLogistic
    event_ndim: int = 1

    @property
    def support(self) -> Discrete:
        """The integers 0 … levels − 1."""
        return self.components.support

    @property
    def mean(self) -> Tensor:
        """Expected level, (…, *event), exact."""
        return (torch.softmax(self.logits, -1) * self.components.mean).sum(-1)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-mass of levels ``x``, nats, (…)."""
        joint = torch.log_softmax(self.logits, -1) + self.components.log_prob(x.unsqueeze(-1))
        return sum_event(joint.logsumexp(-1), self.event_ndim)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw of levels: of a component, then of its logistic."""
        chosen = draw_index(self.logits, generator).unsqueeze(-1)
        loc, log_scale = (
            torch.take_along_dim(t, chosen, -1).squeeze(-1)
            for t in (self.components.loc, self.components.log_scale)
        )
        return DiscretizedLogistic(loc, log_scale, self.components.levels).sample(generator)


class LogisticMixtureLikelihood(Likelihood):
    """p(x|z) for levels: weights, locations and log-scales of ``components`` logistics.

    Args:
        event_shape: shape of one example.
        support: `Discrete` or `Binary`.
        components: K; with 1 it is the discretised logistic.
    """

    name: ClassVar[str] = "logistic-mixture"
    supports: ClassVar[tuple[type[Support], ...]] = (Discrete, Binary)
    options: ClassVar[tuple[str, ...]] = ("components",)

    spread: Tensor

    def __init__(self, event_shape: Sequence[int], support: Support, components: int = 5) -> None:
        super().__init__(event_shape, support)
        if components < 1:
            raise refuse("components", "at least 1", components)
        self.components, self.num_outputs = components, 3 * components
        # Equal components have equal gradients. Random weights of the decoder tell them apart, but
        # by little; apart from the start, each has levels of its own to explain.
        start = torch.linspace(-1, 1, components + 2)[1:-1]
        self.register_buffer("spread", start, persistent=False)

    def forward(self, raw: Tensor, x: Tensor | None = None) -> LogisticMixture:
        """Mixture of logistics from raw outputs; see `Likelihood.forward`."""
        logits, loc, log_scale = self.grouped(raw, 3)
        levels = self.support.levels  # type: ignore[union-attr]
        components = bounded_logistic(loc + self.spread, log_scale, levels, 0)
        return LogisticMixture(logits, components, len(self.event_shape))
