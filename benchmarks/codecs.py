"""Bits per dimension of general codecs on the test images that models are judged on.

A codec is a model of images that anybody has: what it needs per pixel, 8 · bytes / (images ·
pixels), stands beside the bits/dim of a bound. All rows are of the same images, in the same order:

    raw 8-bit levels, as the IDX files hold them, and, of MNIST, the binarised test set that
    `--binarize dynamic` is judged on (drawn once, by a fixed seed).

PNG, WebP and JPEG XL compress each image as a file of its own, headers counted, and then all of
them as one picture, a mosaic of 100 images a row, where a header costs nothing. gzip, bz2 and xz
see one stream of bytes, image after image; binary pixels are packed, eight to a byte. What comes
out is decoded again and compared.

    LOWERBOUND_DATA=DIR python benchmarks/codecs.py [--data SPEC …] [--num 10000]

JPEG XL's rows appear where `pip install imagecodecs` is.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import importlib.util
import io
import lzma
import os
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

from lowerbound.data import load_data

Bytes = Callable[[np.ndarray], bytes]
Back = Callable[[bytes], np.ndarray]
PER_ROW = 100
STREAMS = {
    "gzip -9": (lambda data: gzip.compress(data, 9, mtime=0), gzip.decompress),
    "bz2 -9": (lambda data: bz2.compress(data, 9), bz2.decompress),
    "xz -9e": (lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME), lzma.decompress),
}


def default_specs() -> list[str]:
    folder = os.environ.get("LOWERBOUND_DATA")
    if not folder:
        raise SystemExit("set LOWERBOUND_DATA to a folder with mnist/ and fashion-mnist/")
    mnist = f"mnist:{folder}/mnist"
    return [mnist, f"fashion-mnist:{folder}/fashion-mnist", f"{mnist} dynamic"]


def test_images(spec: str, num: int) -> tuple[str, np.ndarray]:
    """A name, and grey test images (N, H, W) uint8: levels, or 0 and 1."""
    path, _, binarize = spec.partition(" ")
    x = load_data(path, binarize=binarize or "none").test[slice(0, num)][0]
    if x.ndim != 4 or x.shape[1] != 1:
        raise SystemExit(f"'{path}' must hold grey images, got examples of {tuple(x.shape[1:])}")
    name = path.partition(":")[0]
    return (f"{name}, binarised" if binarize else name), x.squeeze(1).numpy().astype(np.uint8)


def pillow(kind: str, is_binary: bool, **options) -> tuple[Bytes, Back]:
    """A file format of Pillow; PNG has one bit per binary pixel, the others black and white."""

    def there(x: np.ndarray) -> bytes:
        image = Image.fromarray(x * 255 if is_binary else x)
        stream = io.BytesIO()
        one_bit = is_binary and kind == "PNG"
        (image.convert("1", dither=0) if one_bit else image).save(stream, kind, **options)
        return stream.getvalue()

    def back(data: bytes) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(data)).convert("L")) // (255 if is_binary else 1)

    return there, back


def jpeg_xl(is_binary: bool) -> tuple[Bytes, Back]:
    import imagecodecs

    factor = 255 if is_binary else 1
    return (
        lambda x: imagecodecs.jpegxl_encode(x * factor, lossless=True, effort=9, numthreads=1),
        lambda data: imagecodecs.jpegxl_decode(data) // factor,
    )


def mosaic(x: np.ndarray) -> np.ndarray:
    """Images (N, H, W) as one picture, 100 of them a row; what is left of the last row is 0."""
    num, height, width = x.shape
    rows = -(-num // PER_ROW)
    whole = np.zeros((rows * PER_ROW, height, width), x.dtype)
    whole[:num] = x
    by_row = whole.reshape(rows, PER_ROW, height, width)
    return by_row.transpose(0, 2, 1, 3).reshape(rows * height, PER_ROW * width)


def size_of(parts, there, back) -> int:
    """Bytes of all parts, each of them decoded again and compared."""
    total = 0
    for part in parts:
        data = there(part)
        restored = back(data)
        same = restored == part if isinstance(part, bytes) else np.array_equal(restored, part)
        if not same:
            raise SystemExit("a codec that was to be lossless was not")
        total += len(data)
    return total


def bits_per_dim(x: np.ndarray) -> dict[str, float]:
    """Of images (N, H, W), by every codec."""
    is_binary = bool(x.max() <= 1)
    stream = np.packbits(x).tobytes() if is_binary else x.tobytes()
    formats = {
        "PNG": pillow("PNG", is_binary, optimize=True),
        "WebP lossless": pillow("WEBP", is_binary, lossless=True, quality=100, method=6),
    }
    if importlib.util.find_spec("imagecodecs"):
        formats["JPEG XL lossless"] = jpeg_xl(is_binary)
    sizes = {f"{name}, each image": size_of(x, *pair) for name, pair in formats.items()}
    sizes |= {f"{name}, one mosaic": size_of([mosaic(x)], *p) for name, p in formats.items()}
    sizes |= {f"{name}, one stream": size_of([stream], *pair) for name, pair in STREAMS.items()}
    return {name: 8 * size / x.size for name, size in sizes.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", help="'SPEC', or 'SPEC dynamic' to binarise it")
    parser.add_argument("--num", type=int, default=10_000, help="test images")
    args = parser.parse_args()
    columns, start = {}, time.perf_counter()
    for spec in args.data or default_specs():
        name, x = test_images(spec, args.num)
        columns[f"{name} ({len(x):,})"] = bits_per_dim(x)
    print("| bits/dim | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
    for row in next(iter(columns.values())):
        print(
            f"| {row} | " + " | ".join(f"{column[row]:.3f}" for column in columns.values()) + " |"
        )
    if not importlib.util.find_spec("imagecodecs"):
        print("| JPEG XL | " + " | ".join(["pip install imagecodecs"] * len(columns)) + " |")
    print(f"\nall decoded again and compared, in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
