"""Entries of a chunk, packed: the arguments of consecutive items of a map, or what became of them.

Each entry is its size as a big-endian u32 and then so many bytes, of which the first says what the rest is:

    j   JSON in UTF-8
    p   pickle, protocol 5
    e   a failed item: the error as JSON (`apothic.wire.runner.error_to_json`); only among outcomes

The rest of an argument encodes the item: the one positional argument of the call, or the list or tuple of all of them
when the items are spread.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

_SIZE = struct.Struct(">I")
_size_at = _SIZE.unpack_from

ENTRY_OVERHEAD = _SIZE.size
"""Bytes that an entry takes beside its own."""

ENCODINGS = {b"j": "json", b"p": "pickle"}
"""First byte of an entry to the encoding of the value behind it."""

KINDS = {encoding: kind for kind, encoding in ENCODINGS.items()}
"""The other way round."""

ERROR = b"e"


def pack(entries: Iterable[bytes]) -> bytes:
    """Return entries behind each other, each behind its size."""
    size = _SIZE.pack
    return b"".join([part for entry in entries for part in (size(len(entry)), entry)])


def unpack(data: bytes) -> list[bytes]:
    """Return the entries of packed data, in order.

    Raises:
        ValueError: The sizes do not fit the data.
    """
    found: list[bytes] = []
    add = found.append
    start, end = 0, len(data)
    while start < end:
        begin = start + ENTRY_OVERHEAD
        start = begin + _size(data, start, end)
        add(data[begin:start])
    return found


def count(data: bytes) -> int:
    """Return how many entries packed data has.

    Raises:
        ValueError: The sizes do not fit the data.
    """
    found, start, end = 0, 0, len(data)
    while start < end:
        start += ENTRY_OVERHEAD + _size(data, start, end)
        found += 1
    return found


def cut(data: bytes, begin: int, count: int) -> bytes:
    """Return `count` entries of packed data, packed, from the entry number `begin` (from 0) on.

    Raises:
        ValueError: The data has fewer entries, or the sizes do not fit it.
    """
    if begin < 0 or count < 0:
        raise ValueError("entries are counted from 0")
    first = _skip(data, 0, begin)
    return data[first : _skip(data, first, count)]


def _skip(data: bytes, start: int, entries: int) -> int:
    end = len(data)
    for _ in range(entries):
        if start >= end:
            raise ValueError("packed data has fewer entries")
        start += ENTRY_OVERHEAD + _size(data, start, end)
    return start


def _size(data: bytes, start: int, end: int) -> int:
    """Return the size of the entry whose size stands at `start`; the whole entry is there."""
    if end - start < ENTRY_OVERHEAD:
        raise ValueError("packed data ends within a size")
    size: int = _size_at(data, start)[0]
    if size > end - start - ENTRY_OVERHEAD:
        raise ValueError("packed data ends within an entry")
    return size
