"""A folder of images: every one is checked before any is used, and the bad ones are named.

Sub-folders are labels where there are two or more. Grey images (1, 8 or 16 bits, with or without
alpha) stay grey where all are; else all become RGB. Transparency is laid on white, the rotation
noted by a camera is applied, and of an animation the first frame is taken.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import re
import stat
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lowerbound.data.base import Rows
from lowerbound.data.values import Array, as_rows
from lowerbound.distributions.support import Discrete, Support
from lowerbound.errors import InputError, printable, refuse
from lowerbound.files import MAX_FILE_BYTES, MAX_PIXELS

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["IMAGE_ENDINGS", "ImageSize", "find_images", "parse_image_size", "read_folder"]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
NUM_SHOWN = 5

ImageSize = int | str | tuple[int, int]


class BadImageError(Exception):
    """An image that cannot be used; the message is the reason, in a few words."""


def read_folder(
    folder: Path,
    *,
    image_size: ImageSize | None = None,
    on_bad: str = "error",
    support: Support | None = None,
) -> Rows:
    """Every image of a folder and its sub-folders, in sorted order, as levels (N, C, H, W).

    Args:
        folder: where the images are. Hidden files and other endings are passed over.
        image_size: resize to cover this size, antialiased, and crop the centre; a number, (H, W),
            or "HxW". By default all images must have one size already.
        on_bad: "error" names the bad images; "skip" leaves them out and counts them in a warning.
        support: what the values are; by default 256 levels.

    Raises:
        InputError: no image, a bad image, several sizes, or more than 4 GiB of pixels.
    """
    size = None if image_size is None else parse_image_size(image_size)
    found = find_images(folder)
    if not found:
        endings = " ".join(IMAGE_ENDINGS)
        raise refuse(folder, "a folder of images", f"no {endings}", "check the path")
    images, kept, bad = decode_all([path for _, path in found], size)
    reasons = {str(path.relative_to(folder)): reason for path, reason in bad.items()}
    if bad and (on_bad == "error" or not images):
        skip = " or say --on-bad skip" if images else ""
        raise InputError(
            f"'{printable(folder, 60)}' must hold good images, got {len(bad)} bad "
            f"of {len(found)}: {shown_bad(reasons)}; mend them{skip}"
        )
    check_one_size(folder, images)
    labels, class_names = class_labels(folder, [found[index][0] for index in kept])
    rows = as_rows(
        stacked(images),
        str(folder),
        support=support,
        default=Discrete(256),
        labels=labels,
        class_names=class_names,
    )
    if not bad:
        return rows
    note = f"Skipped {len(bad)} bad of {len(found)} images: {shown_bad(reasons)}."
    return dataclasses.replace(rows, warnings=(*rows.warnings, note))


def check_one_size(folder: Path, images: list[Array]) -> None:
    """Refuse images of several sizes, naming the most frequent ones."""
    sizes = Counter(image.shape[:2] for image in images)
    if len(sizes) > 1:
        shown = ", ".join(f"{h}x{w} ({n})" for (h, w), n in sizes.most_common(4))
        more = ", …" if len(sizes) > 4 else ""
        given = f"{len(sizes)} sizes (HxW): {shown}{more}"
        raise refuse(folder, "a folder of images of one size", given, "say --image-size N")


def class_labels(folder: Path, parents: list[str]) -> tuple[Array | None, tuple[str, ...]]:
    """Class indices (N,) and names from the sub-folder of each image, if there are several."""
    names = sorted(set(parents))
    if len(names) < 2:
        return None, ()
    if "" in names:
        given = f"{parents.count('')} images beside sub-folders of images"
        raise refuse(
            folder, "a folder of images or of sub-folders", given, "move them into a sub-folder"
        )
    index = {name: i for i, name in enumerate(names)}
    return np.array([index[name] for name in parents]), tuple(names)


def parse_image_size(value: ImageSize) -> tuple[int, int]:
    """Height and width in pixels from a number, a pair, or text like "32" or "32x48".

    >>> parse_image_size(32), parse_image_size("32x48")
    ((32, 32), (32, 48))
    """
    if isinstance(value, str):
        match = re.fullmatch(r"([0-9]{1,6})(?:[x×]([0-9]{1,6}))?", value)
        pair = (match[1], match[2] or match[1]) if match else ()
    else:
        pair = value if isinstance(value, tuple) else (value, value)
    if len(pair) == 2 and all(isinstance(n, int | str) for n in pair):
        height, width = int(pair[0]), int(pair[1])
        if height > 0 and width > 0 and height * width <= MAX_PIXELS:
            return height, width
    raise refuse("image_size", f"N or HxW of at most {MAX_PIXELS} pixels", value, "try 32 or 64")


def find_images(folder: Path) -> list[tuple[str, Path]]:
    """Sub-folder ("" for none) and path of every file with an image's ending, in sorted order."""
    found: list[tuple[str, Path]] = []
    for name in sorted(os.listdir(folder)):
        path = folder / name
        if name.startswith("."):
            continue
        if path.is_dir():  # also a link to a folder; deeper links are not followed: no cycles
            found += [(name, p) for p in sorted(walked(path))]
        elif name.lower().endswith(IMAGE_ENDINGS):
            found.append(("", path))
    return found


def walked(folder: Path) -> Iterator[Path]:
    """Images at any depth below a folder; an unreadable folder is an error, not an absence."""

    def fail(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and name.lower().endswith(IMAGE_ENDINGS):
                yield Path(place, name)


def decode_all(
    paths: list[Path], size: tuple[int, int] | None
) -> tuple[list[Array], list[int], dict[Path, str]]:
    """The good images, their indices in ``paths``, and the reason why each other one is bad."""
    from PIL import Image

    images: list[Array] = []
    kept: list[int] = []
    bad: dict[Path, str] = {}
    with warnings.catch_warnings(), quiet_log("PIL"):
        warnings.simplefilter("ignore")  # odd metadata do not spoil an image …
        warnings.simplefilter("error", Image.DecompressionBombWarning)  # … a bomb does
        for index, path in enumerate(paths):
            try:
                image = decode(path, size)
            except BadImageError as error:
                bad[path] = str(error)
                continue
            if image.nbytes * len(paths) > MAX_FILE_BYTES:  # all will have one size
                raise refuse(
                    path.parent,
                    f"a folder of at most {MAX_FILE_BYTES} bytes of pixels",
                    f"{len(paths)} images of {image.nbytes} bytes",
                    "say a smaller --image-size",
                )
            images.append(image)
            kept.append(index)
    return images, kept, bad


@contextlib.contextmanager
def quiet_log(name: str) -> Iterator[None]:
    """Silence a library's log: what it would say is said by our refusal, in one line."""
    log = logging.getLogger(name)
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(level)


def decode(path: Path, size: tuple[int, int] | None) -> Array:
    """One image as levels (H, W) if it is grey, else (H, W, 3).

    Raises:
        BadImageError: it cannot be used.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadImageError("not a file")
        if status.st_size == 0:
            raise BadImageError("empty")
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadImageError(f"{image.width}x{image.height} pixels are too many")
            plain = grey_or_rgb(ImageOps.exif_transpose(image))
            if size is not None:
                plain = ImageOps.fit(plain, size[::-1], Image.Resampling.BICUBIC)
            return np.array(plain, dtype=np.uint8)
    except BadImageError:
        raise
    except FileNotFoundError:
        raise BadImageError("broken link") from None
    except PermissionError:
        raise BadImageError("not readable") from None
    except UnidentifiedImageError:
        raise BadImageError("not an image") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise BadImageError("too many pixels") from None
    except Exception as error:  # hostile bytes make decoders fail in any way they like
        truncated = "truncated" in str(error)
        reason = "truncated" if truncated else printable(error, 40) or type(error).__name__
        raise BadImageError(reason) from error


def grey_or_rgb(image: Image) -> Image:
    """The image in mode L if it is grey, else in mode RGB."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        levels = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise BadImageError("32-bit pixels")
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    if not image.has_transparency_data:
        return image.convert(mode)
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert(mode)


def stacked(images: list[Array]) -> Array:
    """Levels (N, C, H, W), with C = 1 where all are grey. Empties the list as it goes."""
    height, width = images[0].shape[:2]
    channels = 3 if any(image.ndim == 3 for image in images) else 1
    x = np.empty((len(images), channels, height, width), np.uint8)
    for index in reversed(range(len(images))):
        image = images.pop()
        x[index] = image if image.ndim == 2 else np.moveaxis(image, 2, 0)
    return x


def shown_bad(bad: dict[str, str]) -> str:
    """The first bad images with their reasons."""
    shown = ", ".join(
        f"{printable(name, 40)} ({reason})" for name, reason in list(bad.items())[:NUM_SHOWN]
    )
    return f"{shown}, …" if len(bad) > NUM_SHOWN else shown
