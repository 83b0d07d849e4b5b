"""The promise of a coder: a model that is not a likelihood, x ↦ z ↦ x̂ by two functions.

A code is a point and so is what it decodes to. Nothing here is a probability: a coder has no prior
to draw from, no log p(x) and no nats. It is judged by what it loses, ‖x − x̂‖².
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lowerbound._shapes import sum_event
from lowerbound.distributions import Distribution
from lowerbound.errors import InputError
from lowerbound.models.base import Draw, Model
from lowerbound.objectives import Bound, Noise

__all__ = ["Coder", "Point"]


@dataclass(frozen=True)
class Point(Distribution):
    """All mass at ``loc`` (…, *event): what a function says where others say a distribution.

    Args:
        loc: the point (…, *event).
        event_ndim: how many trailing axes are the event.
    """

    loc: Tensor
    event_ndim: int = 1

    @property
    def mean(self) -> Tensor:
        """The point, (…, *event)."""
        return self.loc

    @property
    def stddev(self) -> Tensor:
        """A standard deviation of 0 everywhere, (…, *event)."""
        return torch.zeros_like(self.loc)

    @property
    def log_scale(self) -> Tensor:
        """Log of a standard deviation of 0: −∞ everywhere, (…, *event)."""
        return torch.full_like(self.loc, -torch.inf)

    def log_prob(self, x: Tensor) -> Tensor:
        """Refused: a point has no density.

        Raises:
            InputError: always.
        """
        raise InputError("a point has no density: its model is not a likelihood")

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """The point itself, (…, *event)."""
        return self.loc.detach()


class Coder(Model):
    """Base of the models that are not likelihoods.

    A coder says how to `encode` and to `decode`, both as a `Point`. Its "bound" is minus the
    squared error, for training alone; every judgement of it says "not a likelihood".
    """

    is_likelihood: ClassVar[bool] = False
    can_sample: ClassVar[bool] = False
    """Whether there is anything to draw from; a coder has no prior."""

    def noise(
        self, batch_size: int, num_samples: int = 1, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Nothing: a coder is a function of x."""
        return {}

    def unit(self) -> Tensor:
        """The unit of the squared error, broadcastable to an example; 1 in the data's own."""
        return torch.ones((), device=self.calibrated.device)

    def bound(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        num_samples: int = 1,
        noise: Noise | None = None,
        generator: torch.Generator | None = None,
    ) -> Bound:
        """Minus the squared error Σ ((x − x̂)/unit)² of each example, (B,), and no rate.

        Not nats, and no bound on anything: it has the form that training maximises. The error is
        summed over dimensions, as the reconstruction term of a likelihood would be.
        """
        self.check_shape(x)
        decoded = self.decode(self.encode(x, context).mean, context).mean
        lost = (x.to(decoded.dtype) - decoded) / self.unit()
        error = sum_event(lost.square(), len(self.event_shape))
        return Bound(-error, {}, surrogate=-error)

    def draw(
        self,
        x: Tensor,
        num_samples: int,
        context: Tensor | None = None,
        *,
        noise: Noise | None = None,
        path: bool = False,
    ) -> Draw:
        """Refused: without a density there is nothing to weigh.

        Raises:
            InputError: always.
        """
        raise InputError(f"a model of kind '{self.name}' is not a likelihood and has no log p(x)")

    def sample(
        self,
        num: int,
        context: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        mean: bool = False,
    ) -> Tensor:
        """Refused: a coder has no prior.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"a model of kind '{self.name}' has no prior to draw from; "
            "reconstruct with it, or draw from a vae, a ppca or a mixture"
        )
