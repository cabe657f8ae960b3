"""Ctrl-C while things are shown one by one: what was shown is also noted, so that reading on repeats nothing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """Puts one Ctrl-C off while it is held; a second one is obeyed at once, because showing may block for long."""

    def __init__(self) -> None:
        self._is_held = False
        self._is_pending = False

    def handle(self, _signal: int, _frame: FrameType | None) -> None:
        """Raise or keep one Ctrl-C."""
        if not self._is_held or self._is_pending:
            raise KeyboardInterrupt
        self._is_pending = True

    @contextmanager
    def held(self) -> Generator[None, None, None]:
        """Keep a Ctrl-C until the block has ended."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
        if self._is_pending:
            self._is_pending = False
            raise KeyboardInterrupt


@contextmanager
def guarded() -> Generator[Interrupts, None, None]:
    """Let the block hold Ctrl-C. Outside the main thread, and when something else handles Ctrl-C, nothing is held."""
    interrupts = Interrupts()
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interrupts
        return
    signal.signal(signal.SIGINT, interrupts.handle)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
