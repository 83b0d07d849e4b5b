"""NumPy files: ``x.npy``, and ``x.npz`` with data under ``x``, labels under ``y`` or ``labels``.

The header is read here and never trusted, and values are taken straight from the bytes: nothing
is ever unpickled. An array of Python objects is refused by its header.
"""

from __future__ import annotations

import dataclasses
import difflib
import io
import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy_format

from lowerbound.data.base import Rows
from lowerbound.data.capped import read_exactly
from lowerbound.data.values import Array, Layout, as_rows
from lowerbound.distributions.support import Discrete, Support
from lowerbound.errors import InputError, printable, refuse

__all__ = ["read_digits", "read_npy", "read_npz"]

LABEL_KEYS = ("y", "labels")
MAX_HEADER_BYTES = 2**16
MAX_MEMBERS = 10_000
ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError),
    *(NotImplementedError, RuntimeError, UnicodeDecodeError, OverflowError),
)


def read_digits(support: Support | None = None) -> Rows:
    """The 1,797 handwritten digits that come with scikit-learn: 1×8×8, levels 0 to 16."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = bunch.images.astype(np.uint8)
    return as_rows(images, "digits", support=support, default=Discrete(17), labels=bunch.target)


def read_npy(path: Path, *, support: Support | None = None, layout: Layout = "auto") -> Rows:
    """Examples from an ``.npy`` file.

    Raises:
        InputError: damaged, an array of objects, or not finite numbers.
    """
    with open(path, "rb") as stream:
        array = array_from(stream, str(path))
    return as_rows(array, str(path), support=support, layout=layout)


def read_npz(
    path: Path,
    key: str = "",
    *,
    labels: str | None = None,
    support: Support | None = None,
    layout: Layout = "auto",
) -> Rows:
    """Examples, and labels if there are any, from an ``.npz`` file.

    Args:
        path: the file.
        key: the data's key; by default ``x``, else the only array that is not labels.
        labels: the labels' key; by default ``y`` or ``labels`` where it holds integers or text.
        support: what the values are, if not to be detected.
        layout: how axes are read.

    Raises:
        InputError: no such key, damaged, a decompression bomb, or an array of objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive_members(archive, path)
            key = data_key(list(members), path, key, labels)
            array = member_array(archive, members[key], f"{path}:{key}", path)
            label_key = chosen_label_key(list(members), path, key, labels)
            targets = None
            if label_key is not None:
                targets = member_array(archive, members[label_key], f"{path}:{label_key}", path)
    except ZIP_ERRORS as error:
        raise refuse(
            path, "a whole .npz file", printable(error, 80), "save it with numpy.savez"
        ) from error
    unusable = targets is not None and labels is None and targets.dtype.kind not in "biuU"
    usable = None if unusable else targets
    rows = as_rows(array, str(path), support=support, labels=usable, layout=layout)
    if unusable:
        note = (
            f"The array '{label_key}' holds neither integers nor text: it is not used as labels."
        )
        rows = dataclasses.replace(rows, warnings=(*rows.warnings, note))
    return rows


def archive_members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """The arrays of an archive by their key."""
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise refuse(path, f"of at most {MAX_MEMBERS} arrays", len(members), "save fewer arrays")
    found = {m.filename[: -len(".npy")]: m for m in members if m.filename.endswith(".npy")}
    if not found:
        raise refuse(path, "an .npz file of arrays", "no array", "save it with numpy.savez")
    return found


def missing_key(path: Path, role: str, key: str, keys: list[str]) -> InputError:
    """The refusal of a key that is not there, with the nearest one that is."""
    near = difflib.get_close_matches(key, keys, 1)
    remedy = f"did you mean '{printable(near[0], 40)}'?" if near else f"choose one for the {role}"
    return refuse(f"{path}:{key}", f"one of {printable(', '.join(keys), 80)}", key, remedy)


def data_key(keys: list[str], path: Path, key: str, labels: str | None) -> str:
    """Which array holds the data."""
    if key and key not in keys:
        raise missing_key(path, "data", key, keys)
    if key or "x" in keys:
        return key or "x"
    others = [k for k in keys if k not in (*LABEL_KEYS, labels)] or keys
    if len(others) > 1:
        shown = printable(", ".join(others), 80)
        raise refuse(path, "given with the key of its data", shown, f"say {path.name}:KEY")
    return others[0]


def chosen_label_key(keys: list[str], path: Path, key: str, labels: str | None) -> str | None:
    """Which array holds the labels, if one does."""
    if labels is not None and labels not in keys:
        raise missing_key(path, "labels", labels, keys)
    return labels or next((k for k in LABEL_KEYS if k in keys and k != key), None)


def member_array(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, path: Path
) -> Array:
    """One array of an archive, unpacked under a running cap."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # bzip2 and LZMA unpack a block at a time, however large, whatever we ask for
        raise refuse(name, "stored or deflated", "another compression", "save it with numpy.savez")
    packed_bytes = min(member.compress_size, path.stat().st_size)
    with archive.open(member) as stream:
        return array_from(stream, name, packed_bytes)


def array_from(stream: IO[bytes], name: str, packed_bytes: int | None = None) -> Array:
    """The array that a stream in NumPy's format holds, from its raw bytes."""
    shape, fortran_order, dtype = read_header(stream, name)
    if dtype.hasobject:
        raise refuse(
            name,
            "free of Python objects",
            f"dtype {dtype}",
            "convert it to numbers and save it again",
        )
    size = math.prod(shape) * dtype.itemsize
    if size == 0:
        raise refuse(name, "an array with at least one value", f"shape {shape}", "give some data")
    data = read_exactly(stream, size, name, packed_bytes)
    flat = np.frombuffer(data, np.uint8) != 0 if dtype.kind == "b" else np.frombuffer(data, dtype)
    return flat.reshape(shape, order="F" if fortran_order else "C")


def read_header(stream: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and type of the array behind a header of at most 64 KiB."""
    start = stream.read(8)
    readers = {
        b"\x01\x00": npy_format.read_array_header_1_0,
        b"\x02\x00": npy_format.read_array_header_2_0,
    }
    reader = readers.get(start[6:])
    if start[:6] != npy_format.MAGIC_PREFIX or reader is None:
        raise refuse(name, "a NumPy array", f"a file that starts with {start!r}", "use numpy.save")
    length = stream.read(2 if start[6] == 1 else 4)
    num_bytes = int.from_bytes(length, "little")
    if num_bytes > MAX_HEADER_BYTES:
        raise refuse(
            name, f"an array with a header of at most {MAX_HEADER_BYTES} bytes", num_bytes
        )
    header = io.BytesIO(length + stream.read(num_bytes))
    try:
        shape, fortran_order, dtype = reader(header)
    except Exception as error:  # NumPy evaluates a literal: hostile text fails in any way it likes
        raise refuse(
            name, "a NumPy array with a valid header", printable(error, 80), "save it again"
        ) from error
    if any(n < 0 for n in shape):
        raise refuse(name, "of a shape without negative sizes", shape, "save it again")
    return tuple(int(n) for n in shape), bool(fortran_order), dtype
