"""Bytes of a process on this machine into a file: written, hashed and flushed to the disk side by side.

Hashing takes longest, so it has a thread of its own and the others work in its shadow. Each waits for the next one's
buffers, so no more than those are in memory.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO

from apothic_server.ports.blobs import DigestMismatch, Fill

PIECE = 256 * 1024
PIECES = 8
FLUSH_BYTES = 64 * PIECE
"""So much is written before the disk is told to begin with it."""


def take_in(file: IO[bytes], fill: Fill, size: int) -> str:
    """Write `size` bytes into an empty file, which is closed, and return their SHA-256; blocks until they are on disk.

    Raises:
        DigestMismatch: There are fewer.
    """
    digest = hashlib.sha256()
    buffers = [memoryview(bytearray(min(PIECE, size))) for _ in range(PIECES)]
    hashing: list[Future[None] | None] = [None] * PIECES
    flushing: Future[None] | None = None
    at, flushed, turn = 0, 0, 0
    with file, ThreadPoolExecutor(1) as hasher, ThreadPoolExecutor(1) as flusher:
        while at < size:
            before = hashing[turn]
            if before is not None:
                before.result()
            view = buffers[turn][: min(PIECE, size - at)]
            _fill(view, fill)
            hashing[turn] = hasher.submit(digest.update, view)
            _write(file, view)
            at += len(view)
            turn = (turn + 1) % PIECES
            if at - flushed >= FLUSH_BYTES and (flushing is None or flushing.done()):
                flushed, flushing = at, flusher.submit(os.fdatasync, file.fileno())
        for one in (*hashing, flushing):
            if one is not None:
                one.result()
        os.fsync(file.fileno())
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
