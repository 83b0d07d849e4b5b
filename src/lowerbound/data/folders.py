"""A folder of images: every one is checked before any is used, and the bad ones are named.

Sub-folders are labels where there are two or more.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from lowerbound.data.base import Rows
from lowerbound.data.decoding import BadImageError, ImageSize
from lowerbound.data.encoded import Encoded
from lowerbound.data.images import read_images
from lowerbound.data.stored import DataLimits, StoredRows
from lowerbound.data.values import Array
from lowerbound.distributions.support import Support
from lowerbound.errors import refuse

__all__ = ["IMAGE_ENDINGS", "find_images", "read_folder"]

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


class ImageFiles(Encoded):
    """Images that are files of a folder.

    Args:
        folder: the folder.
        paths: the files, in order.
    """

    def __init__(self, folder: Path, paths: Sequence[Path]) -> None:
        self.source, self.folder, self.paths = str(folder), folder, paths

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        """The path below the folder."""
        return str(self.paths[index].relative_to(self.folder))

    def num_bytes(self, index: int) -> int:
        """Size of the file."""
        return self.paths[index].stat().st_size

    def open(self, index: int) -> IO[bytes]:
        """See `Encoded.open`."""
        path = self.paths[index]
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise BadImageError("not a file")
            if status.st_size == 0:
                raise BadImageError("empty")
            return open(path, "rb")
        except FileNotFoundError:
            raise BadImageError("broken link" if path.is_symlink() else "no such file") from None
        except PermissionError:
            raise BadImageError("not readable") from None


def read_folder(
    folder: Path,
    *,
    image_size: ImageSize | None = None,
    on_bad: str = "error",
    support: Support | None = None,
    limits: DataLimits | None = None,
) -> Rows | StoredRows:
    """Every image of a folder and its sub-folders, in sorted order, as levels (N, C, H, W).

    Args:
        folder: where the images are. Hidden files and other endings are passed over.
        image_size: resize to cover this size, antialiased, and crop the centre; a number, (H, W),
            or "HxW". By default all images must have one size already.
        on_bad: "error" names the bad images; "skip" leaves them out and counts them in a warning.
        support: what the values are; by default 256 levels.
        limits: what may be held in memory; without them everything, at most 4 GiB.

    Raises:
        InputError: no image, a bad image, several sizes, or more than 4 GiB of pixels.
    """
    found = find_images(folder)
    if not found:
        endings = " ".join(IMAGE_ENDINGS)
        raise refuse(folder, "a folder of images", f"no {endings}", "check the path")

    def labels_of(kept: list[int]) -> tuple[Array | None, tuple[str, ...]]:
        return class_labels(folder, [found[index][0] for index in kept])

    return read_images(
        ImageFiles(folder, [path for _, path in found]),
        labels_of,
        image_size=image_size,
        on_bad=on_bad,
        support=support,
        limits=limits,
    )


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
