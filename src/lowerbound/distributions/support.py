"""What values the data can take: the support decides which likelihoods fit.

A density is not a mass. Nats of a `Binary` or `Discrete` likelihood are nats of probability and
convert to bits; nats of a `Real` likelihood are nats of density and depend on the data's unit.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lowerbound.errors import InputError, refuse

__all__ = ["Binary", "Discrete", "Real", "Support", "parse_support"]


@dataclass(frozen=True)
class Binary:
    """Values 0 and 1."""

    @property
    def levels(self) -> int:
        """Number of values an element can take."""
        return 2

    def contains(self, x: Tensor) -> bool:
        """Whether every element of ``x`` is a possible value."""
        return bool(((x == 0) | (x == 1)).all())

    def __str__(self) -> str:
        return "binary"


@dataclass(frozen=True)
class Discrete:
    """Integers 0 … levels − 1: the levels of a pixel."""

    levels: int

    def __post_init__(self) -> None:
        if self.levels < 2:
            raise refuse("levels", "at least 2", self.levels)

    def contains(self, x: Tensor) -> bool:
        """Whether every element of ``x`` is a possible value."""
        return bool(((x >= 0) & (x <= self.levels - 1) & (x == x.round())).all())

    def __str__(self) -> str:
        return f"discrete:{self.levels}"


@dataclass(frozen=True)
class Real:
    """Any finite real number."""

    def contains(self, x: Tensor) -> bool:
        """Whether every element of ``x`` is a possible value."""
        return bool(x.isfinite().all())

    def __str__(self) -> str:
        return "real"


Support = Binary | Discrete | Real


def parse_support(text: str) -> Support:
    """Read the form that ``str(support)`` writes: binary, discrete:LEVELS or real.

    >>> parse_support("discrete:17")
    Discrete(levels=17)
    """
    name, _, levels = text.partition(":")
    if name == "discrete" and levels.isdecimal():
        return Discrete(int(levels))
    if text == "binary":
        return Binary()
    if text == "real":
        return Real()
    raise InputError(
        f"'support' must be binary, discrete:LEVELS or real, got {text!r}; "
        "for 8-bit pixels say discrete:256"
    )
