"""TERM in a runner that executes one call at a time: the call is interrupted, cleans up, and the process ends by it.

A worker sends TERM when the job was cancelled, when its time is over, and when it has to give the job up; KILL follows
after a grace. Outside a call, and in processes that user code forked, TERM is what it is everywhere: the end.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from apothic._runtime.context import JobCancelled
from apothic._runtime.output import flush_streams


def raise_cancelled() -> None:
    """Interrupt the code of a call where it is, also in `finally` reach of all its generators.

    Raises:
        JobCancelled: Always.
    """
    raise JobCancelled("the job was cancelled, or its time is over")


class Stopping:
    """What TERM does in this process.

    Attributes:
        interrupt: Interrupts the call that runs, at most once; None outside a call.
        is_asked: TERM came during a call.
    """

    def __init__(self) -> None:
        self.interrupt: Callable[[], None] | None = None
        self.is_asked = False
        self._process = os.getpid()

    def install(self) -> None:
        """Hear TERM, unless the app does so itself or this is no main thread."""
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            try:
                signal.signal(signal.SIGTERM, self._heard)
            except ValueError:
                return

    def was_asked(self) -> bool:
        """Whether TERM came during a call."""
        return self.is_asked

    def end_if_asked(self) -> None:
        """End the process by TERM if that came during a call."""
        if self.is_asked:
            flush_streams()
            _end()

    def _heard(self, _number: int, _frame: Any) -> None:
        if self.interrupt is None or os.getpid() != self._process:
            _end()
        elif not self.is_asked:
            self.is_asked = True
            self.interrupt()


def _end() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
