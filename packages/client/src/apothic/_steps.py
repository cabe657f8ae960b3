"""What the SDK's core asks of the outside world, as values: the seam between sans-I/O logic and its two drivers.

An operation is a generator that yields effects and receives their results. `_blocking.run` performs effects with
blocking sockets, `_asynchronous.run` with asyncio; an error of an effect is thrown into the generator at the yield.
Everything that decides (HTTP, TLS, retries, resuming) is written once, as generators.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, TypeVar

from apothic._tls import Tls

T = TypeVar("T")

IDLE_S_MAX = 4.0
"""Age after which an idle connection is not used again: below the 5 s after which common servers close theirs."""

IDLE_LINES_MAX = 16
"""Idle connections kept per thread; a blocking thread needs one, an event loop as many as it has calls at once."""


class Line:
    """One connection, with its TLS state when there is any; its socket never blocks."""

    __slots__ = ("_readable", "idle_since", "socket", "tls")

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.tls: Tls | None = None
        self.idle_since = 0.0
        self._readable: select.poll | None = None

    @property
    def readable(self) -> select.poll:
        """Answers something when there are bytes to receive, or the end."""
        if self._readable is None:
            self._readable = select.poll()
            self._readable.register(self.socket, select.POLLIN)
        return self._readable

    def close(self) -> None:
        """Close the connection; closing twice is fine."""
        self.socket.close()

    def __del__(self) -> None:
        self.socket.close()


class Dial(NamedTuple):
    """Open a connection; answers a `Line`. With `path` to that Unix socket, else to host and port."""

    host: str
    port: int
    timeout_s: float
    path: str | None = None


class Send(NamedTuple):
    """Send all bytes; answers None. An error means that not all of them were accepted."""

    line: Line
    data: bytes | memoryview
    timeout_s: float


class Receive(NamedTuple):
    """Wait for bytes; answers them, `b""` at the end of the stream."""

    line: Line
    timeout_s: float


class Pause(NamedTuple):
    """Wait; answers None."""

    seconds: float


class Say(NamedTuple):
    """Write one line to standard error; answers None."""

    text: str


class Work(NamedTuple):
    """Run a function that blocks on files; answers its result."""

    function: Callable[[], Any]


Effect = Dial | Send | Receive | Pause | Say | Work
Steps = Generator[Effect, Any, T]
"""An operation: yields effects, receives their results, returns its own."""


def work(function: Callable[[], T]) -> Steps[T]:
    """Run a blocking function and return its result."""
    result: T = yield Work(function)
    return result


class IdleLines(threading.local):
    """Connections waiting for the next request, per thread; taken out while in use, so nothing is ever shared."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[Line] = []
        self._pid = os.getpid()

    def take(self, now: float) -> Line | None:
        """Return an idle connection that is still open, or None. Connections made before a fork are dropped."""
        if self._pid != os.getpid():
            self.close()
        while self._lines:
            line = self._lines.pop()
            # Anything to receive means that the server ended it.
            if now - line.idle_since <= IDLE_S_MAX and not line.readable.poll(0):
                return line
            line.close()
        return None

    def put(self, line: Line, now: float) -> None:
        """Keep a connection whose last answer was read to its end."""
        if len(self._lines) >= IDLE_LINES_MAX or self._pid != os.getpid():
            line.close()
            return
        line.idle_since = now
        self._lines.append(line)

    def close(self) -> None:
        """Close this thread's idle connections."""
        for line in self._lines:
            line.close()
        self._lines = []
        self._pid = os.getpid()
