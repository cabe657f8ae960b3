"""Standard output and error of user code.

A runner with one job at a time lets its pipes speak for the job. With several at once the text that a call prints is
sent as `log` frames of exactly that call; text printed outside any call, or past Python's streams, still goes to the
pipes. The streams are replaced before the app is loaded, because `logging` keeps the stream it finds when it is
configured.
"""

from __future__ import annotations

import ctypes
import io
import os
import sys
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

_PENDING_MAX = 8 * 1024
"""Characters of an unfinished line that are kept back."""

_FRAME_TEXT_MAX = 16 * 1024
"""Characters in one frame; as escaped JSON they stay below the limit of a frame's head."""

_LINE_BUFFERED = 1  # _IOLBF of the C library


class CallOutput:
    """Collects what one call prints and hands it on by lines.

    Args:
        send: Receives the stream's name and a piece of text; must be safe to call from any thread.
        is_eager: A complete line is handed on at once, because somebody may be watching.
    """

    def __init__(self, send: Callable[[str, str], None], *, is_eager: bool = True) -> None:
        self._send = send
        self._is_eager = is_eager
        self._pending: dict[str, str] = {}
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._is_open = True

    @property
    def is_open(self) -> bool:
        """False after the call has ended, and in processes forked by it."""
        return self._is_open and os.getpid() == self._process

    @property
    def is_pending(self) -> bool:
        """Whether text was not handed on yet."""
        return bool(self._pending)

    def write(self, stream: str, text: str) -> int:
        """Add text; it is handed on when a line is complete."""
        with self._lock:
            # Taken out before it is sent: a cancellation raised in between must not make it appear twice.
            pending = self._pending.pop(stream, "") + text
            if (self._is_eager and "\n" in text) or len(pending) > _PENDING_MAX:
                self._hand_on(stream, pending)
            else:
                self._pending[stream] = pending
        return len(text)

    def flush(self) -> None:
        """Hand on unfinished lines."""
        with self._lock:
            while self._pending:
                self._hand_on(*self._pending.popitem())

    def close(self) -> None:
        """Hand on what is left; later text goes to the pipes."""
        self.flush()
        self._is_open = False

    def _hand_on(self, stream: str, text: str) -> None:
        for start in range(0, len(text), _FRAME_TEXT_MAX):
            self._send(stream, text[start : start + _FRAME_TEXT_MAX])


_output: ContextVar[CallOutput | None] = ContextVar("apothic_call_output", default=None)


def route_output(output: CallOutput) -> None:
    """Send what this context prints to `output`; call it in a fresh copy of the context."""
    _output.set(output)


class RoutedStream(io.TextIOWrapper):
    """A standard stream that gives text printed by a call to that call's `CallOutput`."""

    def __init__(self, buffer: Any, name: str) -> None:
        super().__init__(buffer, encoding="utf-8", errors="backslashreplace", line_buffering=True)
        self._stream = name

    def write(self, text: str, /) -> int:
        """Write `text` to the current call, or to the pipe outside any call."""
        output = _output.get()
        if output is None or type(text) is not str or not output.is_open:
            return super().write(text)
        return output.write(self._stream, text)

    def flush(self) -> None:
        """Hand on unfinished lines of the current call and of the pipe."""
        output = _output.get()
        if output is not None and output.is_open:
            output.flush()
        super().flush()


def install_streams() -> None:
    """Replace `sys.stdout` and `sys.stderr` of this process by routed streams over the same descriptors."""
    sys.stdout = sys.__stdout__ = RoutedStream(_buffer(sys.stdout, 1), "stdout")  # pyright: ignore[reportConstantRedefinition]
    sys.stderr = sys.__stderr__ = RoutedStream(_buffer(sys.stderr, 2), "stderr")  # pyright: ignore[reportConstantRedefinition]


def _buffer(stream: Any, descriptor: int) -> Any:
    if stream is not None:
        return stream.detach()
    return io.BufferedWriter(io.FileIO(descriptor, "w", closefd=False))


def flush_streams() -> None:
    """Push everything printed so far into the pipes; streams that user code closed or replaced badly are skipped."""
    _flush(sys.stdout)
    _flush(sys.stderr)
    if sys.stdout is not sys.__stdout__ or sys.stderr is not sys.__stderr__:
        _flush(sys.__stdout__)
        _flush(sys.__stderr__)


def _flush(stream: Any) -> None:
    try:
        if stream is not None:
            stream.flush()
    except (Exception, SystemExit):  # nobody is left to tell: the stream itself is broken
        return


def buffer_c_streams_by_line() -> None:
    """Make text printed by extensions through the C library visible line by line, like Python's."""
    library = ctypes.CDLL(None)
    for name in ("stdout", "stderr"):
        try:
            library.setvbuf(ctypes.c_void_p.in_dll(library, name), None, _LINE_BUFFERED, 0)
        except (ValueError, AttributeError):  # a C library that hides its streams
            return
