"""Parquet files and data sets of the hub: columns, by way of the optional library ``datasets``.

One column of images, or of arrays of one shape, is the data; else all numeric columns are, as in a
``.csv`` file. Labels are the column that the caller names; else one called label, labels, class, y
or target, in any case, or the only column of classes. What memory cannot hold the library maps
from its cache, so that each row has its number.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lowerbound.data.base import Rows
from lowerbound.data.cells import ArrayColumn, ImageColumn, NumericColumns
from lowerbound.data.decoding import ImageSize
from lowerbound.data.images import read_images
from lowerbound.data.mapped import Values, read_values
from lowerbound.data.stored import DataLimits, StoredRows
from lowerbound.data.tables import LABEL_COLUMNS
from lowerbound.data.values import Array, Layout
from lowerbound.distributions.support import Support
from lowerbound.errors import printable, refuse

__all__ = ["Reading", "Roles", "read_columns"]


@dataclass(frozen=True)
class Roles:
    """What the columns of a data set are.

    Args:
        label: the column of labels, or None.
        images: the column of images, or None.
        array: the column of arrays, or None.
        numbers: otherwise the numeric columns.
        unused: the others.
    """

    label: str | None
    images: str | None
    array: str | None
    numbers: tuple[str, ...]
    unused: tuple[str, ...]


def kind_of(feature: Any) -> str:
    """What a column holds: image, array, number, class, integer, text, or other."""
    import datasets

    if isinstance(feature, datasets.ClassLabel):
        return "class"
    if isinstance(feature, datasets.Image):
        return "image"
    if isinstance(feature, dict):  # as the library stores images, where nobody called it one
        return "image" if set(feature) == {"bytes", "path"} else "other"
    if isinstance(feature, datasets.Value):
        dtype = feature.dtype
        if dtype in ("binary", "large_binary"):
            return "image"
        if dtype in ("string", "large_string", "string_view"):
            return "text"
        if dtype.startswith(("int", "uint")):
            return "integer"
        return "number" if dtype.startswith(("float", "double", "bool", "decimal")) else "other"
    while hasattr(feature, "feature"):  # lists of lists of …
        feature = feature.feature
    leaf = str(getattr(feature, "dtype", ""))
    return "array" if leaf.startswith(("int", "uint", "float", "double", "bool")) else "other"


def roles_of(features: Any, name: str, labels: str | None) -> Roles:
    """Which columns are data and which one is labels.

    Raises:
        InputError: no column of that name, none of data, or several that cannot go together.
    """
    kinds = {column: kind_of(feature) for column, feature in features.items()}
    label = label_of(kinds, name, labels)
    others = {c: kind for c, kind in kinds.items() if c != label}
    found = {k: [c for c in others if others[c] == k] for k in ("image", "array")}
    for kind, columns in found.items():
        if len(columns) > 1:
            shown = printable(", ".join(columns), 80)
            raise refuse(name, f"data of one column of {kind}s", shown, "keep one of them")
    images, array = (next(iter(found[k]), None) for k in ("image", "array"))
    numbers = tuple(c for c in others if others[c] in ("number", "integer", "class"))
    if images is not None or array is not None:
        array = array if images is None else None
        unused = tuple(c for c in others if c not in (images, array))
        return Roles(label, images, array, (), unused)
    for column, kind in others.items():
        if column not in numbers:
            given = f"{kind} in column '{printable(column, 40)}'"
            raise refuse(name, "a table of numbers", given, "drop the column, or say --labels")
    if not numbers:
        raise refuse(name, "a table with columns beside the labels", "none", "add some")
    return Roles(label, None, None, numbers, ())


def label_of(kinds: dict[str, str], name: str, labels: str | None) -> str | None:
    """The column of labels."""
    able = [c for c, kind in kinds.items() if kind in ("class", "integer", "text")]
    if labels is not None and labels not in kinds:
        near = difflib.get_close_matches(labels, list(kinds)[:1000], 1)
        remedy = f"did you mean '{printable(near[0], 40)}'?" if near else "check the columns"
        raise refuse("labels", f"a column of {printable(name, 80)}", labels, remedy)
    if labels is not None and labels not in able:
        given = f"{kinds[labels]} '{printable(labels, 40)}'"
        raise refuse("labels", "a column of integers or text", given, "choose another")
    if labels is not None:
        return labels
    lower = {c.lower(): c for c in able}
    named = [lower[n] for n in LABEL_COLUMNS if n in lower]
    classes = [c for c in able if kinds[c] == "class"]
    return named[0] if named else classes[0] if len(classes) == 1 else None


def label_array(dataset: Any, column: str, name: str) -> tuple[Array, tuple[str, ...]]:
    """Labels (N,), integers or text, and the names of classes where the data set has them."""
    cells = dataset.select_columns([column]).with_format("arrow")[:].column(column)
    if cells.null_count:
        raise refuse(name, "data with a label in every row", "an empty one", "fill or drop it")
    names = tuple(getattr(dataset.features[column], "names", None) or ())
    if kind_of(dataset.features[column]) == "text":
        return np.array(cells.to_pylist()), ()
    array = cells.to_numpy().astype(np.int64)
    if names and not (0 <= array.min() and array.max() < len(names)):
        given = f"values from {array.min()} to {array.max()} in '{printable(column, 40)}'"
        remedy = "choose another column with --labels"
        raise refuse("labels", f"indices of {len(names)} classes", given, remedy)
    return array, names


@dataclass(frozen=True)
class Reading:
    """What the caller says of how columns are to be read.

    Args:
        labels: the column of labels, if not to be found.
        image_size: to which images are resized.
        on_bad: error or skip, for bad images.
        support: what the values are, if not to be detected.
        limits: what may be held in memory.
        files: whether images may be files that a cell names.
        layout: how the axes of arrays are read.
    """

    labels: str | None = None
    image_size: ImageSize | None = None
    on_bad: str = "error"
    support: Support | None = None
    limits: DataLimits | None = None
    files: bool = False
    layout: Layout = "auto"


def read_columns(
    dataset: Any, name: str, how: Reading, held_out: tuple[int, int] = (0, 0)
) -> Rows | StoredRows:
    """A data set of columns as examples.

    Args:
        dataset: of the library ``datasets``.
        name: what to call it in an error.
        how: what the caller says.
        held_out: how many of the last rows are the data's own validation and test sets.

    Raises:
        InputError: no data among the columns, or as `read_folder` and `read_csv`.
    """
    if not len(dataset):
        raise refuse(name, "data with at least one row", "none", "give some data")
    roles = roles_of(dataset.features, name, how.labels)
    targets = (None, ()) if roles.label is None else label_array(dataset, roles.label, name)
    kept: Sequence[int]
    if roles.images is None:
        rows, kept = value_rows(dataset, name, roles, how, *targets), range(len(dataset))
    else:
        rows, kept = image_rows(dataset, name, roles.images, how, *targets)
    notes = list(rows.warnings)
    if roles.unused:
        notes.append(f"Columns that are not used: {printable(', '.join(roles.unused), 80)}.")
    if roles.label is not None and how.labels is None:
        notes.append(f"Column '{printable(roles.label, 40)}' is taken as labels.")
    validation, test = still_held_out(kept, len(dataset), *held_out)
    return replace(
        rows,
        warnings=tuple(notes),
        num_test=test,
        num_validation=validation or None,
        has_validation=bool(validation),
    )


def image_rows(
    dataset: Any,
    name: str,
    column: str,
    how: Reading,
    targets: Array | None,
    class_names: tuple[str, ...],
) -> tuple[Rows | StoredRows, Sequence[int]]:
    """The images of a column, and which rows are kept."""
    every: list[int] = []

    def labels_of(kept: list[int]) -> tuple[Array | None, tuple[str, ...]]:
        every.extend(kept)
        return (None if targets is None else targets[kept]), class_names

    rows = read_images(
        ImageColumn(dataset, name, column, files=how.files),
        labels_of,
        image_size=how.image_size,
        on_bad=how.on_bad,
        support=how.support,
        limits=how.limits,
    )
    return rows, every


def value_rows(
    dataset: Any,
    name: str,
    roles: Roles,
    how: Reading,
    targets: Array | None,
    class_names: tuple[str, ...],
) -> Rows | StoredRows:
    """The arrays of a column, or the numeric columns as a table."""
    if how.image_size is not None:
        raise refuse("image_size", "left out unless data are images", how.image_size)
    values: Values = (
        NumericColumns(dataset, name, roles.numbers)
        if roles.array is None
        else ArrayColumn(dataset, name, roles.array)
    )
    return read_values(
        values,
        support=how.support,
        limits=how.limits,
        labels=targets,
        class_names=class_names,
        column_names=roles.numbers,
        layout=how.layout,
    )


def still_held_out(
    kept: Sequence[int], num_rows: int, validation: int, test: int
) -> tuple[int, int]:
    """How many of the last ``validation`` and ``test`` rows are among those that are kept.

    >>> still_held_out([0, 1, 3, 4, 6], num_rows=7, validation=2, test=2)
    (2, 1)
    """
    in_test = sum(index >= num_rows - test for index in kept)
    held = sum(index >= num_rows - test - validation for index in kept)
    return held - in_test, in_test
