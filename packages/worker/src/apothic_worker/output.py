"""The pipes that carry a runner's standard output and error."""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import struct
import termios
from collections.abc import Callable

READ_MAX = 64 * 1024
Sink = Callable[[str, bytes], None]
"""Takes `stdout` or `stderr` and bytes."""


class OutputPipes:
    """Two pipes read by the loop.

    Args:
        sink: Gets everything read, in order per stream.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        self._read: dict[str, int] = {}
        self._filled = select.poll()
        self.write_ends: list[int] = []
        """Descriptors for the runner, stdout first; close them with `close_write_ends` when it has them."""
        for stream in ("stdout", "stderr"):
            read, write = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(read, False)
            self._read[stream] = read
            self.write_ends.append(write)
            self._filled.register(read, select.POLLIN)
            self._loop.add_reader(read, self._readable, stream)

    def close_write_ends(self) -> None:
        """Close our copies of the runner's ends."""
        for descriptor in self.write_ends:
            os.close(descriptor)
        self.write_ends = []

    def drain(self) -> None:
        """Read what is there now. Whoever goes on writing meanwhile is not waited for."""
        if not self._filled.poll(0):
            return
        for stream, descriptor in list(self._read.items()):
            left = waiting(descriptor)
            while left > 0 and (size := self._readable(stream)):
                left -= size

    def close(self) -> None:
        """Read what is left and close both pipes. Call when nothing writes to them any more."""
        self.drain()
        self.close_write_ends()
        for stream in list(self._read):
            self._close(stream)

    def _readable(self, stream: str) -> int:
        """Read once and return how many bytes came."""
        descriptor = self._read.get(stream)
        if descriptor is None:
            return 0
        try:
            data = os.read(descriptor, READ_MAX)
        except BlockingIOError:
            return 0
        if not data:
            self._close(stream)
            return 0
        self._sink(stream, data)
        return len(data)

    def _close(self, stream: str) -> None:
        descriptor = self._read.pop(stream)
        self._loop.remove_reader(descriptor)
        self._filled.unregister(descriptor)
        os.close(descriptor)


def waiting(descriptor: int) -> int:
    """Return the bytes that can be read from a pipe or a stream socket now."""
    return struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))[0]
