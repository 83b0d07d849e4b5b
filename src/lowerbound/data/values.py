"""From an array as it lies in a file to `Rows`: layout, support and labels.

Layout. The first axis counts examples. N×D are vectors; N×H×W are grey images and become
N×1×H×W; N×H×W×C and N×C×H×W with C = 1, 3 or 4 are images and become N×C×H×W (where both
readings are possible, the one with square images is taken, else channels first); any other
array keeps its axes. With the layout "arrays" every array keeps its axes, channels first: N×C×L
are sequences, N×C×H×W images, N×C×D×H×W volumes; N×D are vectors still.

Support, in this order: what the caller says, checked against the values; `Binary` where all
values are 0 or 1, of whatever type; `Discrete(256)` for uint8; `Discrete(max + 1)` for other
integers from 0 to 255; else `Real`. `Counts`, `Unit` and a `Product` are never detected: only the
caller can tell counts from levels, and shares from real numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lowerbound._shapes import shown_shape
from lowerbound.data.base import Rows
from lowerbound.distributions.support import (
    Binary,
    Counts,
    Discrete,
    Product,
    Real,
    Support,
    Unit,
)
from lowerbound.errors import InputError, printable, refuse

__all__ = ["Array", "Layout", "as_rows", "class_indices", "column_name", "examples_at", "labelled"]

Array = NDArray[Any]
Layout = Literal["auto", "arrays"]

MAX_FLOAT32 = float(np.finfo(np.float32).max)
MAX_COUNT = 2**24  # up to here a 32-bit float holds every integer
CHANNELS = (1, 3, 4)
MAX_SPELLED = 12  # columns of a table whose supports are spelled out in a sentence
MAX_UNEVEN = 4  # times as wide as high, or more, is a strange image


def as_rows(
    array: Array,
    name: str,
    *,
    support: Support | None = None,
    default: Support | None = None,
    labels: Array | None = None,
    class_names: tuple[str, ...] = (),
    column_names: Sequence[str] = (),
    layout: Layout = "auto",
) -> Rows:
    """Check an array (N, …) and lay it out as the examples (N, *event) of a source.

    Args:
        array: booleans, integers or floats; N is at least 1.
        name: what to call the data in an error.
        support: what the caller says that the values are; None to detect it.
        default: what to take in place of detection.
        labels: N integers or strings, or None.
        class_names: what the labels mean, where they are already its indices.
        column_names: of a table; empty where columns have numbers only.
        layout: how axes are read, by the rule at the top of this file.

    Returns:
        Rows whose ``x`` is a contiguous uint8 (Binary, up to 256 levels) or float32 tensor.

    Raises:
        InputError: another type of value, no values, NaN or infinity, or values that do not fit.
    """
    check_array(array, name, column_names)
    x = laid_out(array, layout)
    warnings = possible_sequences(array.shape[1:]) if layout == "auto" else []
    chosen = support or default or detected(x, warnings)
    x = converted(x, chosen, name, column_names)
    if isinstance(chosen, Real | Unit | Counts | Product) and x.ndim == 2:
        warnings += constant_columns(x, column_names)
    if support is None and default is None:
        warnings += possible_counts(array, chosen, column_names)
    if chosen == Discrete(256) and x.max() == 255 and ((x == 0) | (x == 255)).all():
        warnings.append("All values are 0 or 255: --binarize threshold makes the data binary.")
    indices, class_names = labelled(labels, class_names, len(x), name)
    return Rows(
        x=torch.from_numpy(np.require(x, requirements=["C", "W"])),
        support=chosen,
        name=name,
        labels=indices,
        class_names=class_names,
        column_names=tuple(column_names),
        warnings=tuple(warnings),
    )


def examples_at(
    array: Array,
    support: Support,
    name: str,
    rows: Array,
    column_names: Sequence[str] = (),
    layout: Layout = "auto",
) -> torch.Tensor:
    """Some rows of a file as examples (B, *event); a bad one is refused by its number there.

    Args:
        array: the rows as they lie in the file, (B, …).
        support: what every value must be.
        name: what to call the file in an error.
        rows: the numbers of the rows, (B,).
        column_names: of a table.
        layout: how axes are read.

    Raises:
        InputError: a value that is not finite, or not in the support.
    """
    try:
        check_array(array, name, column_names)
        x = converted(laid_out(array, layout), support, name, column_names)
    except InputError:
        if len(array) == 1:
            low, high = array.min(), array.max()
            given = f"values from {low:g} to {high:g} in row {rows[0]} (counted from 0)"
            remedy = "mend that row, or say another --support"
            raise refuse(name, f"{support} data in every row", given, remedy) from None
        for i in range(len(array)):
            examples_at(array[i : i + 1], support, name, rows[i : i + 1], column_names, layout)
        raise
    return torch.from_numpy(np.require(x, requirements=["C", "W"]))


def column_name(index: int, names: Sequence[str] = ()) -> str:
    """How a message calls a column: by its name, else by its number, counted from 0.

    >>> column_name(1, ["age", "height"]), column_name(3)
    ("'height'", '3')
    """
    return f"'{names[index]}'" if names else str(index)


def check_array(array: Array, name: str, column_names: Sequence[str]) -> None:
    """Refuse what is not an array of finite numbers that fit 32 bits, with an example axis."""
    if array.dtype.kind not in "biuf":
        raise refuse(
            name, "booleans, integers or floats", f"dtype {array.dtype}", "convert it first"
        )
    if array.ndim < 2 or array.size == 0:
        raise refuse(
            name,
            "an array (examples, …) of at least one example",
            f"shape ({', '.join(map(str, array.shape))})",
            "one row is one example",
        )
    if array.dtype.kind == "f":
        bad, what = ~np.isfinite(array), "finite (no NaN, no infinity)"
        if not bad.any() and array.dtype.itemsize > 4:
            bad, what = np.abs(array) > MAX_FLOAT32, "within the range of 32-bit floats"
        if bad.any():
            row, *rest = (int(i) for i in np.unravel_index(bad.argmax(), bad.shape))
            where = (
                f"column {column_name(rest[0], column_names)}" if len(rest) == 1 else f"at {rest}"
            )
            given = f"{bad.sum()} other values, first in row {row}, {where} (counted from 0)"
            raise refuse(name, what, given, "drop or fill them")


def laid_out(array: Array, layout: Layout = "auto") -> Array:
    """Axes by the rule at the top of this file; images as N×C×H×W.

    >>> laid_out(np.zeros((5, 8, 8))).shape, laid_out(np.zeros((5, 8, 6, 3))).shape
    ((5, 1, 8, 8), (5, 3, 8, 6))
    >>> laid_out(np.zeros((5, 8, 8)), "arrays").shape
    (5, 8, 8)
    """
    if layout == "arrays":
        return array
    if array.ndim == 3:
        return array[:, None]
    if array.ndim != 4 or array.shape[3] not in CHANNELS:
        return array
    _, a, b, c = array.shape
    if a in CHANNELS and not (a == b != c):  # a×b is square where only channels last makes it so
        return array
    return np.moveaxis(array, 3, 1)


def detected(x: Array, warnings: list[str]) -> Support:
    """The support by the rule at the top of this file; doubts become sentences in ``warnings``."""
    low, high = x.min(), x.max()
    if low >= 0 and high <= 1 and ((x == 0) | (x == 1)).all():
        return Binary()
    if x.dtype == np.uint8:
        return Discrete(256)
    if x.dtype.kind in "iu":
        if low >= 0 and high <= 255:
            return Discrete(int(high) + 1)
        warnings.append(f"Integers from {low} to {high} are taken as real numbers.")
    return Real()


def converted(
    x: Array, support: Support, name: str, column_names: Sequence[str] = (), where: str = ""
) -> Array:
    """``x`` as uint8 or float32, after checking that every value belongs to ``support``.

    ``where`` ends what a refusal calls the data: which column of a table it is.
    """
    if isinstance(support, Product):
        return product_columns(x, support, name, column_names)
    if isinstance(support, Real):
        return x.astype(np.float32, copy=False)
    low, high = x.min(), x.max()
    whole = isinstance(support, Unit) or x.dtype.kind in "biu" or bool((x == np.rint(x)).all())
    if low < 0 or high > largest(support) or not whole:
        given = f"{support} for {'' if whole else 'fractional '}values from {low:g} to {high:g}"
        held = f"one that holds every value of {printable(name, 80)}{where}"
        raise refuse("support", held, given, "or say real")
    small = isinstance(support, Binary | Discrete) and support.levels <= 256
    return x.astype(np.uint8 if small else np.float32, copy=False)


def largest(support: Binary | Discrete | Counts | Unit) -> int:
    """The largest value that a support, or a 32-bit float for counts, can hold exactly."""
    if isinstance(support, Unit):
        return 1
    return MAX_COUNT if isinstance(support, Counts) else support.levels - 1


def product_columns(
    x: Array, support: Product, name: str, column_names: Sequence[str] = ()
) -> Array:
    """The columns of a table (N, D) as float32, each checked against its own support."""
    if x.ndim != 2 or x.shape[1] != len(support.parts):
        raise refuse(
            "support",
            f"a product of one part per column of {printable(name, 80)}, "
            f"which holds examples of shape {shown_shape(x.shape[1:])}",
            f"{len(support.parts)} parts",
        )
    columns = [
        converted(x[:, j], part, name, where=f", column {column_name(j, column_names)}")
        for j, part in enumerate(support.parts)
    ]
    return np.stack(columns, axis=1).astype(np.float32, copy=False)


def possible_sequences(shape: Sequence[int]) -> list[str]:
    """A sentence on examples (A, B) that are read as very uneven images, and may be sequences.

    >>> possible_sequences((3, 8)), possible_sequences((5,))
    ([], [])
    """
    if len(shape) != 2 or max(shape) < MAX_UNEVEN * min(shape):
        return []
    a, b = shape
    read = f"Examples of {a}×{b} are read as grey images of {a}×{b} pixels"
    return [f"{read}; if they are {a} channels of sequences, --layout arrays says so."]


def possible_counts(x: Array, chosen: Support, column_names: Sequence[str]) -> list[str]:
    """A sentence on the columns of a table (N, D) that may be counts, if there are any.

    Counts are whole, not negative, and change beyond 0 and 1. Bytes are taken for levels.
    """
    if x.ndim != 2 or x.dtype.kind not in "iuf" or x.dtype == np.uint8:
        return []
    low, high = x.min(axis=0), x.max(axis=0)
    whole = (low >= 0) & (x == np.rint(x)).all(axis=0)
    maybe = whole & (high > low) & (high > 1)
    which = np.flatnonzero(maybe)
    if not len(which):
        return []
    if whole.all():
        return [
            f"Whole numbers are taken as {chosen}; if they are counts, --support counts says so."
        ]
    shown = ", ".join(f"column {column_name(int(i), column_names)}" for i in which[:5])
    more = f" and {len(which) - 5} more" if len(which) > 5 else ""
    binary = whole & (high == 1)
    kinds = np.select([maybe, binary], ["counts", "binary"], "real").tolist()
    say = f"product:{','.join(kinds)}" if len(kinds) <= MAX_SPELLED else "product:… naming them so"
    return [f"Whole numbers in {shown}{more}: if they are counts, --support {say} says so."]


def constant_columns(x: Array, column_names: Sequence[str]) -> list[str]:
    """A sentence that names the columns of ``x`` (N, D) that never change, if there are any."""
    constant = np.flatnonzero((x == x[:1]).all(axis=0)) if len(x) > 1 else np.zeros(0, int)
    if not len(constant):
        return []
    shown = ", ".join(f"column {column_name(int(i), column_names)}" for i in constant[:5])
    more = f" and {len(constant) - 5} more" if len(constant) > 5 else ""
    return [f"Never changing, so without information: {shown}{more}."]


def labelled(
    labels: Array | None, class_names: tuple[str, ...], num_rows: int, name: str
) -> tuple[torch.Tensor | None, tuple[str, ...]]:
    """Class indices (N,), or None, and names; labels with ``class_names`` are indices already."""
    if labels is None:
        return None, class_names
    if class_names:
        return torch.from_numpy(labels.astype(np.int64)), class_names
    return class_indices(labels, num_rows, name)


def class_indices(labels: Array, num_rows: int, name: str) -> tuple[torch.Tensor, tuple[str, ...]]:
    """Labels as int64 class indices (N,), with a name per class where the labels are not 0 … n-1.

    >>> class_indices(np.array(["b", "a", "b"]), 3, "x.npz")
    (tensor([1, 0, 1]), ('a', 'b'))

    Raises:
        InputError: not one integer or string per example.
    """
    if labels.shape not in ((num_rows,), (num_rows, 1)):
        raise InputError(
            f"'labels' must be one per example of {printable(name, 80)}, got shape "
            f"({shown_shape(labels.shape)}) for {num_rows} examples"
        )
    if labels.dtype.kind not in "biuU":
        remedy = "convert them first, or give vectors to a model from Python (docs/models/cvae.md)"
        raise refuse("labels", "integers or strings", f"dtype {labels.dtype}", remedy)
    values, indices = np.unique(labels.ravel(), return_inverse=True)
    plain = labels.dtype.kind != "U" and int(values[0]) == 0 and int(values[-1]) == len(values) - 1
    names = () if plain else tuple(str(value) for value in values)
    return torch.from_numpy(indices.astype(np.int64)), names
