"""IDX files, the format of MNIST and Fashion-MNIST: a folder of four, gzipped or not.

An IDX file is two zero bytes, a type (8: unsigned bytes, the only one that images use), the
number of axes, the sizes as big-endian 32-bit integers, and the values in C order.
"""

from __future__ import annotations

import dataclasses
import gzip
import math
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np

from lowerbound._shapes import shown_shape
from lowerbound.data.base import Rows
from lowerbound.data.capped import read_exactly
from lowerbound.data.values import Array, as_rows
from lowerbound.distributions.support import Support
from lowerbound.errors import InputError, printable, refuse

__all__ = ["FASHION_CLASSES", "find_idx", "read_idx", "read_idx_folder"]

FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
MNIST_VALIDATION = 5_000
UNSIGNED_BYTE = 8


def find_idx(folder: Path, stem: str) -> Path | None:
    """The file of ``stem``, such as ``train-images-idx3-ubyte``, under any of its usual names."""
    dotted = stem.replace("-idx", ".idx")
    names = (stem, f"{stem}.gz", dotted, f"{dotted}.gz")
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_idx(path: Path, ndim: int) -> Array:
    """The uint8 array with ``ndim`` axes that an IDX file holds.

    Raises:
        InputError: another format, or a length that differs from what the header declares.
    """
    packed = path.suffix == ".gz"
    opened = cast(IO[bytes], gzip.open(path) if packed else open(path, "rb"))
    try:
        with opened as stream:
            shape = idx_shape(stream, ndim, path)
            packed_bytes = path.stat().st_size if packed else None
            data = read_exactly(stream, math.prod(shape), path, packed_bytes)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise refuse(path, "a whole gzip file", printable(error, 80), "fetch it again") from error
    return np.frombuffer(data, np.uint8).reshape(shape)


def idx_shape(stream: IO[bytes], ndim: int, path: Path) -> tuple[int, ...]:
    """Read and check the header."""
    magic = stream.read(4)
    if magic != bytes([0, 0, UNSIGNED_BYTE, ndim]):
        raise refuse(
            path,
            f"an IDX file of unsigned bytes with {ndim} axes",
            f"a file that starts with 0x{magic.hex()}",
            "check that it is the right file",
        )
    sizes = stream.read(4 * ndim)
    shape = tuple(int.from_bytes(sizes[i : i + 4], "big") for i in range(0, len(sizes), 4))
    if len(sizes) < 4 * ndim or 0 in shape:
        given = f"{len(sizes)} header bytes with sizes {shown_shape(shape)}"
        raise refuse(path, f"an IDX file of {ndim} sizes above 0", given, "fetch it again")
    return shape


def read_idx_pair(folder: Path, part: str) -> tuple[Array, Array]:
    """Images (N, H, W) and labels (N,) of ``part``: train or t10k."""
    stems = (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte")
    paths = [find_idx(folder, stem) for stem in stems]
    for stem, path in zip(stems, paths, strict=True):
        if path is None:
            raise refuse(folder, "a folder of the four IDX files", f"no {stem}[.gz]", "fetch it")
    images, labels = (read_idx(path, n) for path, n in zip(paths, (3, 1), strict=True) if path)
    if len(images) != len(labels):
        given = f"{len(images)} images and {len(labels)} labels in {part}"
        raise refuse(folder, "a folder with one label per image", given, "fetch the files again")
    return images, labels


def read_idx_folder(
    folder: Path, *, class_names: tuple[str, ...] = (), support: Support | None = None
) -> Rows:
    """MNIST or a data set in its form, with its standard test set last.

    Of 50,000 training images or more, 5,000 are for validation; of fewer, a tenth.

    Args:
        folder: holds train and t10k images and labels.
        class_names: what the labels 0 … n-1 mean; empty where they are numbers only.
        support: what the values are, if not to be detected.

    Raises:
        InputError: a file is missing, damaged, or does not fit the others.
    """
    images, labels = read_idx_pair(folder, "train")
    test_images, test_labels = read_idx_pair(folder, "t10k")
    if images.shape[1:] != test_images.shape[1:]:
        given = f"{shown_shape(images.shape[1:])} and {shown_shape(test_images.shape[1:])}"
        raise refuse(folder, "a folder of images of one size", given, "fetch the files again")
    every_label = np.concatenate([labels, test_labels])
    if class_names and every_label.max() >= len(class_names):
        raise InputError(
            f"'{printable(folder)}' must hold labels 0 to {len(class_names) - 1}, "
            f"got {every_label.max()}; use mnist:DIR for labels without names"
        )
    rows = as_rows(
        np.concatenate([images, test_images]),
        str(folder),
        support=support,
        labels=every_label,
        class_names=class_names,
    )
    num_validation = MNIST_VALIDATION if len(images) >= 50_000 else len(images) // 10
    return dataclasses.replace(
        rows, num_test=len(test_images), num_validation=max(1, num_validation)
    )
