"""Turns of those who begin to watch, so that all watchers of a server do not come back to it at once (G15.3)."""

from __future__ import annotations

from math import ceil

from apothic_server.ports.clock import Clock

AT_ONCE = 100
"""Turns that are free when nobody came for a while."""

PER_S = 80
"""Turns that become free in a second."""

ADVICE_S_MAX = 30


class Turns:
    """Hands out turns: `AT_ONCE`, then `PER_S`; one that is given back is free at once, so only growth is bounded."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._free = float(AT_ONCE)
        self._counted_at = clock.monotonic()
        self._promised_until = self._counted_at

    def take(self) -> int | None:
        """Take a turn and return None, or return after how many whole seconds to come again, 1 to `ADVICE_S_MAX`.

        Whoever is sent away is told the time of a turn of its own, behind those who were sent away before.
        """
        now = self._clock.monotonic()
        self._free = min(AT_ONCE, self._free + (now - self._counted_at) * PER_S)
        self._counted_at = now
        if self._free >= 1:
            self._free -= 1
            return None
        self._promised_until = min(max(self._promised_until, now) + 1 / PER_S, now + ADVICE_S_MAX)
        return ceil(self._promised_until - now)

    def give_back(self) -> None:
        """Give a turn back."""
        self._free = min(AT_ONCE, self._free + 1)
