"""TERM and KILL for one runner's tree, through its zygote, which user code can stop."""

from __future__ import annotations

import asyncio

from apothic_worker import journal
from apothic_worker.zygote import KILL, Zygote

KILL_GRACE_S = 5.0
"""After a KILL that ended nothing: user code stopped or broke the zygote, which is then killed with all it holds."""


class Signals:
    """Signals to the tree of one runner.

    Args:
        zygote: Its parent.
        runner: Its name.
    """

    def __init__(self, zygote: Zygote, runner: str) -> None:
        self._zygote = zygote
        self._runner = runner
        self._loop = asyncio.get_running_loop()
        self._kill_timer: asyncio.TimerHandle | None = None
        self._zygote_timer: asyncio.TimerHandle | None = None

    def send(self, number: int, grace_s: float) -> None:
        """Signal the tree now, and kill it after the grace."""
        self._signal(number)
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        self._kill_timer = None if number == KILL else self._loop.call_later(grace_s, self._signal, KILL)

    def kill_later(self, delay_s: float) -> None:
        """Kill the tree after the delay, unless a KILL is planned."""
        self._kill_timer = self._kill_timer or self._loop.call_later(delay_s, self._signal, KILL)

    def close(self) -> None:
        """Nothing of the tree is left: signal nobody any more."""
        for timer in (self._kill_timer, self._zygote_timer):
            if timer is not None:
                timer.cancel()

    def _signal(self, number: int) -> None:
        self._zygote.signal(self._runner, number)
        if number == KILL and self._zygote_timer is None:
            self._zygote_timer = self._loop.call_later(KILL_GRACE_S, self._end_zygote)

    def _end_zygote(self) -> None:
        journal.warning("zygote.unresponsive", zygote=self._zygote.name, runner=self._runner)
        self._zygote.kill()
