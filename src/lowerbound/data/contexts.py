"""What a conditional model is given beside x: a class, a vector, or a part of x itself.

A context is one tensor with a row per example, so that it is selected, moved and joined as the
examples are. Each kind also has a value that says "nothing is known": label dropout puts it in the
place of some contexts while a model is trained, so that one model learns p(x|context) and p(x).
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lowerbound._shapes import shown_shape
from lowerbound.errors import InputError, printable, refuse

__all__ = ["Classes", "Context", "Mask", "Vector", "context_from"]

MAX_SHOWN = 20


class Context(ABC):
    """Base of the kinds of context; frozen dataclasses of plain values."""

    kind: ClassVar[str]

    @abstractmethod
    def check(
        self, context: Tensor, event_shape: Sequence[int], *, may_be_unknown: bool = True
    ) -> None:
        """Refuse a tensor that holds no contexts of this kind for examples of a shape.

        Args:
            context: (B, …).
            event_shape: shape of one example.
            may_be_unknown: whether a class that is not known is a context; it is to a model that
                was trained with label dropout.
        """

    @property
    @abstractmethod
    def nothing(self) -> float:
        """The number that fills a context that says nothing."""

    @abstractmethod
    def unknown(self, num: int, event_shape: Sequence[int]) -> Tensor:
        """``num`` contexts that say nothing, (num, …)."""

    def require(self, given: Context | None, owner: str) -> None:
        """Refuse data whose context is not what the model called ``owner`` is given.

        Raises:
            InputError: data without any, or with another.
        """
        if given is None:
            raise refuse(self.kind, f"in the data of a '{owner}'", "none", "use other data")
        if type(given) is not type(self):
            raise refuse("condition", f"{self.kind} for this '{owner}'", given.kind)

    def dropped(self, context: Tensor, drop: Tensor) -> Tensor:
        """``context`` (B, …) with nothing known where ``drop`` (B,) is true."""
        nothing = torch.full_like(context, self.nothing)  # made where the context is: no copy
        return torch.where(drop.reshape(-1, *(1,) * (context.ndim - 1)), nothing, context)

    def document(self) -> dict[str, Any]:
        """Plain values, from which `context_from` makes it again."""
        return {"kind": self.kind, **asdict(self)}  # type: ignore[call-overload]


@dataclass(frozen=True)
class Classes(Context):
    """Context that is one of ``num_classes`` classes: an integer index (B,).

    The index ``num_classes`` itself stands for a class that is not known.
    """

    num_classes: int
    names: tuple[str, ...] = ()
    kind: ClassVar[str] = "labels"

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise refuse("num_classes", "at least 1", self.num_classes)
        if self.names and len(self.names) != self.num_classes:
            raise refuse("names", f"one for each of {self.num_classes} classes", len(self.names))

    @property
    def labels(self) -> tuple[str, ...]:
        """What each class is called: its name, or its index."""
        return self.names or tuple(str(i) for i in range(self.num_classes))

    def __str__(self) -> str:
        more = ", …" if self.num_classes > MAX_SHOWN else ""
        return f"{self.num_classes} classes: {', '.join(self.labels[:MAX_SHOWN])}{more}"

    def check(
        self, context: Tensor, event_shape: Sequence[int], *, may_be_unknown: bool = True
    ) -> None:
        """Refuse what are not class indices (B,), by the first one that is none."""
        if context.ndim != 1 or context.is_floating_point():
            given = f"{context.dtype} of shape {shown_shape(context.shape)}"
            raise refuse("context", "class indices, one integer per example", given)
        bad = (context < 0) | (context > self.num_classes)
        if bad.any():
            remedy = "give the index of a class that the model was trained with"
            raise refuse("context", f"one of {self}", int(context[bad][0]), remedy)
        if not may_be_unknown and (context == self.num_classes).any():
            remedy = "leave such examples out, or train with label_dropout=0.1"
            given = f"{self.num_classes}, a class that is not known"
            raise refuse("context", f"one of {self}", given, remedy)

    @property
    def nothing(self) -> int:
        """The index after the last class."""
        return self.num_classes

    def unknown(self, num: int, event_shape: Sequence[int]) -> Tensor:
        """See `Context.unknown`, (num,)."""
        return torch.full((num,), self.nothing)

    def require(self, given: Context | None, owner: str) -> None:
        """See `Context.require`; other classes, or another order of them, are named."""
        if given is None:
            remedy = "name their column or array with --labels"
            required = f"in the data of a '{owner}' that was trained with them"
            raise refuse("labels", required, "none", remedy)
        super().require(given, owner)
        assert isinstance(given, Classes)
        if given.labels != self.labels:
            remedy = "use data with the same classes"
            raise refuse("labels", f"of the {self} that the model was trained with", given, remedy)

    def index(self, label: str) -> int:
        """The index of a class by its name.

        >>> Classes(3, ("cat", "dog", "owl")).index("owl")
        2

        Raises:
            InputError: a class never seen, with the names of those that were.
        """
        if label not in self.labels:
            are_numbers = all(name.isdecimal() for name in self.labels)  # 12 is no slip for 2
            near = [] if are_numbers else difflib.get_close_matches(label, self.labels, 1)
            hint = f"did you mean '{printable(near[0], 40)}'?" if near else ""
            raise refuse("label", f"one of the {self}", label, hint)
        return self.labels.index(label)

    def translated(self, labels: Tensor, given: Classes) -> Tensor:
        """Indices (N,) into the classes of other data as indices into these, by their names.

        A file of a few rows need not hold every class.

        Raises:
            InputError: a class never seen.
        """
        return torch.tensor([self.index(label) for label in given.labels])[labels]


@dataclass(frozen=True)
class Vector(Context):
    """Context that is ``size`` real numbers, (B, size); NaN stands for numbers not known."""

    size: int
    kind: ClassVar[str] = "vector"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise refuse("size", "at least 1", self.size)

    def __str__(self) -> str:
        return f"a vector of {self.size} numbers"

    def check(
        self, context: Tensor, event_shape: Sequence[int], *, may_be_unknown: bool = True
    ) -> None:
        """Refuse what is not (B, size), or not finite; NaN only where it may be unknown."""
        if context.ndim != 2 or context.shape[1] != self.size:
            given = shown_shape(context.shape[1:]) or "one number"
            remedy = "give those that the model was made for, in the same order"
            raise refuse("context", f"{self.size} numbers per example", given, remedy)
        if context.isinf().any():
            raise refuse("context", "finite numbers", "infinite ones", "leave such examples out")
        if not may_be_unknown and context.isnan().any():
            remedy = "leave such examples out, or train with label_dropout=0.1"
            raise refuse("context", f"{self.size} numbers", "NaN, which is not known", remedy)

    @property
    def nothing(self) -> float:
        """See `Context.nothing`."""
        return torch.nan

    def unknown(self, num: int, event_shape: Sequence[int]) -> Tensor:
        """See `Context.unknown`, (num, size)."""
        return torch.full((num, self.size), self.nothing)

    def require(self, given: Context | None, owner: str) -> None:
        """See `Context.require`; of the same width."""
        super().require(given, owner)
        if given != self:
            remedy = "give the context that the model was trained with"
            raise refuse("context", f"{self} for this '{owner}'", given, remedy)


@dataclass(frozen=True)
class Mask(Context):
    """Context that is a part of x: (B, 2, *event), first x where it is observed, then the mask.

    The mask is 1 where x is observed and 0 elsewhere, and x is 0 where it is not observed.

    Args:
        quadrants: how many quadrants of an image are observed; None where that varies.
    """

    quadrants: int | None = None
    kind: ClassVar[str] = "mask"

    def __str__(self) -> str:
        return "mask" if self.quadrants is None else f"mask:{self.quadrants}"

    def check(
        self, context: Tensor, event_shape: Sequence[int], *, may_be_unknown: bool = True
    ) -> None:
        """Refuse what is not (B, 2, *event), or a mask of other values than 0 and 1."""
        if tuple(context.shape[1:]) != (2, *event_shape):
            required = f"x where it is observed and its mask, 2×{shown_shape(event_shape)}"
            raise refuse("context", required, shown_shape(context.shape[1:]) or "one number")
        mask = context[:, 1]
        if not ((mask == 0) | (mask == 1)).all():
            given = f"values from {float(mask.min()):g} to {float(mask.max()):g}"
            raise refuse("context", "a mask of zeros and ones", given)

    @property
    def nothing(self) -> float:
        """Nothing is observed, and every value is 0."""
        return 0.0

    def unknown(self, num: int, event_shape: Sequence[int]) -> Tensor:
        """See `Context.unknown`, (num, 2, *event)."""
        return torch.full((num, 2, *event_shape), self.nothing)


KINDS: dict[str, type[Context]] = {kind.kind: kind for kind in (Classes, Vector, Mask)}


def context_from(document: Mapping[str, Any] | None) -> Context | None:
    """The context that `Context.document` described; None of None.

    >>> context_from(Classes(2, ("a", "b")).document())
    Classes(num_classes=2, names=('a', 'b'))

    Raises:
        InputError: a kind, or values, that there are not.
    """
    if document is None:
        return None
    try:
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in document.items()}
        return KINDS[str(values.pop("kind"))](**values)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"'context' cannot be read: {printable(repr(error))}") from error
