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
from collections.abc import Generator, Iterable
from contextlib import contextmanager

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
    add, size_at = found.append, _size_at
    start, end = 0, len(data)
    with _whole():
        while start < end:
            begin = start + ENTRY_OVERHEAD
            start = begin + size_at(data, start)[0]
            add(data[begin:start])
    _check_end(start, end)
    return found


def count(data: bytes) -> int:
    """Return how many entries packed data has.

    Raises:
        ValueError: The sizes do not fit the data.
    """
    found, start, end, size_at = 0, 0, len(data), _size_at
    with _whole():
        while start < end:
            start += ENTRY_OVERHEAD + size_at(data, start)[0]
            found += 1
    _check_end(start, end)
    return found


def cut(data: bytes, begin: int, count: int) -> bytes:
    """Return `count` entries of packed data, packed, from the entry number `begin` (from 0) on.

    Raises:
        ValueError: The data has fewer entries, or the sizes do not fit it.
    """
    return cuts(data, [(begin, count)])[0]


def cuts(data: bytes, parts: Iterable[tuple[int, int]]) -> list[bytes]:
    """Return several cuts, in one pass over the data.

    Args:
        data: Packed.
        parts: Number of the first entry and how many, as for `cut`; ascending, and none touched by the one before.

    Raises:
        ValueError: As for `cut`.
    """
    found: list[bytes] = []
    at = place = 0
    for begin, count in parts:
        if begin < at or count < 0:
            raise ValueError("entries are counted from 0, and cut in their order")
        first = _skip(data, place, begin - at)
        place, at = _skip(data, first, count), begin + count
        found.append(data[first:place])
    return found


def kinds(data: bytes) -> bytes:
    """Return the first byte of each entry, in order.

    Raises:
        ValueError: The sizes do not fit the data, or an entry is empty.
    """
    found = bytearray()
    add, size_at = found.append, _size_at
    start, end = 0, len(data)
    with _whole():
        while start < end:
            size = size_at(data, start)[0]
            start += ENTRY_OVERHEAD
            if not size or start >= end:
                raise ValueError("packed data holds an entry that is none")
            add(data[start])
            start += size
    _check_end(start, end)
    return bytes(found)


def _skip(data: bytes, start: int, entries: int) -> int:
    size_at = _size_at
    with _whole():
        for _ in range(entries):
            start += ENTRY_OVERHEAD + size_at(data, start)[0]
    _check_end(start, len(data))
    return start


@contextmanager
def _whole() -> Generator[None]:
    """Let a size that is not all there be the caller's error: one that says too much leads beyond the data."""
    try:
        yield
    except struct.error:
        raise ValueError("packed data ends before an entry does, or has fewer entries") from None


def _check_end(start: int, end: int) -> None:
    if start > end:
        raise ValueError("packed data ends within an entry")
