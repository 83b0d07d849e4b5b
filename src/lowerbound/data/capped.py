"""Reading as many bytes as a header declares, from a file that may lie about it.

A declared size is a claim: memory grows with the bytes that really arrive, never with the claim,
and a compressed file that would grow beyond all reason is refused before it is unpacked.
"""

from __future__ import annotations

from typing import IO

from lowerbound.errors import refuse
from lowerbound.files import MAX_FILE_BYTES

__all__ = ["MAX_RATIO", "SMALL_BYTES", "read_exactly"]

CHUNK_BYTES = 2**20
MAX_RATIO = 200  # unpacked over packed; sparse binary images reach about 120
SMALL_BYTES = 2**28  # below this any ratio is harmless


def read_exactly(
    stream: IO[bytes], size: int, name: object, packed_bytes: int | None = None
) -> bytearray:
    """The next ``size`` bytes of ``stream``, which must be its last.

    Args:
        stream: positioned behind the header that declared ``size``.
        size: declared length in bytes.
        name: what to call the file in an error.
        packed_bytes: length in bytes before unpacking, of a compressed stream.

    Raises:
        InputError: too large, a decompression bomb, too short, or with bytes left over.
    """
    if size > MAX_FILE_BYTES:
        limit = f"at most {MAX_FILE_BYTES} bytes of data"
        raise refuse(name, limit, f"{size} bytes by its header", "split it")
    if packed_bytes is not None and size > max(SMALL_BYTES, MAX_RATIO * packed_bytes):
        given = f"{packed_bytes} bytes that declare {size}"
        raise refuse(name, f"packed at most 1:{MAX_RATIO}", given, "store it unpacked")
    data = bytearray()
    while len(data) < size:
        chunk = stream.read(min(CHUNK_BYTES, size - len(data)))
        if not chunk:
            given = f"{len(data)} bytes"
            raise refuse(
                name, f"{size} bytes behind its header", given, "it is cut off: fetch it again"
            )
        data += chunk
    if stream.read(1):  # also makes gzip and zip compare their checksums
        raise refuse(name, f"{size} bytes behind its header", "more", "write it again")
    return data
