"""Data: from a specification such as ``mnist:DIR`` or ``table.csv`` to a `Source` of three splits.

One grammar: ``digits``, ``mnist:DIR``, ``fashion-mnist:DIR``, ``folder:DIR``, ``x.npz[:key]``,
``x.npy``, ``t.csv``; a bare folder is recognised by what it holds, a file by its ending.
`lowerbound.data.values` says how axes are read and what values are taken to be.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from pathlib import Path

from lowerbound.data.arrays import read_digits, read_npy, read_npz
from lowerbound.data.base import Classes, InMemorySplit, Rows, Source, Split, make_source
from lowerbound.data.idx import FASHION_CLASSES, find_idx, read_idx_folder
from lowerbound.data.images import ImageSize, read_folder
from lowerbound.data.tables import read_csv
from lowerbound.distributions.support import Support, parse_support
from lowerbound.errors import InputError, printable, refuse

__all__ = [
    "DATASETS",
    "Classes",
    "InMemorySplit",
    "Rows",
    "Source",
    "Split",
    "load_data",
    "load_rows",
    "make_source",
]

DATASETS = (
    ("digits", "digits", "1,797 handwritten digits, 8×8, bundled with scikit-learn"),
    ("mnist", "mnist:DIR", "MNIST, from a folder of its four IDX files, gzipped or not"),
    ("fashion-mnist", "fashion-mnist:DIR", "Fashion-MNIST, from its four IDX files"),
    ("folder", "folder:DIR", "images in a folder; sub-folders are labels"),
    ("npz", "FILE.npz[:KEY]", "arrays: data under x, labels under y or labels"),
    ("npy", "FILE.npy", "one array"),
    ("csv", "FILE.csv", "a table of numbers; header optional"),
)
"""Name, form of the specification, and a sentence, of everything that can be loaded."""

FORMS = ", ".join(form for _, form, _ in DATASETS)
FOLDER_KINDS = ("mnist", "fashion-mnist", "folder")
LATER = {  # what a later version reads, and what to do until then
    "hf": "download it and give its images as folder:DIR",
    ".parquet": "save it as FILE.csv",
}


def load_data(
    spec: str | os.PathLike[str],
    *,
    binarize: str = "none",
    image_size: ImageSize | None = None,
    labels: str | None = None,
    support: str | Support | None = None,
    on_bad: str = "error",
    seed: int = 0,
) -> Source:
    """Load data and split them into train, validation and test.

    >>> load_data("digits").event_shape
    (1, 8, 8)

    Args:
        spec: what to load, in the grammar above.
        binarize: "none", "dynamic" (training draws anew each time), "static" or "threshold".
        image_size: pixels to which a folder's images are resized: N, (H, W) or "HxW".
        labels: name of the column, or key of the array, that holds the labels.
        support: what the values are if not to be detected: binary, discrete:LEVELS, counts, real,
            unit, or product:… with one of them per column.
        on_bad: what to do with bad images: "error", or "skip".
        seed: of the split and of binarisation; never the seed of a run.

    Returns:
        A source whose examples are uint8 or float32 tensors; images are (C, H, W).

    Raises:
        InputError: the data cannot be used as they are; the message says what to do.
    """
    rows = load_rows(spec, image_size=image_size, labels=labels, support=support, on_bad=on_bad)
    prepared = {
        "binarize": binarize,
        "image_size": None if image_size is None else _as_text(image_size),
        "labels": labels,
        "support": None if support is None else str(support),
        "on_bad": on_bad,
        "data_seed": seed,
    }
    return dataclasses.replace(
        make_source(rows, how_binarize=binarize, seed=seed), preparation=prepared
    )


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
) -> Rows:
    """Load all examples, at least one, in the order of the file; arguments as in `load_data`.

    Raises:
        InputError: the data cannot be used as they are; the message says what to do.
    """
    text = os.fspath(spec)
    values = parse_support(support) if isinstance(support, str) else support
    if on_bad not in ("error", "skip"):
        raise refuse("on_bad", "error or skip", on_bad)
    try:
        rows = read(text, image_size, labels, values, on_bad)
    except OSError as error:
        shown, reason = printable(error.filename or text), error.strerror or error
        raise InputError(f"'{shown}' cannot be read: {printable(reason)}") from error
    return dataclasses.replace(rows, name=text)


def read(
    text: str,
    image_size: ImageSize | None,
    labels: str | None,
    support: Support | None,
    on_bad: str,
) -> Rows:
    """Choose the reader and give it the arguments that it can use; refuse those it cannot."""
    kind, path, key = recognised(text)
    if image_size is not None and kind != "folder":
        given = f"{image_size} for {text}"
        raise refuse("image_size", "left out unless data are a folder of images", given)
    if labels is not None and kind not in ("npz", "csv"):
        given = f"'{labels}' for {text}"
        raise refuse("labels", "left out unless data are .npz or .csv", given)
    match kind:
        case "digits":
            return read_digits(support)
        case "mnist":
            return read_idx_folder(path, support=support)
        case "fashion-mnist":
            return read_idx_folder(path, class_names=FASHION_CLASSES, support=support)
        case "folder":
            return read_folder(path, image_size=image_size, on_bad=on_bad, support=support)
        case "npz":
            return read_npz(path, key, labels=labels, support=support)
        case "npy":
            return read_npy(path, support=support)
        case _:
            return read_csv(path, labels=labels, support=support)


def recognised(text: str) -> tuple[str, Path, str]:
    """The kind of reader, the path and the key that a specification means."""
    if text == "digits":
        return "digits", Path(), ""
    if text in FOLDER_KINDS:
        raise refuse("data", f"{text}:DIR", text, "say which folder holds the files")
    name, _, rest = text.partition(":")
    if name in FOLDER_KINDS and rest:
        return name, existing(rest, folder=True), ""
    for later, remedy in LATER.items():
        if name == later or text.lower().endswith(later):
            raise refuse(
                "data", f"one of {FORMS}", text, f"{later} comes in a later version: {remedy}"
            )
    file, ending, key = text.rpartition(".npz:")
    if ending and key:
        return "npz", existing(f"{file}.npz"), key
    if os.path.isdir(os.path.expanduser(text)):
        path = existing(text, folder=True)
        return ("mnist" if holds_idx(path) else "folder"), path, ""
    kind = {".npz": "npz", ".npy": "npy", ".csv": "csv", ".tsv": "csv"}.get(
        Path(text).suffix.lower()
    )
    if kind is None:
        raise unknown(text)
    return kind, existing(text), ""


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
