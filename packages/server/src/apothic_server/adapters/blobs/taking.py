"""Bytes of a process on this machine into a file: written, hashed and flushed to the disk side by side.

Hashing takes longest, so it has a thread of its own and the others work in its shadow. Each waits for the next one's
buffers, so no more than those are in memory. The kernel is told to write what has come, and writes by itself; the one
flush at the end finds little left to do, and is over before the last pieces are hashed.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Any, cast

from apothic_server.ports.blobs import DigestMismatch, Fill

PIECE = 512 * 1024
PIECES = 8
WRITE_OUT_BYTES = 16 * PIECE
"""So much comes before the disk is told to begin with it."""

_WRITE = 2
"""`SYNC_FILE_RANGE_WRITE`: begin to write, and wait for nothing."""


def _write_out() -> Callable[[int, int, int], Any]:
    """Return what has the kernel begin to write a part of a file: descriptor, offset, size. Only a hint."""
    try:
        found = cast("Any", ctypes.CDLL(None)).sync_file_range
    except (AttributeError, OSError):
        return lambda _descriptor, _offset, _size: None
    found.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return lambda descriptor, offset, size: found(descriptor, offset, size, _WRITE)


_begin_to_write = _write_out()


def take_in(file: IO[bytes], fill: Fill, size: int) -> str:
    """Write `size` bytes into an empty file, which is closed, and return their SHA-256; blocks until they are on disk.

    Raises:
        DigestMismatch: There are fewer.
    """
    digest = hashlib.sha256()
    buffers = [memoryview(bytearray(min(PIECE, size))) for _ in range(min(PIECES, -(-size // PIECE)))]
    hashing: list[Future[None] | None] = [None] * len(buffers)
    at, begun, turn = 0, 0, 0
    with file, ThreadPoolExecutor(1) as hasher:
        while at < size:
            before = hashing[turn]
            if before is not None:
                before.result()
            view = buffers[turn][: min(PIECE, size - at)]
            _fill(view, fill)
            hashing[turn] = hasher.submit(digest.update, view)
            _write(file, view)
            at += len(view)
            turn = (turn + 1) % len(buffers)
            if at - begun >= WRITE_OUT_BYTES:
                _begin_to_write(file.fileno(), begun, at - begun)
                begun = at
        os.fsync(file.fileno())
        for one in hashing:
            if one is not None:
                one.result()
    return digest.hexdigest()


def _fill(view: memoryview, fill: Fill) -> None:
    while view:
        count = fill(view)
        if not count:
            raise DigestMismatch("the bytes ended early")
        view = view[count:]


def _write(file: IO[bytes], view: memoryview) -> None:
    while view:
        view = view[file.write(view) :]
