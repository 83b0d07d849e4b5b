"""Encoded images with an index, wherever their bytes lie: in a folder, an archive or a column.

Those that memory cannot hold are decoded in threads when a batch asks for them (decoders let go of
Python's lock while they work). An image whose header was good may still turn out bad, or go bad
later: it is named, or replaced by its neighbour and counted.
"""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO

import numpy as np
import torch
from torch import Tensor

from lowerbound.data.decoding import BadImageError, decode, header
from lowerbound.data.stored import Reader, sampled_rows
from lowerbound.data.values import Array, examples_at
from lowerbound.distributions.support import Support
from lowerbound.errors import printable, refuse

__all__ = ["Decoding", "Encoded", "ImageReader", "Shape", "decoded", "shape_of"]

NUM_FINGERPRINTED = 256
Shape = tuple[int, int, int]  # channels, height, width


class Encoded(ABC):
    """Encoded images by their number."""

    source: str
    """Where they all are, for errors."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def name(self, index: int) -> str:
        """What to call an image in an error."""

    @abstractmethod
    def num_bytes(self, index: int) -> int:
        """Size of an image as it is encoded, without reading it."""

    @abstractmethod
    def open(self, index: int) -> IO[bytes]:
        """The bytes of an image, to be closed.

        Raises:
            BadImageError: there are none.
        """


def decoded(encoded: Encoded, size: tuple[int, int] | None, index: int) -> Array | BadImageError:
    """The levels of one image, (H, W) or (H, W, 3), or why it has none."""
    try:
        with encoded.open(index) as stream:
            return decode(stream, size)
    except BadImageError as error:
        return error
    except OSError as error:
        return BadImageError(error.strerror or "not readable")


def shape_of(encoded: Encoded, size: tuple[int, int] | None, index: int) -> Shape | BadImageError:
    """Channels, height and width of one image by its header, or why it has none."""
    try:
        with encoded.open(index) as stream:
            channels, height, width = header(stream)
    except BadImageError as error:
        return error
    except OSError as error:
        return BadImageError(error.strerror or "not readable")
    return channels, *(size or (height, width))


@dataclass(frozen=True)
class Decoding:
    """How a reader decodes.

    Args:
        shape: channels, height and width of every image.
        size: height and width to which each is resized, or None where they have them.
        skip_bad: replace an image that went bad, in place of refusing it.
        threads: so many at a time.
    """

    shape: Shape
    size: tuple[int, int] | None
    skip_bad: bool
    threads: int


class ImageReader(Reader):
    """Images decoded when they are asked for.

    Args:
        encoded: where their bytes are.
        kept: the numbers there of the good ones, (N,).
        how: what they are decoded to.
        support: what the values are.
        labels: class indices (N,), or None.
    """

    def __init__(
        self,
        encoded: Encoded,
        kept: Sequence[int],
        how: Decoding,
        support: Support,
        labels: Tensor | None,
    ) -> None:
        super().__init__(encoded.source, how.shape, support, labels)
        self.encoded, self.kept, self.how = encoded, kept, how
        self.pool = ThreadPoolExecutor(how.threads, "decode") if how.threads > 1 else None
        self.lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.kept)

    def shown(self, row: int) -> str:
        """The name of an image."""
        return printable(self.encoded.name(self.kept[row]), 40)

    def read(self, rows: Tensor) -> tuple[Tensor, list[int]]:
        """See `Reader.read`."""
        numbers = rows.tolist()
        x = np.zeros((len(numbers), *self.how.shape), np.uint8)
        mapped = map if self.pool is None or len(numbers) == 1 else self.pool.map
        bad: list[int] = []
        for i, image in enumerate(mapped(self._decoded, numbers)):
            if isinstance(image, BadImageError):
                self._is_bad(numbers[i], str(image))
                bad.append(i)
            else:
                x[i] = image if image.ndim == 2 else np.moveaxis(image, 2, 0)
        if not len(x):
            return torch.from_numpy(x), bad
        return examples_at(x, self.support, self.name, rows.numpy()), bad

    def _decoded(self, row: int) -> Array | BadImageError:
        """The levels of an image, of the shape that all have."""
        if row in self.bad:
            return BadImageError(self.bad[row])
        image = decoded(self.encoded, self.how.size, self.kept[row])
        if isinstance(image, BadImageError):
            return image
        channels, height, width = self.how.shape
        if image.shape[:2] != (height, width):
            return BadImageError(f"{image.shape[0]}x{image.shape[1]} pixels now")
        if channels == 1 and image.ndim == 3:
            return BadImageError("no longer grey")
        return image

    def _is_bad(self, row: int, reason: str) -> None:
        if not self.how.skip_bad:
            given = f"{self.shown(row)} ({reason})"
            remedy = "mend it or say --on-bad skip"
            raise refuse(self.name, "a source of good images", given, remedy)
        with self.lock:
            self.bad.setdefault(row, reason)

    def digest(self) -> str:
        """SHA-256 of every image's name and encoded size, and of the bytes of seeded ones."""
        digest = hashlib.sha256(f"{self.how.size}".encode())
        for index in self.kept:
            digest.update(
                f"{self.encoded.name(index)}\0{self.encoded.num_bytes(index)}\0".encode()
            )
        for row in sampled_rows(len(self), NUM_FINGERPRINTED).tolist():
            with self.encoded.open(self.kept[row]) as stream:
                digest.update(stream.read())
        return digest.hexdigest()
