"""Arrays and tables that are too large to be held: rows are read, checked and converted as asked.

A ``.npy`` file is mapped into the address space. What is read of it lies in the pages of the file
cache, which the system takes back when it needs them; only the rows of a batch are copied.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import mmap
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lowerbound.data.arrays import read_header
from lowerbound.data.base import Rows
from lowerbound.data.stored import DataLimits, Reader, StoredRows, sampled_rows
from lowerbound.data.values import Array, Layout, as_rows, examples_at, labelled
from lowerbound.distributions.support import Real, Support
from lowerbound.errors import refuse

__all__ = ["MappedArray", "ValueReader", "Values", "read_values"]

ROWS_AT_ONCE = 4096


class Values(ABC):
    """Rows of numbers by their number, as they lie in a file."""

    name: str
    num_bytes: int
    """Size of all of them in memory."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of rows."""

    @abstractmethod
    def raw(self, rows: Array) -> Array:
        """The rows (B, …) at ``rows`` (B,) int64, unchecked."""

    @abstractmethod
    def header(self) -> str:
        """What can be known without reading a row: sizes and types."""


class MappedArray(Values):
    """The rows of an ``.npy`` file, without reading it.

    Raises:
        InputError: not such a file, cut off, or an array in Fortran's order.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        with open(path, "rb") as file:
            self.shape, fortran_order, self.dtype = read_header(file, self.name)
            self.start = file.tell()
            self.num_bytes = math.prod(self.shape) * self.dtype.itemsize
            if self.dtype.kind not in "biuf" or len(self.shape) < 2 or not self.num_bytes:
                given = f"shape {self.shape} of dtype {self.dtype}"
                raise refuse(path, "numbers (examples, …), one row per example", given)
            if fortran_order and len(self.shape) > 1:
                raise refuse(
                    path,
                    "in C order to be read row by row",
                    "Fortran's order",
                    "save it again as numpy.ascontiguousarray(x)",
                )
            size = os.fstat(file.fileno()).st_size - self.start
            if size != self.num_bytes:
                given, remedy = f"{size} bytes", "write or fetch it again"
                raise refuse(path, f"{self.num_bytes} bytes behind its header", given, remedy)
            self.file = os.dup(file.fileno())
        self.map = mmap.mmap(self.file, 0, access=mmap.ACCESS_READ)
        self.map.madvise(mmap.MADV_RANDOM)  # else each row drags in its neighbourhood
        flat = np.frombuffer(self.map, self.dtype, math.prod(self.shape), self.start)
        self.array = flat.reshape(self.shape)

    def __del__(self) -> None:
        if hasattr(self, "file"):
            os.close(self.file)

    def __len__(self) -> int:
        return self.shape[0]

    def raw(self, rows: Array) -> Array:
        """See `Values.raw`."""
        # Touching a page that is no longer there would kill the process, with no error to catch.
        if os.fstat(self.file).st_size < self.start + self.num_bytes:
            raise refuse(self.name, "the file it was", "a shorter one", "restore the data")
        for first, last in _runs(rows):
            self._fetch(first, last)
        taken = self.array[rows]
        return taken.view(np.uint8) != 0 if self.dtype.kind == "b" else taken

    def header(self) -> str:
        """See `Values.header`."""
        return f"npy {self.shape} {self.dtype.str}"

    def _fetch(self, first: int, last: int) -> None:
        """Ask for the pages of rows ``first`` … ``last`` − 1, without waiting for them."""
        row = self.num_bytes // self.shape[0]
        start = (self.start + first * row) // mmap.PAGESIZE * mmap.PAGESIZE
        self.map.madvise(mmap.MADV_WILLNEED, start, self.start + last * row - start)


def _runs(rows: Array) -> Iterator[tuple[int, int]]:
    """Neighbouring rows together: (first, last + 1) of each run.

    >>> list(_runs(np.array([4, 5, 6, 1])))
    [(4, 7), (1, 2)]
    """
    if not len(rows):
        return
    ends = np.flatnonzero(np.diff(rows) != 1) + 1
    edges = [0, *ends.tolist(), len(rows)]
    for a, b in itertools.pairwise(edges):
        yield int(rows[a]), int(rows[b - 1]) + 1


class ValueReader(Reader):
    """Rows of numbers as examples, each checked against the support when it is read."""

    def __init__(
        self,
        values: Values,
        event_shape: tuple[int, ...],
        support: Support,
        labels: Tensor | None,
        column_names: Sequence[str],
        content: str,
        layout: Layout = "auto",
    ) -> None:
        super().__init__(values.name, event_shape, support, labels)
        self.values, self.column_names, self.content = values, column_names, content
        self.layout = layout

    def __len__(self) -> int:
        return len(self.values)

    def read(self, rows: Tensor) -> tuple[Tensor, list[int]]:
        """See `Reader.read`; a bad row of numbers is refused, whatever is done with bad images."""
        numbers = rows.numpy()
        raw = self.values.raw(numbers)
        if not len(raw):
            return torch.empty(0, *self.event_shape), []
        how = (self.column_names, self.layout)
        return examples_at(raw, self.support, self.name, numbers, *how), []

    def digest(self) -> str:
        """The header, and SHA-256 of the rows that were looked at to tell what the values are."""
        return f"{self.values.header()} {self.content}"


def read_values(
    values: Values,
    *,
    support: Support | None,
    limits: DataLimits | None,
    labels: Array | None = None,
    class_names: tuple[str, ...] = (),
    column_names: Sequence[str] = (),
    layout: Layout = "auto",
) -> Rows | StoredRows:
    """All rows where they fit into memory, else a reader of them; without limits all of them.

    What the values of a reader are is told by seeded rows: see `lowerbound.data.values`.

    Raises:
        InputError: values that cannot be used, among those that were looked at.
    """
    name, num_rows = values.name, len(values)
    given: Any = {"labels": labels, "class_names": class_names}
    how: Any = {"support": support, "column_names": column_names, "layout": layout}
    if num_rows and (limits is None or values.num_bytes <= limits.memory_bytes):
        return as_rows(values.raw(np.arange(num_rows)), name, **how, **given)
    rows = sampled_rows(num_rows, limits.sampled_rows if limits else 1).numpy()
    digest, raws = hashlib.sha256(), []
    for first in range(0, len(rows), ROWS_AT_ONCE):
        raw = values.raw(rows[first : first + ROWS_AT_ONCE])
        numbers = rows[first : first + ROWS_AT_ONCE]
        examples_at(raw, support or Real(), name, numbers, column_names, layout)
        digest.update(np.ascontiguousarray(raw).data)
        raws.append(raw)
    some = as_rows(np.concatenate(raws), name, **how)
    indices, class_names = labelled(labels, class_names, num_rows, name)
    shape = tuple(some.x.shape[1:])
    content = digest.hexdigest()
    reader = ValueReader(values, shape, some.support, indices, column_names, content, layout)
    looked = f"The values are {some.support} by {len(rows):,} seeded rows of {num_rows:,}."
    notes = some.warnings if len(rows) == num_rows else (*some.warnings, looked)
    return StoredRows(reader, class_names, column_names=tuple(column_names), warnings=notes)
