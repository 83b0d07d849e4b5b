"""Images of any source: every one is checked before any is used, and the bad ones are named.

Those that fit into memory are decoded once and held. Of more only the headers are read before the
first step, so that whatever a header tells is told then; `ImageReader` decodes the rest.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np

from lowerbound.data.base import Rows
from lowerbound.data.decoding import BadImageError, ImageSize, parse_image_size, quiet_decoders
from lowerbound.data.encoded import Decoding, Encoded, ImageReader, Shape, decoded, shape_of
from lowerbound.data.stored import DataLimits, StoredRows
from lowerbound.data.values import Array, as_rows, labelled
from lowerbound.distributions.support import Discrete, Support
from lowerbound.errors import InputError, printable, refuse
from lowerbound.files import MAX_FILE_BYTES

__all__ = ["read_images"]

NUM_SHOWN = 5
WINDOW = 1024
Result = TypeVar("Result")
LabelsOf = Callable[[list[int]], tuple[Array | None, tuple[str, ...]]]


def read_images(
    encoded: Encoded,
    labels_of: LabelsOf,
    *,
    image_size: ImageSize | None,
    on_bad: str,
    support: Support | None,
    limits: DataLimits | None,
) -> Rows | StoredRows:
    """Images as levels (N, C, H, W), decoded where they fit into memory, else a reader of them.

    Args:
        encoded: at least one image.
        labels_of: labels (N,) of the images at given indices and the names of classes.
        image_size: see `read_folder`, as the other arguments.
        on_bad: error or skip.
        support: by default 256 levels.
        limits: without them everything is decoded.

    Raises:
        InputError: bad images, several sizes, or too many pixels.
    """
    size = None if image_size is None else parse_image_size(image_size)
    with quiet_decoders():
        if limits is not None and may_be_large(encoded, size, limits):
            stored = stored_images(encoded, labels_of, size, on_bad, support, limits)
            if stored is not None:
                return stored
        images, kept, bad = decode_all(encoded, size, (limits or DataLimits()).threads)
    notes = told_bad(encoded, len(kept), bad, on_bad)
    check_one_size(encoded.source, [image.shape[:2] for image in images])
    targets, class_names = labels_of(kept)
    rows = as_rows(
        stacked(images),
        encoded.source,
        support=support,
        default=Discrete(256),
        labels=targets,
        class_names=class_names,
    )
    return replace(rows, warnings=(*rows.warnings, *notes))


def stored_images(
    encoded: Encoded,
    labels_of: LabelsOf,
    size: tuple[int, int] | None,
    on_bad: str,
    support: Support | None,
    limits: DataLimits,
) -> StoredRows | None:
    """A reader of images whose headers are good; None where memory may hold them after all."""
    shapes, kept, bad = scanned(encoded, size, limits.threads)
    notes, shape = told_bad(encoded, len(kept), bad, on_bad), joint_shape(shapes)
    if math.prod(shape) * len(shapes) <= limits.memory_bytes:
        return None
    check_one_size(encoded.source, [found[1:] for found in shapes])
    labels, class_names = labelled(*labels_of(kept), len(kept), encoded.source)
    how = Decoding(shape, size, on_bad == "skip", limits.threads)
    reader = ImageReader(encoded, kept, how, support or Discrete(256), labels)
    return StoredRows(reader, class_names, warnings=notes)


def may_be_large(encoded: Encoded, size: tuple[int, int] | None, limits: DataLimits) -> bool:
    """Whether the images, if they are like the first good one and in colour, exceed memory."""
    for index in range(len(encoded)):
        shape = shape_of(encoded, size, index)
        if not isinstance(shape, BadImageError):
            return 3 * shape[1] * shape[2] * len(encoded) > limits.memory_bytes
    return False


def in_order(
    function: Callable[[int], Result], indices: Sequence[int], threads: int
) -> Iterator[Result]:
    """``function`` of each index, computed in threads, a window at a time."""
    if threads == 1:
        yield from map(function, indices)
        return
    with ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(indices), WINDOW):
            yield from pool.map(function, indices[first : first + WINDOW])


def scanned(
    encoded: Encoded, size: tuple[int, int] | None, threads: int
) -> tuple[list[Shape], list[int], dict[str, str]]:
    """Shapes of the good images, their indices, and why the others are bad, by their headers."""
    shapes: list[Shape] = []
    kept: list[int] = []
    bad: dict[str, str] = {}
    every = in_order(partial(shape_of, encoded, size), range(len(encoded)), threads)
    for index, shape in enumerate(every):
        if isinstance(shape, BadImageError):
            bad[encoded.name(index)] = str(shape)
        else:
            shapes.append(shape)
            kept.append(index)
    return shapes, kept, bad


def decode_all(
    encoded: Encoded, size: tuple[int, int] | None, threads: int
) -> tuple[list[Array], list[int], dict[str, str]]:
    """The good images, their indices, and the reason why each other one is bad."""
    images: list[Array] = []
    kept: list[int] = []
    bad: dict[str, str] = {}
    every = in_order(partial(decoded, encoded, size), range(len(encoded)), threads)
    for index, image in enumerate(every):
        if isinstance(image, BadImageError):
            bad[encoded.name(index)] = str(image)
            continue
        if image.nbytes * len(encoded) > MAX_FILE_BYTES:  # all will have one size
            raise refuse(
                encoded.source,
                f"images of at most {MAX_FILE_BYTES} bytes of pixels",
                f"{len(encoded)} images of {image.nbytes} bytes",
                "say a smaller --image-size",
            )
        images.append(image)
        kept.append(index)
    return images, kept, bad


def told_bad(encoded: Encoded, num_good: int, bad: dict[str, str], on_bad: str) -> tuple[str, ...]:
    """A sentence about the bad images that are skipped, or none.

    Raises:
        InputError: there are bad ones and they are not to be skipped, or no good one.
    """
    if not bad:
        return ()
    if on_bad == "error" or not num_good:
        skip = " or say --on-bad skip" if num_good else ""
        raise InputError(
            f"'{printable(encoded.source, 60)}' must hold good images, got {len(bad)} bad "
            f"of {len(encoded)}: {shown_bad(bad)}; mend them{skip}"
        )
    return (f"Skipped {len(bad)} bad of {len(encoded)} images: {shown_bad(bad)}.",)


def shown_bad(bad: dict[str, str]) -> str:
    """The first bad images with their reasons."""
    shown = ", ".join(
        f"{printable(name, 40)} ({reason})" for name, reason in list(bad.items())[:NUM_SHOWN]
    )
    return f"{shown}, …" if len(bad) > NUM_SHOWN else shown


def check_one_size(source: str, sizes: Iterable[tuple[int, ...]]) -> None:
    """Refuse images of several sizes (H, W), naming the most frequent ones."""
    counts = Counter(sizes)
    if len(counts) > 1:
        shown = ", ".join(f"{h}x{w} ({n})" for (h, w), n in counts.most_common(4))
        more = ", …" if len(counts) > 4 else ""
        given = f"{len(counts)} sizes (HxW): {shown}{more}"
        raise refuse(source, "images of one size", given, "say --image-size N")


def joint_shape(shapes: Sequence[Shape]) -> Shape:
    """The shape (C, H, W) of all, with C = 1 where all are grey; of none, one of no pixels."""
    if not shapes:
        return 0, 0, 0
    return max(channels for channels, _, _ in shapes), *shapes[0][1:]


def stacked(images: list[Array]) -> Array:
    """Levels (N, C, H, W), with C = 1 where all are grey. Empties the list as it goes."""
    height, width = images[0].shape[:2]
    channels = 3 if any(image.ndim == 3 for image in images) else 1
    x = np.empty((len(images), channels, height, width), np.uint8)
    for index in reversed(range(len(images))):
        image = images.pop()
        x[index] = image if image.ndim == 2 else np.moveaxis(image, 2, 0)
    return x
