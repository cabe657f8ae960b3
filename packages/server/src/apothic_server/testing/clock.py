"""A clock that moves only when a test says so."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta


class VirtualClock:
    """Starts at a fixed instant; `advance` moves wall and monotonic time together, `step` the wall clock alone.

    Attributes:
        moved: Called with the seconds of every `advance`.
    """

    def __init__(self) -> None:
        self.moved: list[Callable[[float], None]] = []
        self._now = datetime(2030, 1, 1, tzinfo=UTC)
        self._monotonic = 1_000.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds
        for told in self.moved:
            told(seconds)

    def step(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
