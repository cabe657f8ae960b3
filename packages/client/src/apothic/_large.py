"""Large values: encoded without a copy of what they hold, decoded from a file that is mapped into memory.

Arrays and other buffers, and `bytes`, are hashed and sent from where they lie, so they must not change meanwhile. What
is decoded sees its buffers in a private map of the file: it may write to those that were writable, and only what it
touches is read into memory. The form of the bytes is that of `apothic.wire.large`.

This module runs in the SDK and in runners; the control plane never imports it (G19.3).
"""

from __future__ import annotations

import io
import mmap
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from apothic._serialize import ValueTooLarge, dump_arguments, dump_result, load
from apothic.wire.large import ALIGNMENT, ENTRY, LARGE, MARK, TAIL, Reference, parse_tail
from apothic.wire.limits import LARGE_VALUE_MAX, MIB
from apothic.wire.values import Value

PIECE = 256 * 1024
HELD_FROM = 64 * 1024
"""Bytes that a pickler writes at once are held as they are from this size on, and collected below it."""


@dataclass(frozen=True)
class LargeBody:
    """An encoded large value in memory, most of it where the value itself has it.

    Attributes:
        size_bytes: Size of all parts.
        python: As of a `Value`.
    """

    parts: tuple[memoryview, ...]
    size_bytes: int
    python: str | None

    @cached_property
    def reference(self) -> Reference:
        """Names the bytes, which are hashed when it is asked for first; whoever stores them may know it without."""
        import hashlib

        digest = hashlib.sha256()
        for part in self.parts:
            digest.update(part)
        return Reference(digest.hexdigest(), self.size_bytes)

    def value(self, reference: Reference) -> Value:
        """Return what travels in its place."""
        return Value(LARGE, reference.encode(), self.python)

    def pieces(self, start: int = 0, piece: int = PIECE) -> Iterator[memoryview]:
        """Yield the bytes from `start` on, at most `piece` at once."""
        for part in self.parts:
            skipped = min(start, len(part))
            start -= skipped
            for offset in range(skipped, len(part), piece):
                yield part[offset : offset + piece]


def encode_large_arguments(
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    main_alias: str | None = None,
    main_names: Collection[str] | None = None,
) -> LargeBody:
    """Encode arguments that `encode_arguments` found too large; errors and arguments as there.

    Raises:
        ValueTooLarge: They exceed `LARGE_VALUE_MAX`.
    """
    sink = _Sink("the arguments")
    python = dump_arguments(args, kwargs, sink, sink.add_buffer, main_alias=main_alias, main_names=main_names)
    return sink.finish(python)


def encode_large_result(result: object) -> LargeBody:
    """Encode a result that `encode_result` found too large; errors as there.

    Raises:
        ValueTooLarge: It exceeds `LARGE_VALUE_MAX`.
    """
    sink = _Sink("the result")
    return sink.finish(dump_result(result, sink, sink.add_buffer))


def decode_large(descriptor: int, value: Value, *, main_alias: str | None = None) -> Any:
    """Return the object whose bytes a file has; otherwise as `decode`. The descriptor is closed.

    Args:
        descriptor: Of a file that nobody changes, open for reading.
        value: The reference that named the file.
        main_alias: As for `decode`.

    Raises:
        ValueError: The file is no large value.
    """
    with io.open(descriptor, "rb") as file:  # noqa: UP020 - a descriptor, not a path
        size = os.fstat(file.fileno()).st_size
        if size < TAIL:
            raise ValueError("the bytes are no large value")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        whole = memoryview(mapped)
        pickle_size, count = parse_tail(bytes(whole[size - TAIL :]), size)
        table = size - TAIL - count * ENTRY.size
        buffers: list[memoryview] = []
        for offset, length in ENTRY.iter_unpack(whole[table : size - TAIL]):
            if offset < pickle_size or offset + length > table:
                raise ValueError("the large value is cut off")
            buffers.append(whole[offset : offset + length])
        file.seek(0)
        return load(file, buffers, value.python, main_alias=main_alias)


class _Sink:
    """Takes what a pickler writes and its buffers; a file to the pickler."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._parts: list[memoryview] = []
        self._small = bytearray()
        self._size = 0
        self._buffers: list[memoryview] = []
        self._total = 0

    def write(self, data: Any) -> int:
        """Take bytes of the pickle; those of a large object are the object's own."""
        view = memoryview(data)
        size = view.nbytes
        self._count(size)
        self._size += size
        if size >= HELD_FROM:
            self._flush()
            self._parts.append(view.cast("B"))
        else:
            self._small += data
        return size

    def add_buffer(self, buffer: Any) -> None:
        """Take a buffer out of band."""
        raw: memoryview = buffer.raw()
        self._count(len(raw))
        self._buffers.append(raw)

    def finish(self, python: str | None) -> LargeBody:
        """Return the whole."""
        pickle_size = self._size
        table = bytearray()
        for buffer in self._buffers:
            padding = -self._size % ALIGNMENT
            self._small += bytes(padding)
            self._flush()
            self._size += padding
            table += ENTRY.pack(self._size, len(buffer))
            self._parts.append(buffer)
            self._size += len(buffer)
        self._small += table + ENTRY.pack(pickle_size, len(self._buffers)) + MARK
        self._size += len(table) + TAIL
        self._flush()
        self._count(self._size - self._total)
        return LargeBody(tuple(self._parts), self._size, python)

    def _flush(self) -> None:
        if self._small:
            self._parts.append(memoryview(bytes(self._small)))
            self._small = bytearray()

    def _count(self, size: int) -> None:
        self._total += size
        if self._total > LARGE_VALUE_MAX:
            gib = LARGE_VALUE_MAX // (1024 * MIB)
            raise ValueTooLarge(f"{self._what} cannot be sent: more than the {gib} GiB that a value may have")
