"""A moment that is moved again and again, on one timer of the event loop: making a timer for each costs more than the
work that it guards, where one event goes to a thousand watchers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Alarm:
    """Calls `ring` when the moment that was set last has come. Close it when done.

    Moving the moment to a later one, or stopping, touches no timer.
    """

    __slots__ = ("_at", "_loop", "_ring", "_timer", "_timer_at")

    def __init__(self, ring: Callable[[], object]) -> None:
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def set(self, at: float) -> None:
        """Ring at this time of the event loop and at no other."""
        self._at = at
        if self._timer is None or at < self._timer_at:
            self._start(at)

    def stop(self) -> None:
        """Do not ring."""
        self._at = None

    def close(self) -> None:
        """Never ring again; twice is fine."""
        self._at = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = self._loop.call_at(at, self._look), at

    def _look(self) -> None:
        self._timer = None
        if self._at is None:
            return
        if self._loop.time() < self._at:
            self._start(self._at)
            return
        self._at = None
        self._ring()
