"""Archives in WebDataset's layout: ``*.tar`` files whose members share a key, one key an example.

    0001.jpg  0001.cls  0001.json  0002.jpg  …        key . ending

Each archive is gone through once to note where the members lie; images are then read in place, by
their number and in any order. Nothing is unpacked to the disk, and a member that is no image or
label is never read. Labels are the member ``cls``, or what the caller names: another ending, or
a key of the member ``json``.

References:
    The WebDataset format, https://github.com/webdataset/webdataset.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from lowerbound.data.base import Rows
from lowerbound.data.decoding import BadImageError, ImageSize
from lowerbound.data.encoded import Encoded
from lowerbound.data.folders import IMAGE_ENDINGS
from lowerbound.data.images import read_images
from lowerbound.data.stored import DataLimits, StoredRows
from lowerbound.data.values import Array
from lowerbound.distributions.support import Support
from lowerbound.errors import InputError, printable, refuse
from lowerbound.files import MAX_TEXT_BYTES

__all__ = ["find_archives", "read_archives"]

MAX_IMAGE_BYTES = 2**28  # encoded
BLOCK_BYTES = 512
Place = tuple[int, int, int]  # archive, offset, size


@dataclass
class Sample:
    """Where the members of one key lie, by their ending without the dot."""

    key: str
    members: dict[str, Place] = field(default_factory=dict)


class ArchivedImages(Encoded):
    """Images that are members of archives.

    Args:
        source: where they all are.
        archives: the files, in order.
        names: what to call each image.
        places: where each lies.
    """

    def __init__(
        self, source: Path, archives: list[Path], names: list[str], places: list[Place]
    ) -> None:
        self.source, self.archives = str(source), archives
        self.names, self.places = names, places

    def __len__(self) -> int:
        return len(self.places)

    def name(self, index: int) -> str:
        """The member's name, behind its archive's."""
        return f"{self.archives[self.places[index][0]].name}/{self.names[index]}"

    def num_bytes(self, index: int) -> int:
        """Size of the member."""
        return self.places[index][2]

    def open(self, index: int) -> IO[bytes]:
        """See `Encoded.open`."""
        size = self.places[index][2]
        if size == 0 or size > MAX_IMAGE_BYTES:
            raise BadImageError("empty" if size == 0 else f"{size} bytes are too many")
        data = self.content(self.places[index])
        if len(data) < size:
            raise BadImageError("truncated")
        return io.BytesIO(data)

    def content(self, place: Place) -> bytes:
        """The bytes of a member, as many as there are."""
        archive, offset, size = place
        # Opened each time: of thousands of archives not all may be open at once.
        with open(self.archives[archive], "rb") as file:
            file.seek(offset)
            return file.read(size)


def find_archives(path: Path) -> list[Path]:
    """The archive itself, or the ``*.tar`` files of a folder, in sorted order."""
    if not path.is_dir():
        return [path]
    return sorted(p for p in path.glob("*.tar") if p.is_file() and not p.name.startswith("."))


def read_archives(
    path: Path,
    *,
    labels: str | None = None,
    image_size: ImageSize | None = None,
    on_bad: str = "error",
    support: Support | None = None,
    limits: DataLimits | None = None,
) -> Rows | StoredRows:
    """The images of one archive, or of all archives of a folder, as levels (N, C, H, W).

    Args:
        path: a ``.tar`` file, or a folder of them.
        labels: the ending of the members that hold labels, or a key of their ``json``; by default
            ``cls`` where there is one.
        image_size: see `read_folder`, as the other arguments.
        on_bad: error or skip.
        support: by default 256 levels.
        limits: what may be held in memory.

    Raises:
        InputError: not an archive, without images, or as `read_folder`.
    """
    archives = find_archives(path)
    samples = [
        sample for number, archive in enumerate(archives) for sample in samples_of(archive, number)
    ]
    ending = next((e for s in samples for e in s.members if f".{e}".endswith(IMAGE_ENDINGS)), None)
    if ending is None:
        raise refuse(path, "an archive of images", "none", "check the path")
    samples = [sample for sample in samples if ending in sample.members]
    names = [f"{sample.key}.{ending}" for sample in samples]
    places = [sample.members[ending] for sample in samples]
    images = ArchivedImages(path, archives, names, places)
    texts = label_texts(images, samples, labels)

    def labels_of(kept: list[int]) -> tuple[Array | None, tuple[str, ...]]:
        return (None if texts is None else as_labels([texts[i] for i in kept])), ()

    return read_images(
        images, labels_of, image_size=image_size, on_bad=on_bad, support=support, limits=limits
    )


def samples_of(archive: Path, number: int) -> Iterator[Sample]:
    """The samples of an archive, in its order; members of one key follow one another."""
    sample = Sample("")
    try:
        with tarfile.open(archive, "r:") as tar:
            for member in tar:
                folder, _, base = member.name.rpartition("/")
                stem, dot, ending = base.partition(".")
                if not member.isreg() or not (stem and dot):
                    continue
                key = f"{folder}/{stem}" if folder else stem
                if key != sample.key:
                    if sample.members:
                        yield sample
                    sample = Sample(key)
                sample.members[ending.lower()] = (number, member.offset_data, member.size)
                tar.members = []  # type: ignore[attr-defined]  # all that was seen: nobody reads it
            check_end(archive, tar.offset)
    except InputError:
        raise
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        remedy = "fetch it again; a compressed one must be unpacked to .tar"
        raise refuse(archive, "a whole .tar file", printable(error, 80), remedy) from error
    if sample.members:
        yield sample


def check_end(archive: Path, offset: int) -> None:
    """Refuse an archive without the zeros that mark its end: examples would be missing."""
    with open(archive, "rb") as file:
        file.seek(offset)
        if file.read(BLOCK_BYTES) != bytes(BLOCK_BYTES):
            remedy = "fetch or write it again"
            raise refuse(archive, "a whole .tar file", "one that is cut off", remedy)


def label_texts(
    images: ArchivedImages, samples: list[Sample], labels: str | None
) -> list[str] | None:
    """What each sample says its label is, or None where no label is meant."""
    wanted = "cls" if labels is None else labels.lower()
    having = [wanted in sample.members for sample in samples]
    if all(having):
        return [text_of(images, sample, wanted).strip() for sample in samples]
    if labels is None and not any(having):
        return None
    if labels is None or any(having) or not all("json" in s.members for s in samples):
        lacking = samples[having.index(False)].key
        raise refuse("labels", f"a member {wanted} of every key", f"none of {lacking}")
    found = []
    for sample in samples:
        try:
            found.append(str(json.loads(text_of(images, sample, "json"))[labels]))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            given = f"{sample.key}.json without it"
            raise refuse("labels", f"a key of every json in {images.source}", given) from error
    return found


def text_of(images: ArchivedImages, sample: Sample, ending: str) -> str:
    """A short member as text."""
    place = sample.members[ending]
    if place[2] > MAX_TEXT_BYTES:
        raise refuse(f"{sample.key}.{ending}", f"at most {MAX_TEXT_BYTES} bytes", place[2])
    try:
        return images.content(place).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"'{printable(sample.key)}.{ending}' must be text in UTF-8") from error


def as_labels(texts: list[str]) -> Array:
    """Integers where all are, else the texts."""
    array = np.array(texts)
    return array.astype(np.int64) if all(t.isdecimal() and len(t) < 19 for t in texts) else array
