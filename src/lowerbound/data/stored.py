"""Data that stay on a disk: the promise of a `Split`, kept by reading rows as they are asked for.

Such data are read through an index and never as a stream. An example has a number, so that the
order of an epoch, the place where a run is resumed and the share of each device stay functions of
two integers, whatever the data are and wherever they lie.

Before the first step some seeded rows are looked at; every row is checked when it is read.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from lowerbound._random import generator_for
from lowerbound.data.base import (
    Rows,
    Source,
    binarize,
    make_source,
    rows_of,
    split_rows,
    will_binarize,
)
from lowerbound.data.contexts import Classes
from lowerbound.distributions.support import Binary, Discrete, Support
from lowerbound.errors import InputError, printable, refuse

__all__ = [
    "DataLimits",
    "NotInMemoryError",
    "Reader",
    "StoredRows",
    "StoredSplit",
    "replaced_examples",
    "sampled_rows",
    "source_from",
]

MAX_NEIGHBOURS = 100
NUM_SHOWN = 3
CPU = torch.device("cpu")


@dataclass(frozen=True)
class DataLimits:
    """What may be held in memory, and how hard to read.

    Args:
        memory_bytes: data of more than so many bytes, decoded, stay on the disk.
        sampled_rows: so many seeded rows tell what the values of such data are.
        threads: images are decoded in so many at a time; by default as many as there are
            processors, at most 8.
    """

    memory_bytes: int = 2**30
    sampled_rows: int = 10_000
    threads: int = field(default_factory=lambda: min(8, os.cpu_count() or 1))

    def __post_init__(self) -> None:
        for name in ("sampled_rows", "threads"):
            if getattr(self, name) < 1:
                raise refuse(name, "at least 1", getattr(self, name))


class NotInMemoryError(InputError, AttributeError):
    """Every example at once was asked of data that stay on a disk (exit code 2)."""


class Reader(ABC):
    """Examples by their number in a file or a folder; safe to be used by several threads.

    Args:
        name: what to call the data in an error.
        event_shape: shape of one example.
        support: what values an element can take; `read` checks every one of them.
        labels: class indices (N,), in memory, or None.
    """

    def __init__(
        self,
        name: str,
        event_shape: tuple[int, ...],
        support: Support,
        labels: Tensor | None = None,
    ) -> None:
        self.name, self.event_shape = name, event_shape
        self.support, self.labels = support, labels
        self.bad: dict[int, str] = {}
        """Why rows that were found bad while they were read cannot be used, by their number."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of examples."""

    @abstractmethod
    def read(self, rows: Tensor) -> tuple[Tensor, list[int]]:
        """Examples (B, *event) at ``rows`` (B,), and the positions in it of unusable ones.

        Raises:
            InputError: a row that cannot be used, where bad ones are not to be skipped.
        """

    @abstractmethod
    def digest(self) -> str:
        """A hash of what tells these data from others: sizes, and seeded samples of the bytes."""

    def shown(self, row: int) -> str:
        """How a sentence calls a row."""
        return f"row {row}"


@dataclass(frozen=True)
class StoredRows:
    """What a reader of data beyond memory returns; the other fields are those of `Rows`."""

    reader: Reader
    class_names: tuple[str, ...] = ()
    num_test: int = 0
    num_validation: int | None = None
    column_names: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    has_validation: bool = False


@dataclass(frozen=True)
class StoredSplit:
    """A split whose examples are read when they are asked for.

    Args:
        reader: where they are.
        rows: their numbers there, (N,) int64.
        binarization: none, threshold, static or dynamic. A fixed draw of an example is a function
            of (seed, its number).
        seed: of the fixed draws.
        is_random: `draw` binarises anew.
        device: where examples are given; the reading itself is done on the CPU.
    """

    reader: Reader
    rows: Tensor
    binarization: str = "none"
    seed: int = 0
    is_random: bool = False
    device: torch.device = CPU
    in_memory: ClassVar[bool] = False

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, indices: Tensor | slice) -> tuple[Tensor, Tensor | None]:
        x, rows = self._read(indices)
        return self._on_device(self._binarized(x, rows)), self._labels_of(rows)

    @property
    def x(self) -> Tensor:
        """Refused: the examples are not in memory, and ``hasattr(split, "x")`` is False.

        Raises:
            NotInMemoryError: always.
        """
        raise NotInMemoryError(
            f"'{printable(self.reader.name)}' is read from the disk and has no x; "
            "index the split, a batch at a time"
        )

    @property
    def labels(self) -> Tensor | None:
        """Class indices (N,), or None: these are in memory."""
        return rows_of(self.reader.labels, self.rows)

    def draw(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """A batch; dynamically binarised data are binarised afresh by ``generator``."""
        if not self.is_random:
            return self[indices]
        x, rows = self._read(indices)
        return binarize(self._on_device(x), self._top, generator), self._labels_of(rows)

    def take(self, indices: Tensor) -> StoredSplit:
        """The examples at ``indices`` (B,) as a split of their own."""
        rows = self.rows[indices.to(self.rows.device)]
        return StoredSplit(self.reader, rows, self.binarization, self.seed, False, self.device)

    def to(self, device: torch.device | str) -> StoredSplit:
        """The same split, giving its tensors on ``device``."""
        args = (self.reader, self.rows, self.binarization, self.seed, self.is_random)
        return StoredSplit(*args, torch.device(device))

    @property
    def _top(self) -> int:
        assert isinstance(self.reader.support, Discrete)
        return self.reader.support.levels - 1

    def _read(self, indices: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Examples as they lie on the disk, (B, *event), and their numbers there, (B,)."""
        if isinstance(indices, slice):
            indices = torch.arange(*indices.indices(len(self)))
        indices = indices.cpu()
        if indices.dtype == torch.bool:
            indices = indices.nonzero().squeeze(1)
        rows = self.rows[indices]
        x, bad = self.reader.read(rows)
        for position in bad:
            x[position], rows[position] = self._neighbour(int(indices[position]))
        return x, rows

    def _neighbour(self, index: int) -> tuple[Tensor, int]:
        """The next good example after ``index`` in this split, so that no split sees another's."""
        for step in range(1, min(MAX_NEIGHBOURS, len(self)) + 1):
            row = self.rows[(index + step) % len(self)]
            x, bad = self.reader.read(row.unsqueeze(0))
            if not bad:
                return x[0], int(row)
        shown = self.reader.shown(int(self.rows[index]))
        given = f"{MAX_NEIGHBOURS} bad ones in a row after {shown}"
        raise refuse(self.reader.name, "data of good examples", given, "restore the data")

    def _binarized(self, x: Tensor, rows: Tensor) -> Tensor:
        if self.binarization == "none":
            return x
        if self.binarization == "threshold":
            return (x > self._top / 2).to(torch.uint8)
        drawn = torch.empty(x.shape, dtype=torch.uint8)
        for one, levels, row in zip(drawn, x, rows.tolist(), strict=True):
            one.copy_(binarize(levels, self._top, generator_for("binarize", self.seed, row)))
        return drawn

    def _on_device(self, x: Tensor) -> Tensor:
        if self.device.type != "cuda":
            return x.to(self.device)
        return x.pin_memory().to(self.device, non_blocking=True)  # beside what is computed there

    def _labels_of(self, rows: Tensor) -> Tensor | None:
        labels = rows_of(self.reader.labels, rows)
        return None if labels is None else labels.to(self.device)


def sampled_rows(num_rows: int, count: int) -> Tensor:
    """About ``count`` seeded rows of ``num_rows``, rising, the first and the last among them.

    >>> sampled_rows(5, 10)
    tensor([0, 1, 2, 3, 4])
    """
    if num_rows <= count:
        return torch.arange(num_rows)
    drawn = torch.randint(num_rows, (count,), generator=generator_for("sampled rows", num_rows))
    drawn[0], drawn[-1] = 0, num_rows - 1
    return drawn.unique()


def source_from(rows: Rows | StoredRows, name: str, how_binarize: str, seed: int) -> Source:
    """As `make_source`, of data in memory or on a disk.

    Raises:
        InputError: fewer than ten examples, or data that cannot be binarised.
    """
    if isinstance(rows, Rows):
        return make_source(rows, how_binarize=how_binarize, seed=seed)
    reader = rows.reader
    how = how_binarize if will_binarize(reader.support, how_binarize) else "none"
    train, validation, test = (
        StoredSplit(reader, indices, how, seed)
        for indices in split_rows(
            len(reader),
            name,
            seed,
            num_test=rows.num_test,
            num_validation=rows.num_validation,
            has_validation=rows.has_validation,
        )
    )
    labels = reader.labels
    num_classes = 0 if labels is None else len(rows.class_names) or int(labels.max()) + 1
    note = f"{len(reader):,} examples are read from the disk; what is measured of the training set"
    return Source(
        train=StoredSplit(reader, train.rows, how, seed, is_random=how == "dynamic"),
        validation=validation,
        test=test,
        event_shape=reader.event_shape,
        support=reader.support if how == "none" else Binary(),
        context=Classes(num_classes, rows.class_names) if num_classes else None,
        name=name,
        column_names=rows.column_names,
        warnings=(*rows.warnings, f"{note}, or fitted to it in closed form, sees seeded rows."),
        fingerprint=_fingerprint(reader, how, seed),
    )


def _fingerprint(reader: Reader, how: str, seed: int) -> str:
    """SHA-256 of what is known of the data without reading them all, and of every label."""
    drawn = f"{how} {seed}" if how in ("static", "dynamic") else how
    known = f"{reader.support} {len(reader)} {reader.event_shape} {drawn} {reader.digest()}"
    digest = hashlib.sha256(known.encode())
    if reader.labels is not None:
        digest.update(reader.labels.contiguous().numpy().data)
    return digest.hexdigest()


def replaced_examples(source: Source) -> list[str]:
    """A sentence about the examples that went bad after loading and were replaced, if any did."""
    split = getattr(source.train, "inner", source.train)
    if not isinstance(split, StoredSplit):
        return []
    reader = split.reader
    bad = list(reader.bad.items())
    if not bad:
        return []
    shown = ", ".join(f"{reader.shown(row)} ({reason})" for row, reason in bad[:NUM_SHOWN])
    more = ", …" if len(bad) > NUM_SHOWN else ""
    return [f"Replaced {len(bad)} examples that went bad by their neighbours: {shown}{more}."]
