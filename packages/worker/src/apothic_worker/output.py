"""The pipes that carry a runner's standard output and error."""

from __future__ import annotations

import asyncio
import os
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
        self.write_ends: list[int] = []
        """Descriptors for the runner, stdout first; close them with `close_write_ends` when it has them."""
        for stream in ("stdout", "stderr"):
            read, write = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(read, False)
            self._read[stream] = read
            self.write_ends.append(write)
            self._loop.add_reader(read, self._readable, stream)

    def close_write_ends(self) -> None:
        """Close our copies of the runner's ends."""
        for descriptor in self.write_ends:
            os.close(descriptor)
        self.write_ends = []

    def drain(self) -> None:
        """Read what is there now, until both pipes are empty."""
        for stream in list(self._read):
            while self._readable(stream):
                pass

    def close(self) -> None:
        """Read what is left and close both pipes. Call when nothing writes to them any more."""
        self.drain()
        self.close_write_ends()
        for stream in list(self._read):
            self._close(stream)

    def _readable(self, stream: str) -> bool:
        descriptor = self._read.get(stream)
        if descriptor is None:
            return False
        try:
            data = os.read(descriptor, READ_MAX)
        except BlockingIOError:
            return False
        if not data:
            self._close(stream)
            return False
        self._sink(stream, data)
        return True

    def _close(self, stream: str) -> None:
        descriptor = self._read.pop(stream)
        self._loop.remove_reader(descriptor)
        os.close(descriptor)
