"""Driver for blocking callers: performs the core's effects with plain sockets on the calling thread."""

from __future__ import annotations

import socket
import sys
import time
from typing import Any, TypeVar

from apothic._steps import Dial, Effect, Line, Pause, Receive, Say, Send, Steps

T = TypeVar("T")

RECEIVE_SIZE = 64 * 1024


def run(steps: Steps[T]) -> T:
    """Perform an operation and return its result; blocks until it ends.

    Whatever interrupts an effect, Ctrl-C included, is thrown into the operation, which decides what follows.
    """
    try:
        effect = next(steps)
        while True:
            try:
                result = _perform(effect)
            except BaseException as error:
                effect = steps.throw(error)
            else:
                effect = steps.send(result)
    except StopIteration as end:
        return end.value


def _perform(effect: Effect) -> Any:
    if isinstance(effect, Receive):
        effect.line.socket.settimeout(effect.timeout_s)
        return effect.line.socket.recv(RECEIVE_SIZE)
    if isinstance(effect, Send):
        effect.line.socket.settimeout(effect.timeout_s)
        return effect.line.socket.sendall(effect.data)
    if isinstance(effect, Dial):
        return _dial(effect)
    if isinstance(effect, Pause):
        return time.sleep(effect.seconds)
    if isinstance(effect, Say):
        return say(effect.text)
    return effect.function()


def _dial(effect: Dial) -> Line:
    sock = socket.create_connection((effect.host, effect.port), effect.timeout_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Line(sock)


def say(text: str) -> None:
    """Write one line to standard error; nothing happens when there is none."""
    if sys.stderr is not None:  # pyright: ignore[reportUnnecessaryComparison] - None without a console
        sys.stderr.write(f"{text}\n")
