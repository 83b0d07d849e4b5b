"""The Bernoulli over binary elements, from logits.

log P(x) = Σ x·l − softplus(l): exact for every logit, no probability is ever clamped.

KL(q ‖ p) = Σ_k q_k (eᵘ − 1 − u) over k in {0, 1}, u = log p_k − log q_k: the usual sum of
q_k (log q_k − log p_k), by terms none of which is negative.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lowerbound._shapes import sum_event
from lowerbound.distributions.base import Distribution, Likelihood
from lowerbound.distributions.numerics import deviance
from lowerbound.distributions.support import Binary, Support

__all__ = ["Bernoulli", "BernoulliLikelihood", "kl_bernoulli"]


@dataclass(frozen=True)
class Bernoulli(Distribution):
    """Independent binary elements with log-odds ``logits`` (…, *event)."""

    logits: Tensor
    event_ndim: int = 1

    @property
    def support(self) -> Binary:
        """Zero and one."""
        return Binary()

    @property
    def mean(self) -> Tensor:
        """P(x = 1), (…, *event)."""
        return torch.sigmoid(self.logits)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-mass of ``x`` in {0, 1}, nats, (…)."""
        logits, x = torch.broadcast_tensors(self.logits, x.to(self.logits.dtype))
        loss = F.binary_cross_entropy_with_logits(logits, x, reduction="none")
        return -sum_event(loss, self.event_ndim)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw of zeros and ones, uint8."""
        u = torch.empty_like(self.logits).uniform_(generator=generator)
        return (u < self.mean).to(torch.uint8)


def kl_bernoulli(q: Bernoulli, p: Bernoulli) -> Tensor:
    """KL(q ‖ p) in nats, summed over the event, (…); accurate also where q is next to p."""
    one = deviance(F.logsigmoid(q.logits), F.logsigmoid(p.logits))
    zero = deviance(F.logsigmoid(-q.logits), F.logsigmoid(-p.logits))
    return sum_event(one + zero, q.event_ndim)


class BernoulliLikelihood(Likelihood):
    """p(x|z) for binary data: the decoder gives logits."""

    name: ClassVar[str] = "bernoulli"
    supports: ClassVar[tuple[type[Support], ...]] = (Binary,)
    num_outputs: int = 1

    def forward(self, raw: Tensor, x: Tensor | None = None) -> Bernoulli:
        """Bernoulli(x; logits) from raw outputs; see `Likelihood.forward`."""
        return Bernoulli(self.outputs(raw)[0], len(self.event_shape))
