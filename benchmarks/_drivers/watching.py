"""Watchers of an event stream: many connections, one thread that notes when the first and the last has an event.

Standard library only: drivers run in the environments of the contenders.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

DELIVERY_S = 60.0
HEAD_MAX = 16_384


class Watchers:
    """Open connections that read one stream.

    Args:
        host: Where the server listens.
        head: The request that opens the stream, whole.
    """

    def __init__(self, host: tuple[str, int], head: bytes = b"") -> None:
        self.head = head
        self._host = host
        self._epoll = select.epoll()
        self._open: dict[int, socket.socket] = {}
        self._unread: dict[int, bytes] = {}

    def open(self, count: int) -> None:
        """Open until there are `count`, one after the other; a server that says when to come again is obeyed."""
        while len(self._open) < count:
            connection = socket.create_connection(self._host, timeout=DELIVERY_S)
            connection.sendall(self.head)
            received = b""
            while b"\r\n\r\n" not in received and len(received) < HEAD_MAX:
                data = connection.recv(4096)
                if not data:
                    raise ConnectionError("the server closed a watcher's connection")
                received += data
            head, _, rest = received.partition(b"\r\n\r\n")
            pause_s = _pause_s(head)
            if pause_s is not None:
                connection.close()
                time.sleep(pause_s)
                continue
            connection.setblocking(False)
            self._open[connection.fileno()] = connection
            self._unread[connection.fileno()] = rest
            self._epoll.register(connection.fileno(), select.EPOLLIN)

    def close(self) -> None:
        """Close all."""
        for number, connection in self._open.items():
            self._epoll.unregister(number)
            connection.close()
        self._open.clear()
        self._unread.clear()

    def deliver(self, cause: Callable[[], object], marker: bytes) -> tuple[int, int]:
        """Let something happen; returns the nanoseconds until the first and until every watcher has read `marker`."""
        missing = set(self._open)
        self._unread = dict.fromkeys(missing, b"")
        first = 0
        began = time.perf_counter_ns()
        cause()
        while missing:
            ready = self._epoll.poll(DELIVERY_S)
            if not ready:
                raise TimeoutError(f"{len(missing)} watchers got no event within {DELIVERY_S:.0f} s")
            for number, _ in ready:
                data = self._open[number].recv(65536)
                if not data:
                    raise ConnectionError("the server closed a watcher's connection")
                unread = self._unread[number] = (self._unread[number] + data)[-4096:]
                if number in missing and marker in unread:
                    missing.discard(number)
                    first = first or time.perf_counter_ns() - began
        return first, time.perf_counter_ns() - began


Extra = Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]]


def watched(watchers: Watchers, publish: Callable[[str], object]) -> Extra:
    """Return the requests that measure a stream.

    Args:
        watchers: Its watchers, none open yet.
        publish: Lets one event with this text happen.
    """
    count = 0

    def events(request: dict[str, Any]) -> dict[str, Any]:
        nonlocal count
        times: list[tuple[int, int]] = []
        for _ in range(request["events"]):
            count += 1
            text = f"tick-{count:08}"
            times.append(watchers.deliver(lambda text=text: publish(text), text.encode()))
        return {"first_ns": [first for first, _ in times], "last_ns": [last for _, last in times]}

    def watch(request: dict[str, Any]) -> dict[str, Any]:
        began = time.perf_counter()
        watchers.open(request["watchers"])
        return {"seconds": time.perf_counter() - began}

    def unwatch(_: dict[str, Any]) -> dict[str, Any]:
        watchers.close()
        return {}

    return {"events": events, "watch": watch, "unwatch": unwatch}


def _pause_s(head: bytes) -> float | None:
    """Return how long to wait before opening again; None when the stream is open."""
    status, *lines = head.decode("latin-1").split("\r\n")
    code = status.split(" ")[1]
    if code == "200":
        return None
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if code != "429":
        raise ConnectionError(f"a watcher was answered with {status}")
    return float(fields["retry-after"])


class Feeder:
    """The caller's end of a generator that runs remotely and yields each line it is sent."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(DELIVERY_S)
        self.port = self._listener.getsockname()[1]
        self._connection: socket.socket | None = None

    def accept(self) -> None:
        """Wait until the generator runs."""
        self._connection, _ = self._listener.accept()

    def send(self, text: str) -> None:
        """Let it yield `text`."""
        assert self._connection is not None
        self._connection.sendall(text.encode() + b"\n")
