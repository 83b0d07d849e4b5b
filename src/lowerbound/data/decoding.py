"""One image from its bytes, whoever made them: levels, or a reason in a few words why not.

Grey images (1, 8 or 16 bits, with or without alpha) stay grey; all others become RGB. Transparency
is laid on white, the rotation noted by a camera is applied, and of an animation the first frame is
taken. Hostile bytes make decoders fail in any way they like: all of them become `BadImageError`.
"""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

import numpy as np

from lowerbound.data.values import Array
from lowerbound.errors import printable, refuse
from lowerbound.files import MAX_PIXELS

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["BadImageError", "ImageSize", "decode", "header", "parse_image_size", "quiet_decoders"]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
TURNED = (5, 6, 7, 8)  # EXIF orientations that swap height and width
GREY_MODES = ("1", "L", "LA", "La")

ImageSize = int | str | tuple[int, int]


class BadImageError(Exception):
    """An image that cannot be used; the message is the reason, in a few words."""


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


@contextlib.contextmanager
def quiet_decoders() -> Iterator[None]:
    """Silence what libraries say of odd images: our refusal says it, in one line. One thread."""
    with warnings.catch_warnings(), quiet_log("PIL"):
        warnings.simplefilter("ignore")  # odd metadata do not spoil an image
        yield


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


@contextlib.contextmanager
def opened(stream: IO[bytes]) -> Iterator[Image]:
    """The image in a stream, not yet decoded; whatever fails within is a `BadImageError`."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(stream, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadImageError(f"{image.width}x{image.height} pixels are too many")
            yield image
    except BadImageError:
        raise
    except UnidentifiedImageError:
        raise BadImageError("not an image") from None
    except Image.DecompressionBombError:
        raise BadImageError("too many pixels") from None
    except Exception as error:
        truncated = "truncated" in str(error)
        reason = "truncated" if truncated else printable(error, 40) or type(error).__name__
        raise BadImageError(reason) from error


def decode(stream: IO[bytes], size: tuple[int, int] | None = None) -> Array:
    """One image as levels (H, W) if it is grey, else (H, W, 3).

    Args:
        stream: its bytes.
        size: resize it to cover this height and width, antialiased, and crop the centre.

    Raises:
        BadImageError: it cannot be used.
    """
    from PIL import Image, ImageOps

    with opened(stream) as image:
        plain = grey_or_rgb(ImageOps.exif_transpose(image))
        if size is not None:
            plain = ImageOps.fit(plain, size[::-1], Image.Resampling.BICUBIC)
        return np.array(plain, dtype=np.uint8)


def header(stream: IO[bytes]) -> tuple[int, int, int]:
    """Channels (1 or 3), height and width that `decode` would give, without decoding.

    Raises:
        BadImageError: it cannot be used, as far as its header tells.
    """
    with opened(stream) as image:
        mode, (width, height) = image.mode, image.size
        if mode in ("I", "F"):
            raise BadImageError("32-bit pixels")
        # Of TIFF the size is told as if it were turned already.
        turned = image.format != "TIFF" and image.getexif().get(0x0112) in TURNED
        grey = mode in GREY_MODES or mode.startswith("I;16")
        return (1 if grey else 3), *((width, height) if turned else (height, width))


def grey_or_rgb(image: Image) -> Image:
    """The image in mode L if it is grey, else in mode RGB."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        levels = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise BadImageError("32-bit pixels")
    mode = "L" if image.mode in GREY_MODES else "RGB"
    if not image.has_transparency_data:
        return image.convert(mode)
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert(mode)
