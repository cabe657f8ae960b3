"""Large values: what travels in their place, and the form of their bytes.

An encoded value above `VALUE_MAX` is uploaded to the blob store of its org, and a reference to it travels as a value of
the encoding `large`: its SHA-256 in 64 lower-case hexadecimal digits, a space, and its size in bytes. Server and worker
carry the reference and never look inside the bytes, which are

    pickle, protocol 5 | buffers | table: u64 offset, u64 size of each buffer | u64 size of the pickle, u64 count | mark

Numbers are little-endian. Buffers are those that the pickle takes out of band, in its order, each at a multiple of
`ALIGNMENT`, so that whoever maps the file into memory can use them where they lie.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from apothic.wire.limits import LARGE_VALUE_MAX

LARGE = "large"
"""Encoding of a reference."""

BLOB_TYPE = "application/octet-stream"
UPLOAD_OFFSET = "Upload-Offset"
UPLOAD_COMPLETE = "Upload-Complete"
"""Headers that say how many bytes of a blob are stored and, as `?1` or `?0`, whether that is all of it."""

ALIGNMENT = 64
MARK = b"APOTHIC1"
ENTRY = struct.Struct("<QQ")
"""One buffer's offset and size; also the size of the pickle and the number of buffers before the mark."""

TAIL = ENTRY.size + len(MARK)
BUFFERS_MAX = 1_000_000
_REFERENCE = re.compile(rb"([0-9a-f]{64}) ([1-9][0-9]{0,11})")


@dataclass(frozen=True)
class Reference:
    """Names a blob of the org.

    Attributes:
        sha256: Digest of its bytes, 64 lower-case hexadecimal digits.
        size_bytes: Its size, 1 to `LARGE_VALUE_MAX`.
    """

    sha256: str
    size_bytes: int

    def encode(self) -> bytes:
        """Return the data of the value that stands for it."""
        return f"{self.sha256} {self.size_bytes}".encode()

    @staticmethod
    def parse(data: bytes) -> Reference:
        """Return what `encode` made.

        Raises:
            ValueError: The bytes are no reference.
        """
        found = _REFERENCE.fullmatch(data) if len(data) <= 80 else None
        if found is None or int(found[2]) > LARGE_VALUE_MAX:
            raise ValueError("no reference to a large value")
        return Reference(found[1].decode(), int(found[2]))


def parse_tail(tail: bytes, size_bytes: int) -> tuple[int, int]:
    """Return the size of the pickle and the number of buffers, from the last `TAIL` bytes of a blob.

    Raises:
        ValueError: They do not fit a blob of this size.
    """
    if len(tail) != TAIL or tail[ENTRY.size :] != MARK:
        raise ValueError("the bytes are no large value")
    pickle_size, count = ENTRY.unpack_from(tail)
    if count > BUFFERS_MAX or pickle_size + count * ENTRY.size + TAIL > size_bytes:
        raise ValueError("the large value is cut off")
    return pickle_size, count
