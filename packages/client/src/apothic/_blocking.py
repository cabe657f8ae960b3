"""Driver for blocking callers: performs the core's effects with plain sockets on the calling thread."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from apothic._steps import Dial, Effect, Line, Pause, Receive, Say, Send, Steps

T = TypeVar("T")

RECEIVE_SIZE = 64 * 1024
UNIX_PATH_MAX = 100
"""Bytes of a path that every kernel takes as an address."""
LOOK_AROUND_S = 0.5
"""Longest sleep in the kernel. A Ctrl-C that comes just before one, or in another thread, does not end it."""

try:
    _handlers: Any = importlib.import_module("_signal")
    """The functions of `signal` without their search for an enum, which costs a call more than all its system calls."""
except ImportError:
    _handlers = signal


class Interrupts:
    """Lets Ctrl-C interrupt waiting only.

    Python raises KeyboardInterrupt between any two instructions, so received bytes could be lost on their way into the
    operation. While a call is guarded, a Ctrl-C outside of waiting is kept and raised at the next wait.
    """

    def __init__(self) -> None:
        self.is_pending = False
        self._is_waiting = False

    def handle(self, _signal: int, _frame: FrameType | None) -> None:
        """Raise or keep one Ctrl-C."""
        if self._is_waiting:
            self._is_waiting = False
            raise KeyboardInterrupt
        self.is_pending = True

    def waiting(self) -> Interrupts:
        """Return what lets Ctrl-C interrupt a `with` block, at once when one is kept."""
        return self

    def __enter__(self) -> None:
        self._is_waiting = True
        if self.is_pending:
            self._is_waiting = self.is_pending = False
            raise KeyboardInterrupt

    def __exit__(self, *_: object) -> None:
        self._is_waiting = False


def run(steps: Steps[T]) -> T:
    """Perform an operation and return its result; blocks until it ends. Ctrl-C ends it anywhere."""
    return _run(steps, Interrupts())


def run_guarded(steps: Steps[T]) -> T:
    """Perform an operation that decides itself what Ctrl-C does; blocks until it ends.

    Outside the main thread, and when the program handles Ctrl-C in its own way, this is `run`.
    """
    is_main = threading.get_ident() == threading.main_thread().ident
    if not is_main or _handlers.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return run(steps)
    interrupts = Interrupts()
    _handlers.signal(signal.SIGINT, interrupts.handle)
    try:
        result = _run(steps, interrupts)
    finally:
        _handlers.signal(signal.SIGINT, signal.default_int_handler)
    if interrupts.is_pending:
        raise KeyboardInterrupt
    return result


def perform(effect: Effect, interrupts: Interrupts) -> Any:
    """Perform one effect and return its result."""
    if isinstance(effect, Receive):
        return _receive(effect, interrupts)
    if isinstance(effect, Send):
        return _send(effect)
    if isinstance(effect, Say):
        return say(effect.text)
    with interrupts.waiting():
        if isinstance(effect, Dial):
            return _dial(effect)
        return time.sleep(effect.seconds) if isinstance(effect, Pause) else effect.function()


def say(text: str) -> None:
    """Write one line to standard error; nothing happens when there is none."""
    if sys.stderr is not None:  # pyright: ignore[reportUnnecessaryComparison] - None without a console
        sys.stderr.write(f"{text}\n")


def _run(steps: Steps[T], interrupts: Interrupts) -> T:
    try:
        effect = next(steps)
        while True:
            try:
                result = perform(effect, interrupts)
            except BaseException as error:
                effect = steps.throw(error)
            else:
                effect = steps.send(result)
    except StopIteration as end:
        return end.value


def _send(effect: Send) -> None:
    sock, data = effect.line.socket, effect.data
    try:
        sent = sock.send(data)
    except BlockingIOError:
        sent = 0
    if sent == len(data):
        return
    sock.settimeout(effect.timeout_s)
    try:
        sock.sendall(memoryview(data)[sent:])
    finally:
        sock.setblocking(False)


def _receive(effect: Receive, interrupts: Interrupts) -> bytes:
    line, left_s = effect.line, effect.timeout_s
    poll = line.readable.poll
    until = time.monotonic() + left_s
    while True:
        with interrupts:
            found = poll(min(left_s, LOOK_AROUND_S) * 1000)
        try:
            if found:
                return line.socket.recv(RECEIVE_SIZE)
        except BlockingIOError:
            pass
        if (left_s := until - time.monotonic()) <= 0:
            raise TimeoutError("timed out")


def _dial(effect: Dial) -> Line:
    if effect.path is not None:
        return _dial_unix(effect.path, effect.timeout_s)
    sock = socket.create_connection((effect.host, effect.port), effect.timeout_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)
    return Line(sock)


def _dial_unix(path: str, timeout_s: float) -> Line:
    line = Line(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    line.socket.settimeout(timeout_s)
    with unix_address(path) as address:
        line.socket.connect(address)
    line.socket.setblocking(False)
    return line


@contextmanager
def unix_address(path: str) -> Generator[str]:
    """Yield an address of a Unix socket that fits the kernel's bound, however long the path is."""
    if len(os.fsencode(path)) <= UNIX_PATH_MAX:
        yield path
        return
    folder, name = os.path.split(path)
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)
