"""The promise of data: a `Source` of three splits, each giving batches by index.

Data in memory stay as they came (uint8 levels stay uint8) and are scaled by the model. A batch
is an index selection, so that a data set which fits on the device never crosses to it twice; one
that stays on a disk (`lowerbound.data.stored`) makes the same promise and reads when it is asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, overload

import torch
from torch import Tensor

from lowerbound._random import generator_for, permutation
from lowerbound._shapes import shown_shape
from lowerbound.data.contexts import Classes, Context, Vector
from lowerbound.distributions.support import Binary, Discrete, Support
from lowerbound.errors import refuse

__all__ = [
    "Classes",
    "InMemorySplit",
    "Rows",
    "Source",
    "Split",
    "make_source",
    "split_rows",
    "will_binarize",
]

MIN_EXAMPLES = 10


class Split(Protocol):
    """A part of the data: a length, and batches by index."""

    @property
    def in_memory(self) -> bool:
        """Whether there is an ``x``: every example as one tensor."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Tensor | slice) -> tuple[Tensor, Tensor | None]:
        """The examples (B, *event) at ``indices`` and their context (B, …), or None: fixed."""
        ...

    @property
    def x(self) -> Tensor:
        """Every example (N, *event), in memory; a split on a disk has none and says so."""
        ...

    @property
    def labels(self) -> Tensor | None:
        """Class indices (N,), or None."""
        ...

    @property
    def is_random(self) -> bool:
        """Whether `draw` draws: it gives other examples than ``[indices]`` does."""
        ...

    def draw(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """As ``[indices]``, but with fresh randomness where the data have any (binarisation)."""
        ...

    def take(self, indices: Tensor) -> Split:
        """The examples at ``indices`` (B,) as a split of their own, without randomness."""
        ...

    def to(self, device: torch.device | str) -> Split:
        """The same split, giving its tensors on ``device``."""
        ...


@dataclass(frozen=True)
class InMemorySplit:
    """A split held as tensors.

    Args:
        x: examples (N, *event) in the units of the source: levels, 0/1, or floats.
        labels: class indices (N,) or None; in their place any context (N, …), such as vectors.
        intensities: grey levels (N, *event) from 0 to ``top`` where ``x`` is one binarisation of
            them and training draws a new one each time (dynamic binarisation); None elsewhere.
        top: the level that is always 1.
    """

    x: Tensor
    labels: Tensor | None = None
    intensities: Tensor | None = None
    top: int = 255
    in_memory: ClassVar[bool] = True

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, indices: Tensor | slice) -> tuple[Tensor, Tensor | None]:
        return rows_of(self.x, indices), rows_of(self.labels, indices)

    @property
    def is_random(self) -> bool:
        """Whether training binarises anew."""
        return self.intensities is not None

    def draw(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """A batch; dynamically binarised data are binarised afresh by ``generator``."""
        if self.intensities is None:
            return self[indices]
        x = binarize(rows_of(self.intensities, indices), self.top, generator)
        return x, rows_of(self.labels, indices)

    def take(self, indices: Tensor) -> InMemorySplit:
        """The examples at ``indices`` (B,) as a split of their own."""
        return InMemorySplit(*self[indices])

    def to(self, device: torch.device | str) -> InMemorySplit:
        """The same split on ``device`` (no copy where it is there already)."""
        tensors = (self.x, self.labels, self.intensities)
        x, labels, intensities = (None if t is None else t.to(device) for t in tensors)
        assert x is not None
        return InMemorySplit(x, labels, intensities, self.top)


@overload
def rows_of(values: Tensor, indices: Tensor | slice) -> Tensor: ...
@overload
def rows_of(values: None, indices: Tensor | slice) -> None: ...
@overload
def rows_of(values: Tensor | None, indices: Tensor | slice) -> Tensor | None: ...
def rows_of(values: Tensor | None, indices: Tensor | slice) -> Tensor | None:
    """``values[indices]``: by index_select, which copies whole rows and is ten times as fast."""
    if values is None or isinstance(indices, slice) or indices.dtype == torch.bool:
        return None if values is None else values[indices]
    return values.index_select(0, indices)


def binarize(intensities: Tensor, top: int, generator: torch.Generator) -> Tensor:
    """One exact Bernoulli draw per pixel: P(1) = intensity / top, as uint8.

    An integer r uniform on 0 … top − 1 is below v with probability v / top: no float is needed.
    """
    r = torch.empty_like(intensities).random_(0, top, generator=generator)
    return (r < intensities).to(torch.uint8)


@dataclass(frozen=True)
class Rows:
    """What a reader returns: every example in the order of the file, before any split.

    Args:
        x: examples (N, *event) as they came.
        support: what values an element can take.
        labels: class indices (N,), vectors of floats (N, E), or None.
        class_names: a name per class, where the source has names.
        num_test: how many of the last rows are the standard test set; 0 where there is none.
        num_validation: how many of the others are set aside; None for a tenth of all rows.
        column_names: of a table.
        warnings: what a person should know, a sentence each.
        has_validation: the examples set aside are those just before the test set, not drawn.
    """

    x: Tensor
    support: Support
    name: str
    labels: Tensor | None = None
    class_names: tuple[str, ...] = ()
    num_test: int = 0
    num_validation: int | None = None
    column_names: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    has_validation: bool = False


@dataclass(frozen=True)
class Source:
    """Data to train on and to be judged by.

    Args:
        train: the examples that are learned from.
        validation: those that choose between models and stop training.
        test: those that only judge.
        event_shape: shape of one example; an image is (channels, height, width).
        support: what values an element can take.
        context: what a conditional model can be given: `Classes`, `Vector`, `Mask`, or None.
        name: the specification it was loaded from.
        fingerprint: SHA-256 of the examples and labels; a resumed run must find the same.
        preparation: how it was loaded, by the names that config.yaml has for it.
    """

    train: Split
    validation: Split
    test: Split
    event_shape: tuple[int, ...]
    support: Support
    context: Context | None = None
    name: str = "data"
    column_names: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    fingerprint: str = field(default="", repr=False)
    preparation: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def split(self, name: str) -> Split:
        """The split called train, validation or test."""
        if name not in ("train", "validation", "test"):
            raise refuse("split", "train, validation or test", name)
        split: Split = getattr(self, name)
        return split


def will_binarize(support: Support, how: str) -> bool:
    """Whether data of a support are to be binarised; those that are binary are left alone.

    Raises:
        InputError: no such way, or values that are no levels.
    """
    if how == "none":
        return False
    if how not in ("dynamic", "static", "threshold"):
        raise refuse("binarize", "dynamic, static, threshold or none", how)
    if isinstance(support, Binary):
        return False
    if not isinstance(support, Discrete):
        raise refuse(
            "binarize",
            "none for real-valued data",
            how,
            "leave --binarize out, or give 8-bit data",
        )
    return True


def binarized(rows: Rows, how: str, seed: int) -> tuple[Rows, Tensor | None]:
    """Rows with binary x by ``how``, and the grey levels where training draws its own."""
    if not will_binarize(rows.support, how):
        return rows, None
    assert isinstance(rows.support, Discrete)
    top = rows.support.levels - 1
    if how == "threshold":
        x, drawn = (rows.x > top / 2).to(torch.uint8), None
    else:
        x = binarize(rows.x, top, generator_for("binarize", seed))
        drawn = rows.x if how == "dynamic" else None
    kept = {k: v for k, v in rows.__dict__.items() if k not in ("x", "support")}
    return Rows(x=x, support=Binary(), **kept), drawn


def fingerprint(rows: Rows) -> str:
    """SHA-256 of the examples and their labels, read in place."""
    digest = hashlib.sha256(f"{rows.support} {tuple(rows.x.shape)}".encode())
    for tensor in (rows.x, rows.labels):
        if tensor is not None:
            digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def split_rows(
    n: int,
    name: str,
    seed: int,
    *,
    num_test: int = 0,
    num_validation: int | None = None,
    has_validation: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Which of ``n`` rows train, validate and test: three rising int64 tensors, by ``seed`` alone.

    Arguments as those of `Rows`. Without a test set a seeded 80/10/10 is drawn.

    Raises:
        InputError: fewer than ten examples to be split.
    """
    num_split = n - num_test
    if num_split < MIN_EXAMPLES:
        raise refuse(
            name,
            f"data of at least {MIN_EXAMPLES} examples to be split for training and judging",
            f"{num_split} example{'s' if num_split != 1 else ''}",
            "give more data",
        )
    if has_validation:
        first = num_split - (num_validation or 0)
        return torch.arange(first), torch.arange(first, num_split), torch.arange(num_split, n)
    if num_test:
        order = permutation(num_split, "split", seed)
        num_validation = num_validation or num_split // 10
        test = torch.arange(num_split, n)
    else:
        order = permutation(n, "split", seed)
        num_validation = n // 10
        test, order = order[:num_validation], order[num_validation:]
    validation, train = order[:num_validation], order[num_validation:]
    return train.sort().values, validation.sort().values, test.sort().values


def _context_of(rows: Rows) -> Context | None:
    """What the labels of ``rows`` are to a conditional model."""
    if rows.labels is None:
        return None
    if not rows.labels.is_floating_point():
        return Classes(len(rows.class_names) or int(rows.labels.max()) + 1, rows.class_names)
    if rows.labels.ndim != 2 or not rows.labels.isfinite().all():
        required = "integers (N,), or finite vectors (N, E)"
        raise refuse("labels", required, f"{rows.labels.dtype}, {shown_shape(rows.labels.shape)}")
    return Vector(rows.labels.shape[1])


def make_source(rows: Rows, *, how_binarize: str = "none", seed: int = 0) -> Source:
    """Split rows into train, validation and test, by ``seed`` alone.

    The standard test set is kept where there is one; else a seeded 80/10/10 is drawn.

    Raises:
        InputError: fewer than ten examples.
    """
    train, validation, test = split_rows(
        len(rows.x),
        rows.name,
        seed,
        num_test=rows.num_test,
        num_validation=rows.num_validation,
        has_validation=rows.has_validation,
    )
    top = rows.support.levels - 1 if isinstance(rows.support, Discrete) else 1
    rows, intensities = binarized(rows, how_binarize, seed)

    def part(indices: Tensor, keep_intensities: bool = False) -> InMemorySplit:
        return InMemorySplit(
            rows.x[indices],
            None if rows.labels is None else rows.labels[indices],
            intensities[indices] if keep_intensities and intensities is not None else None,
            top,
        )

    return Source(
        train=part(train, keep_intensities=True),
        validation=part(validation),
        test=part(test),
        event_shape=tuple(rows.x.shape[1:]),
        support=rows.support,
        context=_context_of(rows),
        name=rows.name,
        column_names=rows.column_names,
        warnings=rows.warnings,
        fingerprint=fingerprint(rows),
    )
