"""The promises: a `Distribution` scores and draws events, a `Likelihood` makes one from a network.

A distribution has leading axes (…) and an event; ``log_prob`` sums over the event and over nothing
else, keeps every constant, and is in nats. A likelihood is the head of a decoder: it turns the raw
output of a network into a distribution over the data in the data's own units, and it owns what
must be measured on the training set (the scale of the data) as buffers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from lowerbound.distributions.support import Binary, Discrete, Real, Support
from lowerbound.errors import refuse

__all__ = ["Distribution", "Likelihood"]


class Distribution(ABC):
    """A batch of distributions over events of ``event_ndim`` axes."""

    event_ndim: int

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density or log-mass of ``x`` (…, *event): (…), nats, summed over the event."""

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """Expectation, (…, *event), in the units of the data."""

    @abstractmethod
    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw, (…, *event), by a private generator; carries no gradient."""


class Likelihood(nn.Module, ABC):
    """p(x|z) as the head of a decoder.

    The decoder gives ``num_outputs`` raw numbers per element of the event; the head squashes or
    clamps them into a distribution, so that no raw output, however large, makes it infinite.

    Args:
        event_shape: shape of one example.
        support: what values an element can take; must be one of ``supports``.
    """

    name: ClassVar[str]
    supports: ClassVar[tuple[type[Support], ...]]
    num_outputs: ClassVar[int]
    shift: Tensor
    scale: Tensor
    typical: Tensor

    def __init__(self, event_shape: Sequence[int], support: Support) -> None:
        super().__init__()
        if not isinstance(support, self.supports):
            raise refuse(
                "likelihood",
                f"one that fits {support} data",
                self.name,
                _remedy(support),
            )
        self.event_shape, self.support = tuple(event_shape), support
        # Where the data are on their axis, so that a network sees numbers of order one.
        levels = 2 if isinstance(support, Binary) else getattr(support, "levels", None)
        center, width = ((levels - 1) / 2, levels / 2) if levels else (0.0, 1.0)
        unit_shape = self._unit_shape()
        self.register_buffer("shift", torch.full(unit_shape, center))
        self.register_buffer("scale", torch.full(unit_shape, width))
        self.register_buffer("typical", torch.tensor(width))

    def _unit_shape(self) -> tuple[int, ...]:
        """One unit per element of a vector, per channel of an array; one for discrete data."""
        if not isinstance(self.support, Real):
            return (1,) * len(self.event_shape)
        if len(self.event_shape) <= 1:
            return self.event_shape
        return (self.event_shape[0],) + (1,) * (len(self.event_shape) - 1)

    def calibrate(self, x: Tensor) -> None:
        """Measure the unit of real data on training examples ``x`` (N, *event)."""
        if not isinstance(self.support, Real):
            return
        axes = [0, *(i + 1 for i, n in enumerate(self._unit_shape()) if n == 1)]
        axes = axes if len(self.event_shape) > 1 else [0]
        x64 = x.double()
        self.shift.copy_(x64.mean(axes).reshape(self._unit_shape()))
        spread = x64.std(axes, correction=0).reshape(self._unit_shape())
        # A constant column has no unit of its own: it keeps 1, and its scale a floor.
        tiny = 1e-6 * self.shift.double().abs().clamp_min(1e-6)
        varies = spread > tiny
        self.scale.copy_(torch.where(varies, spread, torch.ones_like(spread)))
        if varies.any():
            self.typical.copy_(spread[varies].square().mean().sqrt())

    def floating(self, x: Tensor) -> Tensor:
        """Integers as floats of the network's precision: converted once, not at every use."""
        return x if x.is_floating_point() else x.to(self.shift.dtype)

    def standardized(self, x: Tensor) -> Tensor:
        """``x`` (…, *event) in the unit that networks see, float: about zero mean, order one."""
        # Doubles must not widen the network.
        return torch.sub(x.to(self.shift.dtype), self.shift).div_(self.scale)

    def outputs(self, raw: Tensor) -> tuple[Tensor, ...]:
        """Arrange a decoder's raw output (N, anything) as num_outputs tensors (N, *event).

        Half-precision networks end here: likelihoods are computed in full precision.
        """
        raw = raw if raw.dtype == torch.float64 else raw.float()
        if self.num_outputs == 1:  # unbind() would copy the gradient
            return (raw.reshape(-1, *self.event_shape),)
        return raw.reshape(-1, self.num_outputs, *self.event_shape).unbind(1)

    @abstractmethod
    def forward(self, raw: Tensor, x: Tensor | None = None) -> Distribution:
        """p(x|z) from raw decoder outputs (N, num_outputs · event).

        ``x`` (N, *event) is given while training; only the optimal-sigma Gaussian looks at it.
        """

    def notes(self) -> list[str]:
        """Sentences that a reader of the nats should know, such as floors."""
        return []


def _remedy(support: Support) -> str:
    if isinstance(support, Binary):
        return "use bernoulli"
    if isinstance(support, Discrete):
        return (
            "use logistic, or declare the data real with --support real "
            "(nats are then nats of a density)"
        )
    return "use gaussian, or declare the data's levels with --support discrete:LEVELS"
