"""What values the data can take: the support decides which likelihoods fit.

A density is not a mass. Nats of `Binary`, `Discrete` and `Counts` likelihoods are nats of
probability and convert to bits; nats of `Real` and `Unit` likelihoods are nats of a density and
depend on the data's unit; a `Product` is a mass where every column is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lowerbound.errors import InputError, printable, refuse

__all__ = [
    "Binary",
    "Counts",
    "Discrete",
    "Product",
    "Real",
    "Support",
    "Unit",
    "column_support",
    "parse_support",
]


def _integers_between(x: Tensor, low: int, high: int | None) -> bool:
    """Whether all of ``x`` are integers from ``low`` to ``high``; integer types need no copy."""
    if not x.numel():
        return True
    smallest, largest = torch.aminmax(x)
    # NaN fails every comparison; infinity would pass for an integer.
    if not (bool(smallest >= low) and bool(largest.isfinite())):
        return False
    if high is not None and bool(largest > high):
        return False
    return not x.is_floating_point() or bool((x == x.round()).all())


@dataclass(frozen=True)
class Binary:
    """Values 0 and 1."""

    is_discrete: ClassVar[bool] = True
    likelihood: ClassVar[str] = "bernoulli"

    @property
    def levels(self) -> int:
        """Number of values an element can take."""
        return 2

    def contains(self, x: Tensor) -> bool:
        """Whether every element of ``x`` is a possible value."""
        return _integers_between(x, 0, 1)

    def __str__(self) -> str:
        return "binary"


@dataclass(frozen=True)
class Discrete:
    """Integers 0 … levels − 1: the levels of a pixel."""

    levels: int
    is_discrete: ClassVar[bool] = True
    likelihood: ClassVar[str] = "logistic"

    def __post_init__(self) -> None:
        if self.levels < 2:
            raise refuse("levels", "at least 2", self.levels)

    def contains(self, x: Tensor) -> bool:
        """Whether every element of ``x`` is a possible value."""
        return _integers_between(x, 0, self.levels - 1)

    def __str__(self) -> str:
        return f"discrete:{self.levels}"


@dataclass(frozen=True)
class Counts:
    """Integers from 0 without an upper limit: how often something happened."""

    is_discrete: ClassVar[bool] = True
    likelihood: ClassVar[str] = "negative-binomial"

    def contains(self, x: Tensor) -> bool:
        """Whether every element of ``x`` is a possible value."""
        return _integers_between(x, 0, None)

    def __str__(self) -> str:
        return "counts"


@dataclass(frozen=True)
class Real:
    """Any finite real number."""

    is_discrete: ClassVar[bool] = False
    likelihood: ClassVar[str] = "gaussian"

    def contains(self, x: Tensor) -> bool:
        """Whether every element of ``x`` is a possible value."""
        return bool(x.isfinite().all())

    def __str__(self) -> str:
        return "real"


@dataclass(frozen=True)
class Unit:
    """Real numbers from 0 to 1: shares, or grey values of any precision."""

    is_discrete: ClassVar[bool] = False
    likelihood: ClassVar[str] = "continuous-bernoulli"

    def contains(self, x: Tensor) -> bool:
        """Whether every element of ``x`` is a possible value."""
        return bool(((x >= 0) & (x <= 1)).all())

    def __str__(self) -> str:
        return "unit"


Column = Binary | Discrete | Counts | Real | Unit


@dataclass(frozen=True)
class Product:
    """Rows of a table: one support per column of a vector event.

    >>> str(Product((Real(), Discrete(5), Counts())))
    'product:real,discrete:5,counts'
    """

    parts: tuple[Column, ...]
    likelihood: ClassVar[str] = "product"

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        if not self.parts or not all(isinstance(part, Column) for part in self.parts):
            listed = ", ".join(map(str, self.parts))
            raise refuse("parts", "a support per column, none of them a product", f"({listed})")

    @property
    def is_discrete(self) -> bool:
        """Whether every column is discrete, so that nats are those of a probability."""
        return all(part.is_discrete for part in self.parts)

    def contains(self, x: Tensor) -> bool:
        """Whether the last axis has a column per part, each of possible values."""
        return x.shape[-1:] == (len(self.parts),) and all(
            part.contains(x[..., j]) for j, part in enumerate(self.parts)
        )

    def __str__(self) -> str:
        return "product:" + ",".join(map(str, self.parts))


Support = Column | Product


def column_support(text: str) -> Column | None:
    """The support of one element by its name, or None where there is none of that name."""
    name, _, levels = text.partition(":")
    if name == "discrete" and levels.isdecimal():
        return Discrete(int(levels))
    plain: dict[str, Column] = {str(part): part for part in (Binary(), Counts(), Real(), Unit())}
    return plain.get(text)


def parse_support(text: str) -> Support:
    """Read what ``str(support)`` writes, such as binary, discrete:LEVELS or product:real,counts.

    Raises:
        InputError: no such support.

    >>> parse_support("discrete:17"), parse_support("product:real,binary")
    (Discrete(levels=17), Product(parts=(Real(), Binary())))
    """
    name, _, columns = text.partition(":")
    if name == "product":
        parts = [column_support(part.strip()) for part in columns.split(",")]
        known = tuple(part for part in parts if part is not None)
        if len(known) == len(parts):
            return Product(known)
    single = column_support(text)
    if single is not None:
        return single
    raise InputError(
        "'support' must be counts, unit, binary, discrete:LEVELS or real, or product: and one of "
        f"them per column, got {printable(text)!r}; for 8-bit pixels say discrete:256"
    )
