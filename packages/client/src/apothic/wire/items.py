"""Items that a generator yields, packed by the batch as they travel and are kept.

A batch holds items of one encoding. JSON items are one JSON array; pickled items follow each other, each behind its
size as a big-endian u32. The batch's first item has an ordinal; ordinals of one attempt begin at 0 and grow by 1.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

_SIZE = struct.Struct(">I")


def pack_items(encoding: str, items: Sequence[bytes]) -> bytes:
    """Return a batch of encoded items; `encoding` is `json` or `pickle`."""
    if encoding == "json":
        return b"[" + b",".join(items) + b"]"
    return b"".join([_SIZE.pack(len(item)) + item for item in items])


def unpack_pickles(data: bytes) -> list[bytes]:
    """Return the items of a batch whose encoding is `pickle`.

    Raises:
        ValueError: The sizes do not fit the data.
    """
    found: list[bytes] = []
    start, end = 0, len(data)
    while start < end:
        if end - start < _SIZE.size:
            raise ValueError("a batch of items ends within a size")
        begin = start + _SIZE.size
        start = begin + _SIZE.unpack_from(data, start)[0]
        if start > end:
            raise ValueError("a batch of items ends within an item")
        found.append(data[begin:start])
    return found
