"""What is cancelled: a function that holds a connection to the driver, which ends when its process is gone.

Standard library only: drivers run in the environments of the contenders.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

from rounds import Round

START_S = 60.0


def hold(port: int) -> None:
    """Connect to the driver, say so, and wait for what never comes."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"x")
        connection.recv(1)


def cancelled(start: Callable[[int], Any], cancel: Callable[[Any], object]) -> Round:
    """Return the round that starts `hold` and cancels it; timed from the request to the end of its connection.

    Args:
        start: Starts `hold` with a port and returns what names it.
        cancel: Cancels that.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(START_S)
    port = listener.getsockname()[1]

    def once() -> int:
        handle = start(port)
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(START_S)
            if connection.recv(1) != b"x":
                raise RuntimeError("the function ended before it was cancelled")
            began = time.perf_counter_ns()
            cancel(handle)
            if connection.recv(1):
                raise RuntimeError("the function went on after it was cancelled")
            return time.perf_counter_ns() - began

    def run(calls: int, warm: int) -> list[int]:
        for _ in range(warm):
            once()
        return [once() for _ in range(calls)]

    return run
