"""`timeout_s` of the calls of one runner: one timer for all, which a call that ends in time does not touch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from apothic_worker.attempt import Attempt


class TimeLimits:
    """Finds the calls that take too long; one that has ended, or was stopped, has no limit any more.

    Args:
        calls: The calls that run now, kept up to date by the runner.
        on_overdue: Called with each that is over its limit, and again until it has a verdict.
    """

    def __init__(self, calls: Mapping[str, Attempt], on_overdue: Callable[[Attempt], None]) -> None:
        self._calls = calls
        self._on_overdue = on_overdue
        self._timer: asyncio.TimerHandle | None = None
        self._at_ns = 0

    def watch(self, attempt: Attempt) -> None:
        """Look at all calls when this one may be over its limit, if not before."""
        due_ns = attempt.due_ns
        if self._timer is not None:
            if self._at_ns <= due_ns:
                return
            self._timer.cancel()
        self._at_ns = due_ns
        delay_s = max(0.0, (due_ns - time.monotonic_ns()) / 1e9)
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._look)

    def close(self) -> None:
        """Look no more; twice is fine."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        now_ns = time.monotonic_ns()
        for attempt in list(self._calls.values()):
            if attempt.verdict is not None or attempt.ended is not None:
                continue
            if attempt.due_ns <= now_ns:
                self._on_overdue(attempt)
            else:
                self.watch(attempt)
