"""Data: from a specification such as ``mnist:DIR`` or ``table.csv`` to a `Source` of three splits.

One grammar: ``digits``, ``mnist:DIR``, ``fashion-mnist:DIR``, ``folder:DIR``, ``x.npz[:key]``,
``x.npy``, ``t.csv``, ``t.parquet``, ``x.tar``, ``hf:owner/name``; a bare folder is recognised by
what it holds, a file by its ending. `lowerbound.data.values` says how axes are read and what
values are taken to be. What memory cannot hold stays where it is and is read when a batch asks for
it: `lowerbound.data.stored`.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from pathlib import Path
from typing import Any, get_args

from lowerbound.data.arrays import read_digits, read_npy, read_npz
from lowerbound.data.base import InMemorySplit, Rows, Source, Split, make_source
from lowerbound.data.blocks import Blocks, held, measured
from lowerbound.data.contexts import Classes, Context, Mask, Vector, context_from
from lowerbound.data.decoding import ImageSize
from lowerbound.data.folders import read_folder
from lowerbound.data.hub import find_parquet, read_hub, read_parquet
from lowerbound.data.idx import FASHION_CLASSES, find_idx, read_idx_folder
from lowerbound.data.mapped import MappedArray, read_values
from lowerbound.data.masked import conditioned, masked_rows
from lowerbound.data.stored import (
    DataLimits,
    StoredRows,
    StoredSplit,
    replaced_examples,
    source_from,
)
from lowerbound.data.tables import read_csv
from lowerbound.data.tars import find_archives, read_archives
from lowerbound.data.values import Layout
from lowerbound.distributions.support import Support, parse_support
from lowerbound.errors import InputError, printable, refuse

__all__ = [
    "DATASETS",
    "Blocks",
    "Classes",
    "Context",
    "DataLimits",
    "InMemorySplit",
    "Mask",
    "Rows",
    "Source",
    "Split",
    "StoredSplit",
    "Vector",
    "context_from",
    "held",
    "load_data",
    "load_rows",
    "make_source",
    "masked_rows",
    "measured",
    "replaced_examples",
]

DATASETS = (
    ("digits", "digits", "1,797 handwritten digits, 8×8, bundled with scikit-learn"),
    ("mnist", "mnist:DIR", "MNIST, from a folder of its four IDX files, gzipped or not"),
    ("fashion-mnist", "fashion-mnist:DIR", "Fashion-MNIST, from its four IDX files"),
    ("folder", "folder:DIR", "images in a folder; sub-folders are labels"),
    ("npz", "FILE.npz[:KEY]", "arrays: data under x, labels under y or labels"),
    ("npy", "FILE.npy", "one array"),
    ("csv", "FILE.csv", "a table of numbers; header optional"),
    ("parquet", "FILE.parquet", "a table, arrays or images in columns; or a folder of such files"),
    ("tar", "FILE.tar", "images in WebDataset's layout; or a folder of such files"),
    ("hf", "hf:OWNER/NAME[:CONFIG]", "a data set of the Hugging Face hub"),
)
"""Name, form of the specification, and a sentence, of everything that can be loaded."""

FORMS = ", ".join(form for _, form, _ in DATASETS)
FOLDER_KINDS = ("mnist", "fashion-mnist", "folder")
WITH_IMAGES = ("folder", "parquet", "tar", "hf")
WITH_LABELS = ("npz", "csv", "parquet", "tar", "hf")
WITH_LAYOUT = ("npz", "npy", "parquet", "hf")
ENDINGS = {
    ".npz": "npz",
    ".npy": "npy",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".tar": "tar",
}


def load_data(
    spec: str | os.PathLike[str],
    *,
    binarize: str = "none",
    image_size: ImageSize | None = None,
    labels: str | None = None,
    support: str | Support | None = None,
    on_bad: str = "error",
    layout: str = "auto",
    condition: str = "labels",
    seed: int = 0,
    limits: DataLimits | None = None,
) -> Source:
    """Load data and split them into train, validation and test.

    >>> load_data("digits").event_shape
    (1, 8, 8)

    Args:
        spec: what to load, in the grammar above.
        binarize: "none", "dynamic" (training draws anew each time), "static" or "threshold".
        image_size: pixels to which images in files are resized: N, (H, W) or "HxW".
        labels: name of the column, key of the array, or ending of the members, with the labels.
        support: what the values are if not to be detected: binary, discrete:LEVELS, counts, real,
            unit, or product:… with one of them per column.
        on_bad: what to do with bad images: "error", or "skip".
        layout: "auto" recognises images by the rules of `lowerbound.data.values`; with "arrays"
            every array keeps its axes, channels first, so that (N, C, L) are sequences.
        condition: the context of the source: "labels"; or a part of each image, "mask", "mask:1",
            "mask:2" or "mask:3" (`lowerbound.data.masked`).
        seed: of the split, of binarisation and of masks; never the seed of a run.
        limits: what may be held in memory; what is larger stays on the disk.

    Returns:
        A source whose examples are uint8 or float32 tensors; images are (C, H, W).

    Raises:
        InputError: the data cannot be used as they are; the message says what to do.
    """
    found = opened(spec, image_size, labels, support, on_bad, layout, limits or DataLimits())
    prepared = {
        "binarize": binarize,
        "image_size": None if image_size is None else _as_text(image_size),
        "labels": labels,
        "support": None if support is None else str(support),
        "on_bad": on_bad,
        "layout": layout,
        "condition": condition,
        "data_seed": seed,
    }
    source = source_from(found, os.fspath(spec), binarize, seed)
    source = conditioned(source, condition, seed)
    return dataclasses.replace(source, preparation=prepared)


def _as_text(image_size: ImageSize) -> str:
    """An image size as config.yaml holds it."""
    return "x".join(map(str, image_size)) if isinstance(image_size, tuple) else str(image_size)


def load_rows(
    spec: str | os.PathLike[str],
    *,
    image_size: ImageSize | None = None,
    labels: str | None = None,
    support: str | Support | None = None,
    on_bad: str = "error",
    layout: str = "auto",
) -> Rows:
    """Load all examples, at least one, in the order of the file; arguments as in `load_data`.

    They are held in memory, at most 4 GiB of them.

    Raises:
        InputError: the data cannot be used as they are; the message says what to do.
    """
    rows = opened(spec, image_size, labels, support, on_bad, layout, None)
    assert isinstance(rows, Rows)
    return rows


def opened(
    spec: str | os.PathLike[str],
    image_size: ImageSize | None,
    labels: str | None,
    support: str | Support | None,
    on_bad: str,
    layout: str,
    limits: DataLimits | None,
) -> Rows | StoredRows:
    """The examples of a specification, in memory where the limits allow it, or without limits."""
    text = os.fspath(spec)
    values = parse_support(support) if isinstance(support, str) else support
    if on_bad not in ("error", "skip"):
        raise refuse("on_bad", "error or skip", on_bad)
    if layout not in get_args(Layout):
        raise refuse("layout", " or ".join(get_args(Layout)), layout)
    try:
        rows = read(text, image_size, labels, values, on_bad, layout, limits)
    except OSError as error:
        shown, reason = printable(error.filename or text), error.strerror or error
        raise InputError(f"'{shown}' cannot be read: {printable(reason)}") from error
    return dataclasses.replace(rows, name=text) if isinstance(rows, Rows) else rows


def read(
    text: str,
    image_size: ImageSize | None,
    labels: str | None,
    support: Support | None,
    on_bad: str,
    layout: str,
    limits: DataLimits | None,
) -> Rows | StoredRows:
    """Choose the reader and give it the arguments that it can use; refuse those it cannot."""
    kind, path, key = recognised(text)
    check_use(kind, text, image_size, labels, layout)
    arrays: Any = {"support": support, "layout": layout}
    images: Any = {"image_size": image_size, "on_bad": on_bad, "support": support}
    match kind:
        case "digits":
            return read_digits(support)
        case "mnist":
            return read_idx_folder(path, support=support)
        case "fashion-mnist":
            return read_idx_folder(path, class_names=FASHION_CLASSES, support=support)
        case "folder":
            return read_folder(path, limits=limits, **images)
        case "npz":
            return read_npz(path, key, labels=labels, **arrays)
        case "npy":
            return read_array(path, limits, **arrays)
        case "csv":
            return read_csv(path, labels=labels, support=support)
        case "parquet":
            return read_parquet(path, labels=labels, limits=limits, layout=layout, **images)
        case "tar":
            return read_archives(path, labels=labels, limits=limits, **images)
        case _:
            return read_hub(key, labels=labels, limits=limits, layout=layout, **images)


def check_use(
    kind: str, text: str, image_size: ImageSize | None, labels: str | None, layout: str
) -> None:
    """Refuse an argument that the reader of this kind of data has no use for."""
    if image_size is not None and kind not in WITH_IMAGES:
        given = f"{image_size} for {text}"
        raise refuse("image_size", "left out unless data are images in files", given)
    if labels is not None and kind not in WITH_LABELS:
        given = f"'{labels}' for {text}"
        allowed = "left out unless data are .npz, .csv, .parquet, .tar or hf:"
        raise refuse("labels", allowed, given)
    if layout != "auto" and kind not in WITH_LAYOUT:
        given = f"{layout} for {text}"
        raise refuse("layout", "auto unless data are .npz, .npy, .parquet or hf:", given)


def read_array(path: Path, limits: DataLimits | None, **how: Any) -> Rows | StoredRows:
    """An ``.npy`` file: read where memory may hold it, else mapped."""
    if limits is None or path.stat().st_size <= limits.memory_bytes:
        return read_npy(path, **how)
    return read_values(MappedArray(path), limits=limits, **how)


def recognised(text: str) -> tuple[str, Path, str]:
    """The kind of reader, the path and the key that a specification means."""
    if text == "digits":
        return "digits", Path(), ""
    if text in FOLDER_KINDS:
        raise refuse("data", f"{text}:DIR", text, "say which folder holds the files")
    name, _, rest = text.partition(":")
    if name in FOLDER_KINDS and rest:
        return name, existing(rest, folder=True), ""
    if name == "hf":
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?(:[^:/]+)?", rest):
            raise refuse("data", "hf:OWNER/NAME or hf:OWNER/NAME:CONFIG", text, "check the name")
        return "hf", Path(), rest
    file, ending, key = text.rpartition(".npz:")
    if ending and key:
        return "npz", existing(f"{file}.npz"), key
    if os.path.isdir(os.path.expanduser(text)):
        path = existing(text, folder=True)
        return kind_of_folder(path), path, ""
    kind = ENDINGS.get(Path(text).suffix.lower())
    if kind is None:
        raise unknown(text)
    return kind, existing(text), ""


def kind_of_folder(path: Path) -> str:
    """What a folder holds: the files of MNIST, parquet files, archives, or else images."""
    if holds_idx(path):
        return "mnist"
    if find_parquet(path):
        return "parquet"
    return "tar" if find_archives(path) else "folder"


def holds_idx(folder: Path) -> bool:
    """Whether a folder holds the training or the test images of an IDX data set."""
    return any(find_idx(folder, f"{part}-images-idx3-ubyte") for part in ("train", "t10k"))


def unknown(text: str) -> InputError:
    """The refusal of a specification that means nothing, with the nearest one that does."""
    name, colon, rest = text.partition(":")
    near = difflib.get_close_matches(name.lower(), ("digits", *FOLDER_KINDS), 1)
    if not near:
        return refuse("data", f"one of {FORMS}", text, "check the path")
    form = near[0] if near[0] == "digits" else f"{near[0]}:{rest if colon and rest else 'DIR'}"
    return refuse("data", f"one of {FORMS}", text, f"did you mean {printable(form, 60)}?")


def existing(text: str, *, folder: bool = False) -> Path:
    """The path ``text``, refused if there is no such file or folder."""
    path = Path(os.path.expanduser(text))
    what = "folder" if folder else "file"
    try:
        there = path.is_dir() if folder else path.is_file()
    except ValueError:  # a zero byte
        there = False
    if not there:
        given = f"a {'file' if folder else 'folder'}" if path.exists() else "nothing there"
        raise refuse(text, f"an existing {what}", given, "check the path")
    return path
