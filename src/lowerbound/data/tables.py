"""Tables of numbers as text: CSV with commas, semicolons or tabs.

A first row with any cell that is not a number is the header; without one, columns are called
``column 0``, ``column 1``, …. Labels are the column that the caller names; else the first column
called label, labels, class, y or target, in any case, if it holds integers or text. All other
columns must be numbers and are real values, unless every cell is 0 or 1.
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
import itertools
import math
import re
import shlex
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np

from lowerbound.data.base import Rows
from lowerbound.data.values import Array, as_rows
from lowerbound.distributions.support import Support
from lowerbound.errors import printable, refuse
from lowerbound.files import MAX_FILE_BYTES

__all__ = ["LABEL_COLUMNS", "read_csv"]

LABEL_COLUMNS = ("label", "labels", "class", "y", "target")
MISSING = ("", "na", "n/a", "null", "none", "?", "-")
MAX_LINE = 2**20  # characters


@dataclass
class Table:
    """The cells of a table, row by row."""

    names: list[str]
    label: int | None  # which column may hold the labels
    values: array[float] = field(default_factory=lambda: array("d"))  # all other columns
    label_cells: list[str] = field(default_factory=list)
    lines: array[int] = field(default_factory=lambda: array("q"))  # line of the file, from 1


def read_csv(path: Path, *, labels: str | None = None, support: Support | None = None) -> Rows:
    """Examples (N, columns) from a table, and labels if a column holds them.

    Args:
        path: the file, in UTF-8.
        labels: name of the column of labels, integers or text.
        support: what the values are, if not to be detected.

    Raises:
        InputError: text, missing cells, NaN or infinity, ragged rows, or not a text file.
    """
    table = checked_table(path, labels)
    targets, class_names = table_labels(table, path, required=labels is not None)
    x = np.array(table.values).reshape(len(table.lines), -1)
    names = list(table.names)
    if targets is not None and table.label is not None:
        del names[table.label]
    elif table.label is not None:  # real numbers under a name such as y: one more column
        column = np.array([number(cell) for cell in table.label_cells], np.float64)
        x = np.insert(x, table.label, column, axis=1)
    if not names:
        raise refuse(path, "a table with columns beside the labels", "none", "add some")
    check_finite(x, names, table.lines, path)
    rows = as_rows(
        x,
        str(path),
        support=support,
        labels=targets,
        class_names=class_names,
        column_names=names,
    )
    if rows.labels is None or labels is not None or table.label is None:
        return rows
    shown, count = printable(table.names[table.label], 40), int(rows.labels.max()) + 1
    note = f"Column '{shown}' is taken as labels ({count} classes)."
    return dataclasses.replace(rows, warnings=(*rows.warnings, note))


def checked_table(path: Path, labels: str | None) -> Table:
    """The cells of a file that is neither too large, nor binary, nor badly quoted."""
    if path.stat().st_size > MAX_FILE_BYTES:
        given = f"{path.stat().st_size} bytes"
        raise refuse(path, f"a file of at most {MAX_FILE_BYTES} bytes", given, "split it")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return read_table(file, path, labels)
    except UnicodeDecodeError as error:
        given = f"byte 0x{error.object[error.start]:02x}"
        raise refuse(path, "text in UTF-8", given, "save it as UTF-8 CSV") from error
    except csv.Error as error:
        raise refuse(path, "a table", printable(error, 80), "check its quotes") from error


def read_table(file: TextIO, path: Path, labels: str | None) -> Table:
    """Every row, checked for its length; cells that are not numbers are refused by column."""
    lines = bounded_lines(file, path)
    head = []  # blank lines and the first other one: it shows the separator
    for line in lines:
        head.append(line)
        if line.strip():
            break
    reader = csv.reader(itertools.chain(head, lines), delimiter=separator(head))
    table: Table | None = None
    for row in reader:
        cells = [cell.strip() for cell in row]
        if not any(cells) and len(cells) < 2:
            continue
        if table is None:
            header = any(number(cell) is None for cell in cells)
            names = cells if header else [f"column {i}" for i in range(len(cells))]
            table = Table(names, label_column(names, path, labels))
            if header:
                continue
        add_row(table, cells, reader.line_num, path)
    if table is None or not table.lines:
        raise refuse(path, "a table with at least one row", "none", "give some data")
    return table


def bounded_lines(file: TextIO, path: Path) -> Iterator[str]:
    """The lines of a file, none of them longer than a megabyte."""
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            limit = f"a table with lines of at most {MAX_LINE} characters"
            raise refuse(path, limit, f"more in line {number}", "is it a table?")
        if "\0" in line:
            raise refuse(path, "text in UTF-8", f"a zero byte in line {number}", "save it as CSV")
        yield line


def separator(head: list[str]) -> str:
    """Whichever of tab, semicolon and comma is most frequent outside quotes.

    >>> separator(['"a,b,c";d'])
    ';'
    """
    bare = re.sub(r'"[^"]*"', "", head[-1] if head else "")
    return max("\t;,", key=bare.count) if re.search(r"[\t;,]", bare) else ","


def number(cell: str) -> float | None:
    """The value of a cell, NaN if it is missing, None if it is text; 1_000 is text."""
    try:
        return float(cell) if "_" not in cell else None
    except ValueError:
        return math.nan if cell.lower() in MISSING else None


def label_column(names: list[str], path: Path, labels: str | None) -> int | None:
    """Which column holds the labels, or may hold them."""
    twice, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise refuse(
            path,
            "a table with distinct column names",
            f"{count} of '{printable(twice, 40)}'",
            "rename one",
        )
    if labels is None:
        lower = [name.lower() for name in names]
        return next((lower.index(name) for name in LABEL_COLUMNS if name in lower), None)
    if labels not in names:
        near = difflib.get_close_matches(labels, names[:1000], 1)
        remedy = f"did you mean '{printable(near[0], 40)}'?" if near else "check the header"
        raise refuse("labels", f"a column of {printable(path, 80)}", labels, remedy)
    return names.index(labels)


def add_row(table: Table, cells: list[str], line: int, path: Path) -> None:
    """Append one row; missing cells become NaN, to be counted when all are known."""
    if len(cells) != len(table.names):
        wanted = f"a table of {len(table.names)} columns"
        raise refuse(path, wanted, f"{len(cells)} cells in line {line}", "mend that line")
    names = table.names
    if table.label is not None:
        table.label_cells.append(cells.pop(table.label))
        names = names[: table.label] + names[table.label + 1 :]
    for name, cell in zip(names, cells, strict=True):
        value = number(cell)
        if value is None:
            given = f"'{printable(cell, 30)}' in column '{printable(name, 40)}', line {line}"
            raise refuse(path, "a table of numbers", given, _remedy(table, name))
        table.values.append(value)
    table.lines.append(line)
    if len(table.values) * table.values.itemsize > MAX_FILE_BYTES:
        raise refuse(path, f"at most {MAX_FILE_BYTES} bytes of numbers", "more", "split it")


def _remedy(table: Table, name: str) -> str:
    """What to do about text: the first row tells a column of text from a stray cell."""
    if table.lines:
        return "mend or drop that row"
    shown = printable(name, 40)
    if table.label is not None:
        return f"drop the column; the labels are '{printable(table.names[table.label], 40)}'"
    return f"drop the column, or say --labels {shlex.quote(shown)} if it holds classes"


def table_labels(
    table: Table, path: Path, *, required: bool
) -> tuple[Array | None, tuple[str, ...]]:
    """Labels (N,) and, of text, the classes' names; None where the column is real numbers."""
    if table.label is None:
        return None, ()
    cells, column = table.label_cells, printable(table.names[table.label], 40)
    if all(re.fullmatch(r"[+-]?[0-9]{1,18}", cell) for cell in cells):
        return np.array(cells).astype(np.int64), ()
    numeric = all(number(cell) is not None for cell in cells)
    if numeric and not required:
        return None, ()
    missing = next((line for c, line in zip(cells, table.lines, strict=True) if not c), None)
    if missing is not None:
        given = f"an empty cell in column '{column}', line {missing}"
        raise refuse(path, "a table with a label in every row", given, "fill or drop the row")
    if numeric:
        given = f"real '{column}'"
        raise refuse("labels", "a column of integers or text", given, "choose another")
    names = sorted(set(cells))
    index = {name: i for i, name in enumerate(names)}
    return np.array([index[cell] for cell in cells]), tuple(names)


def check_finite(x: Array, names: Sequence[str], lines: Sequence[int], path: Path) -> None:
    """Refuse missing cells, NaN and infinity, with their count and the place of the first."""
    bad = ~np.isfinite(x)
    if bad.any():
        row, column = np.unravel_index(int(bad.argmax()), bad.shape)
        where = f"line {lines[int(row)]}, column '{printable(names[int(column)], 40)}'"
        given = f"{bad.sum()} missing, NaN or infinite, first in {where}"
        raise refuse(path, "a table of finite numbers", given, "fill or drop those rows")
