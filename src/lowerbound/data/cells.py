"""The cells of columns as numbers, arrays or encoded images, by the number of the row.

A data set of the library ``datasets`` lies in memory or is mapped from its cache.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from lowerbound.data.decoding import BadImageError
from lowerbound.data.encoded import Encoded
from lowerbound.data.mapped import Values
from lowerbound.data.values import Array
from lowerbound.errors import refuse

__all__ = ["ArrayColumn", "ImageColumn", "NumericColumns"]


class NumericColumns(Values):
    """Numeric columns as the columns of a table, float64; missing cells are NaN."""

    def __init__(self, dataset: Any, name: str, columns: Sequence[str]) -> None:
        self.name, self.columns = name, tuple(columns)
        self.table = dataset.select_columns(list(columns)).with_format("arrow")
        self.num_bytes = 4 * len(dataset) * len(columns)  # as they are held: float32

    def __len__(self) -> int:
        return len(self.table)

    def raw(self, rows: Array) -> Array:
        """See `Values.raw`."""
        taken = self.table[rows]
        cells = [taken.column(c).cast("float64", safe=False) for c in self.columns]
        return np.stack(
            [cell.combine_chunks().to_numpy(zero_copy_only=False) for cell in cells], 1
        )

    def header(self) -> str:
        """See `Values.header`."""
        return f"columns {len(self)} {self.columns}"


class ArrayColumn(Values):
    """One column of numeric arrays, all of one shape."""

    def __init__(self, dataset: Any, name: str, column: str) -> None:
        self.name, self.column = name, column
        self.table = dataset.select_columns([column]).with_format("arrow")
        first = self.raw(np.arange(min(1, len(self.table))))
        self.shape, self.dtype = first.shape[1:], first.dtype
        self.num_bytes = len(self.table) * first.nbytes

    def __len__(self) -> int:
        return len(self.table)

    def raw(self, rows: Array) -> Array:
        """See `Values.raw`."""
        array = dense(self.table[rows].column(self.column), self.name, rows)
        if array.shape[1:] != getattr(self, "shape", array.shape[1:]):
            given = f"{array.shape[1:]} in rows {rows[0]} …"
            raise refuse(self.name, f"arrays of one shape, {self.shape}", given)
        return array

    def header(self) -> str:
        """See `Values.header`."""
        return f"arrays {len(self)} {self.shape} {self.dtype}"


def dense(column: Any, name: str, rows: Array) -> Array:
    """Lists of lists of … of numbers as one array; they must be of equal lengths."""
    import pyarrow as pa
    import pyarrow.compute as pc

    array = pa.concat_arrays(column.chunks)
    array = array.storage if isinstance(array.type, pa.ExtensionType) else array
    shape = [len(array)]
    while pa.types.is_nested(array.type):
        lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)
        ragged = lengths != lengths[0]  # a missing list is NaN, and differs from itself
        if ragged.any():
            row = rows[int(ragged.argmax()) * len(rows) // len(lengths)]
            remedy = "pad or crop them"
            raise refuse(name, "arrays of one shape", f"another length in row {row}", remedy)
        shape.append(int(lengths[0]))
        array = array.flatten()
    flat: Array = array.to_numpy(zero_copy_only=False)
    return flat.reshape(shape)


class ImageColumn(Encoded):
    """Images that are the cells of a column.

    Args:
        dataset: the data set.
        name: what to call it in an error.
        column: which column.
        files: whether a cell may name a file in place of holding bytes.
    """

    def __init__(self, dataset: Any, name: str, column: str, *, files: bool) -> None:
        import pyarrow.compute as pc

        self.source, self.column, self.files = name, column, files
        self.table = dataset.select_columns([column]).with_format("arrow")
        cells = dataset.data.column(column)
        content = pc.struct_field(cells, "bytes") if _is_struct(cells) else cells
        self.sizes = pc.binary_length(content).fill_null(0).to_numpy()

    def __len__(self) -> int:
        return len(self.table)

    def name(self, index: int) -> str:
        """The number of the row."""
        return f"row {index}"

    def num_bytes(self, index: int) -> int:
        """Length of the cell."""
        return int(self.sizes[index])

    def open(self, index: int) -> IO[bytes]:
        """See `Encoded.open`."""
        cell = self.table[[index]].column(self.column)[0].as_py()
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if content:
            return io.BytesIO(content)
        path = cell.get("path") if isinstance(cell, dict) and self.files else None
        if not path or not Path(path).is_file():
            raise BadImageError("empty")
        return open(path, "rb")


def _is_struct(column: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_struct(column.type))
