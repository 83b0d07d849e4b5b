"""The categorical distribution: a probability of its own for every level.

log P(x = k) = l_k − log Σ_j exp l_j. It knows no order of the levels: any shape can be learned,
and every level has to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lowerbound._shapes import sum_event
from lowerbound.distributions.base import Distribution, Likelihood
from lowerbound.distributions.numerics import deviance
from lowerbound.distributions.support import Binary, Discrete, Support

__all__ = ["Categorical", "CategoricalLikelihood", "draw_index", "kl_categorical"]


def draw_index(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """An index (…,) of the last axis of unnormalised ``logits`` (…, K), by the Gumbel trick."""
    exponential = torch.empty_like(logits).exponential_(generator=generator)
    return (logits - exponential.log()).argmax(-1)


@dataclass(frozen=True)
class Categorical(Distribution):
    """Independent elements in 0 … levels − 1 with unnormalised log-probabilities ``logits``.

    Args:
        logits: (…, *event, levels).
        event_ndim: how many trailing axes, without that of the levels, are the event.
    """

    logits: Tensor
    event_ndim: int = 1

    @property
    def support(self) -> Discrete:
        """The integers 0 … levels − 1."""
        return Discrete(self.logits.shape[-1])

    @property
    def mean(self) -> Tensor:
        """Expected level, (…, *event)."""
        levels = torch.arange(self.logits.shape[-1], device=self.logits.device)
        return torch.softmax(self.logits, -1) @ levels.to(self.logits.dtype)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-mass of levels ``x``, nats, (…)."""
        log_p, index = torch.log_softmax(self.logits, -1), x.long()
        shape = torch.broadcast_shapes(log_p.shape[:-1], index.shape)
        chosen = log_p.expand(*shape, -1).gather(-1, index.expand(shape).unsqueeze(-1))
        return sum_event(chosen.squeeze(-1), self.event_ndim)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw of levels: uint8 up to 256 of them, else int64."""
        level = draw_index(self.logits, generator)
        return level.to(torch.uint8) if self.logits.shape[-1] <= 256 else level


def kl_categorical(q: Categorical, p: Categorical) -> Tensor:
    """KL(q ‖ p) in nats, summed over the event, (…); accurate also where q is next to p."""
    log_q, log_p = torch.log_softmax(q.logits, -1), torch.log_softmax(p.logits, -1)
    return sum_event(deviance(log_q, log_p).sum(-1), q.event_ndim)


class CategoricalLikelihood(Likelihood):
    """p(x|z) for levels: the decoder gives a logit per level and element."""

    name: ClassVar[str] = "categorical"
    supports: ClassVar[tuple[type[Support], ...]] = (Discrete, Binary)

    def __init__(self, event_shape: Sequence[int], support: Support) -> None:
        super().__init__(event_shape, support)
        self.num_outputs = self.support.levels  # type: ignore[union-attr]

    def forward(self, raw: Tensor, x: Tensor | None = None) -> Categorical:
        """Categorical(x; logits) from raw outputs; see `Likelihood.forward`."""
        return Categorical(self.grouped(raw, 1)[0], len(self.event_shape))
