"""Files that are whole or absent: atomic writes, sizes checked before reading, safe paths.

Everything the library writes goes through `atomic_output`: a temporary file beside the target,
flushed to the disk, then renamed, so that a crash leaves the old file or the new one. A flush that
fails is an error and never tried again: the kernel may have dropped the pages, and a second flush
would succeed over a hole. What was written is thrown away instead.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lowerbound.errors import InputError, ResourceError, printable, refuse

__all__ = [
    "FORMAT_VERSION",
    "MAX_FILE_BYTES",
    "MAX_PIXELS",
    "MAX_TEXT_BYTES",
    "atomic_output",
    "check_format_version",
    "flush",
    "load_json",
    "not_written",
    "save_json",
    "save_text",
    "sha256",
    "write_flushed",
]

FORMAT_VERSION = 1
MAX_FILE_BYTES = 4 * 2**30  # one data file, after decompression
MAX_PIXELS = 2**26  # one image
MAX_TEXT_BYTES = 2**20  # a config, a manifest
PIECES_AHEAD = 4  # of a file, written and not hashed yet


def flush(path: Path) -> None:
    """Flush a file, or a folder's entries, to the disk: what a power loss then leaves whole.

    Raises:
        OSError: the disk refused; what is at ``path`` must be thrown away.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_flushed(path: Path, pieces: Iterable[bytes | memoryview]) -> dict[str, Any]:
    """Write a new file piece by piece, and flush it.

    The pieces are hashed beside, in a thread: while the disk works the processor has time. At most
    four of them wait to be hashed, so that few are in memory where they are made one by one.

    Returns:
        Its ``size`` in bytes and its ``sha256``, as they should be read back.

    Raises:
        OSError: the disk refused, or something is at ``path`` already.
    """
    digest, size = hashlib.sha256(), 0
    waiting: deque[Future[None]] = deque()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with ThreadPoolExecutor(1) as hashing:  # left when all of them are hashed
            for piece in pieces:
                if len(waiting) == PIECES_AHEAD:
                    waiting.popleft().result()
                waiting.append(hashing.submit(digest.update, piece))
                size += len(piece)
                rest = memoryview(piece)
                while rest:  # a write may take less than it is given
                    rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        for hashed in waiting:
            hashed.result()
    finally:
        os.close(descriptor)
    return {"size": size, "sha256": digest.hexdigest()}


def not_written(what: str, path: Path, size: str, error: OSError, remedy: str) -> ResourceError:
    """The one form of an error of the disk, to be raised by the caller.

    Args:
        what: what could not be done, such as ``"could not write"``.
        path: to which file or folder.
        size: how much it is, such as ``"1,000 bytes needed"``.
        error: what the disk said.
        remedy: what to do.
    """
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        free = f"{shutil.disk_usage(folder).free:,}"
    except OSError:
        free = "an unknown number"
    return ResourceError(
        f"{what} '{printable(path)}': {error.strerror or error} "
        f"({size}, {free} free there); {remedy}"
    )


@contextlib.contextmanager
def atomic_output(path: Path | str) -> Iterator[Path]:
    """Give a temporary path with the same ending; on success it becomes ``path``, else nothing.

    Raises:
        ResourceError: the disk refused (full, read-only, …); ``path`` is as it was before.
    """
    path = Path(path)
    temporary = path.with_name(f".tmp-{secrets.token_hex(4)}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        flush(temporary)
        os.replace(temporary, path)
        flush(path.parent)
    except OSError as error:
        size = f"{_size(temporary):,} bytes came through"
        remedy = "free some space or choose another folder with --out"
        raise not_written("could not write", path, size, error, remedy) from error
    finally:
        with contextlib.suppress(OSError):  # a leftover is hidden, and swept by a resume
            temporary.unlink(missing_ok=True)


def _size(path: Path) -> int:
    """Bytes of a file so far; 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def save_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_output(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save_json(path: Path | str, value: Any) -> None:
    """Write JSON atomically; NaN and infinity are refused, since they are not JSON."""
    save_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def load_json(path: Path | str) -> dict[str, Any]:
    """Read a JSON object of at most a megabyte.

    Raises:
        InputError: missing, too large, not JSON, or not an object.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise refuse(path, "a JSON file of at most 1 MB", f"{path.stat().st_size} bytes")
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(
            f"'{printable(path)}' cannot be read as JSON: {printable(error)}"
        ) from error
    if not isinstance(value, dict):
        raise refuse(path, "a JSON object", type(value).__name__)
    return value


def check_format_version(document: dict[str, Any], path: Path | str) -> None:
    """Refuse a document that a newer version of the library wrote."""
    version = document.get("format_version")
    if version is None:
        raise refuse(path, "a whole document, with its format_version", "one without")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise refuse(
            path, f"of format_version {FORMAT_VERSION} or older", version, "upgrade lowerbound"
        )


def sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
