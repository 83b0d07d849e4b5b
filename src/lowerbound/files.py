"""Files that are whole or absent: atomic writes, sizes checked before reading, safe paths.

Everything the library writes goes through `atomic_output`: a temporary file beside the target,
flushed to the disk, then renamed, so that a crash leaves the old file or the new one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
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
    "fsync_folder",
    "load_json",
    "save_json",
    "save_text",
    "sha256",
]

FORMAT_VERSION = 1
MAX_FILE_BYTES = 4 * 2**30  # one data file, after decompression
MAX_PIXELS = 2**26  # one image
MAX_TEXT_BYTES = 2**20  # a config, a manifest


def fsync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename inside it survives power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except OSError as error:
        raise ResourceError(
            f"could not write '{printable(path)}': {error.strerror or error}; "
            "free some space or choose another folder with --out"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


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
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise refuse(
            path, f"of format_version {FORMAT_VERSION} or older", version, "upgrade lowerbound"
        )


def sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
