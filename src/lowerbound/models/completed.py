"""p(x|z) where a part of x is known: that part is certain, and only the rest is paid for.

With o the observed part and u the rest, x = (o, u) and p(x|z, o) = p(u|z, o): the log-probability
is the sum over u alone, and means and draws hold o as it was observed.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from lowerbound._shapes import sum_event
from lowerbound.distributions import Distribution, Support

__all__ = ["Completed"]


@dataclass(frozen=True)
class Completed(Distribution):
    """Independent elements under ``inner`` that are not observed; the others as they are.

    Args:
        inner: a distribution of independent elements.
        observed: values (N, *event), read where the mask is 1.
        mask: 1 where an element is observed, (N, *event).
        event_ndim: how many trailing axes are the event.
    """

    inner: Distribution
    observed: Tensor
    mask: Tensor
    event_ndim: int = 1

    @classmethod
    def of(cls, inner: Distribution, context: Tensor) -> Completed:
        """From a context (N, 2, *event): what is observed, and its mask."""
        observed, mask = context.unbind(1)
        return cls(inner, observed, mask != 0, inner.event_ndim)

    @property
    def support(self) -> Support:
        """That of every element."""
        return self.inner.support

    @property
    def mean(self) -> Tensor:
        """Expectation (N, *event), in the units of the data."""
        return self._with_observed(self.inner.mean)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density, or log-mass, of what is not observed of ``x`` (…, *event), nats, (…).

        What is observed is not compared with x: x is what it was taken from.
        """
        single = dataclasses.replace(self.inner, event_ndim=0)  # type: ignore[type-var]
        elements = single.log_prob(self._with_observed(x))
        return sum_event(torch.where(self.mask, 0.0, elements), self.event_ndim)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw (N, *event)."""
        return self._with_observed(self.inner.sample(generator))

    def _with_observed(self, x: Tensor) -> Tensor:
        return torch.where(self.mask, self.observed.to(x.dtype), x)
