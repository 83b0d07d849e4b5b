"""The promises: a `Distribution` scores and draws events, a `Likelihood` makes one from a network.

A distribution has leading axes (…) and an event; ``log_prob`` sums over the event and over nothing
else, keeps every constant, and is in nats. A likelihood is the head of a decoder: it turns the raw
output of a network into a distribution over the data in the data's own units, and it owns what
must be measured on the training set (the scale of the data) as buffers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from lowerbound.distributions.numerics import moments
from lowerbound.distributions.support import (
    Binary,
    Counts,
    Discrete,
    Product,
    Real,
    Support,
    Unit,
)
from lowerbound.errors import refuse

__all__ = ["Distribution", "Likelihood"]


class Distribution(ABC):
    """A batch of distributions over events of ``event_ndim`` axes.

    Values outside the support have no defined log-probability: data are checked once, by
    `Support.contains`, and not in every step.
    """

    event_ndim: int

    @property
    def support(self) -> Support:
        """What values an element can take; any real number unless a family says otherwise."""
        return Real()

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
    options: ClassVar[tuple[str, ...]] = ()
    """What it takes beside shape and support, such as ``"sigma"``."""
    num_outputs: int
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
                f"use {support.likelihood}, or {_REDECLARED[self.supports[0]]}",
            )
        self.event_shape, self.support = tuple(event_shape), support
        # Where the data are on their axis, so that a network sees numbers of order one.
        center, width = _axis(support)
        unit_shape = self._unit_shape()
        self.register_buffer("shift", torch.full(unit_shape, center))
        self.register_buffer("scale", torch.full(unit_shape, width))
        self.register_buffer("typical", torch.tensor(width))

    def _unit_shape(self) -> tuple[int, ...]:
        """One unit per element of a vector, per channel of an array; one where it is known."""
        if not isinstance(self.support, Real | Counts):
            return (1,) * len(self.event_shape)
        if len(self.event_shape) <= 1:
            return self.event_shape
        return (self.event_shape[0],) + (1,) * (len(self.event_shape) - 1)

    def _measured_axes(self) -> list[int]:
        """Axes of (N, *event) over which one unit is shared."""
        return [0, *range(2, len(self.event_shape) + 1)]

    def check(self, x: Tensor) -> None:
        """Refuse data ``x`` (…, *event) outside the support.

        Raises:
            InputError: a value that cannot be, with what to do about it.
        """
        if not self.support.contains(x):
            raise refuse(
                "x",
                f"{self.support} data",
                f"values from {float(x.min()):g} to {float(x.max()):g}",
                "declare what the data are with --support, or correct them",
            )

    def calibrate(self, x: Tensor | Iterable[Tensor]) -> None:
        """Measure the unit of real data and of counts on training examples ``x`` (N, *event).

        Args:
            x: the examples, or blocks of them that can be gone through more than once and hold
                no value outside the support.

        Raises:
            InputError: data outside the support.
        """
        if isinstance(x, Tensor):
            self.check(x)
        if not isinstance(self.support, Real | Counts):
            return
        unit_shape = self._unit_shape()
        mean, variance = self._moments(x)
        self.shift.copy_(mean.reshape(unit_shape))
        spread = variance.sqrt().reshape(unit_shape)
        # A constant column has no unit of its own: it keeps 1, and its scale a floor.
        tiny = 1e-6 * self.shift.double().abs().clamp_min(1e-6)
        varies = spread > tiny
        self.scale.copy_(torch.where(varies, spread, torch.ones_like(spread)))
        if varies.any():
            self.typical.copy_(spread[varies].square().mean().sqrt())

    def _moments(
        self, x: Tensor | Iterable[Tensor], *, on_axis: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Mean and variance per unit of examples, float64, where the unit is measured or not."""
        blocks = (block.double() for block in ([x] if isinstance(x, Tensor) else x))
        measured = (self._on_axis(block) for block in blocks) if on_axis else blocks
        return moments(measured, self._measured_axes())

    def _on_axis(self, x: Tensor) -> Tensor:
        """``x`` where its unit is measured: counts by log(1 + x), which tames their long tail."""
        return torch.log1p(x) if isinstance(self.support, Counts) else x

    def floating(self, x: Tensor) -> Tensor:
        """Integers as floats of the network's precision: converted once, not at every use."""
        return x if x.is_floating_point() else x.to(self.shift.dtype)

    def standardized(self, x: Tensor) -> Tensor:
        """``x`` (…, *event) in the unit that networks see, float: about zero mean, order one."""
        # Doubles must not widen the network.
        return torch.sub(self._on_axis(x.to(self.shift.dtype)), self.shift).div_(self.scale)

    def outputs(self, raw: Tensor) -> tuple[Tensor, ...]:
        """Arrange a decoder's raw output (N, anything) as num_outputs tensors (N, *event).

        Half-precision networks end here: likelihoods are computed in full precision.
        """
        raw = raw if raw.dtype == torch.float64 else raw.float()
        if self.num_outputs == 1:  # unbind() would copy the gradient
            return (raw.reshape(-1, *self.event_shape),)
        return raw.reshape(-1, self.num_outputs, *self.event_shape).unbind(1)

    def grouped(self, raw: Tensor, num_groups: int) -> tuple[Tensor, ...]:
        """As `outputs`, in ``num_groups`` tensors (N, *event, num_outputs / num_groups)."""
        raw = raw if raw.dtype == torch.float64 else raw.float()
        raw = raw.reshape(-1, num_groups, self.num_outputs // num_groups, *self.event_shape)
        return raw.movedim(2, -1).unbind(1)

    @abstractmethod
    def forward(self, raw: Tensor, x: Tensor | None = None) -> Distribution:
        """p(x|z) from raw decoder outputs (N, num_outputs · event).

        ``x`` (N, *event) is given while training; only the optimal-sigma Gaussian looks at it.
        """

    def notes(self) -> list[str]:
        """Sentences that a reader of the nats should know, such as floors."""
        return []


def _axis(support: Support) -> tuple[float, float]:
    """Center and half-width of the data, where the support tells; (0, 1) where it is measured."""
    if isinstance(support, Binary):
        return 0.5, 1.0
    if isinstance(support, Discrete):
        return (support.levels - 1) / 2, support.levels / 2
    return (0.5, 0.5) if isinstance(support, Unit) else (0.0, 1.0)


_REDECLARED: dict[type[Support], str] = {
    Binary: "make the data binary with --binarize",
    Discrete: "declare the data's levels with --support discrete:LEVELS",
    Counts: "declare the data to be counts with --support counts",
    Real: "declare the data real with --support real (nats are then nats of a density)",
    Unit: "bring the data to [0, 1] and declare them so with --support unit",
    Product: "declare the columns of a table with --support product:…",
}
