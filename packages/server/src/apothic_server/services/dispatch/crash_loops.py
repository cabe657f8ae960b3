"""Crash loops: counts runners that come to nothing, and lets functions start the next one after a pause.

In memory only: a server that restarts counts from the beginning.
"""

from __future__ import annotations

import structlog

from apothic.wire.values import RemoteError
from apothic_server.domain.decide.crash_loop import CRASHES, NEUTRAL, after_crash, after_pause
from apothic_server.domain.fleet import Runner
from apothic_server.services.dispatch.board import Board

log = structlog.get_logger("apothic.dispatch")

FORGET_S = 3_600.0
"""A streak without a further crash is forgotten this long after its last pause."""


class CrashLoops:
    """Keeps the streaks of the fleet."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def ended(self, runner: Runner, outcome: str, error: RemoteError | None) -> None:
        """Learn from the end of an attempt in `runner`; called before anything is granted in consequence."""
        code = error.code if error is not None else ""
        if error is not None and outcome in ("failed", "timed_out") and code in CRASHES:
            is_first, runner.is_ending = not runner.is_ending, True
            if is_first and not runner.has_served:
                self._crashed(runner, error)
        elif outcome == "succeeded" or (outcome == "failed" and code not in NEUTRAL):
            runner.has_served = True
            self._board.fleet.streaks.pop(runner.group, None)

    def resume(self) -> float | None:
        """End the pauses that are over; return the seconds until the next one is, None without one."""
        now, streaks = self._board.clock.monotonic(), self._board.fleet.streaks
        waits_s: list[float] = []
        for group, before in list(streaks.items()):
            streak = streaks[group] = after_pause(before, now)
            if streak.is_paused:
                waits_s.append(streak.next_at - now)
            elif now - max(streak.next_at, streak.crashed_at) > FORGET_S:
                del streaks[group]
        return min(waits_s, default=None)

    def _crashed(self, runner: Runner, error: RemoteError) -> None:
        now, streaks = self._board.clock.monotonic(), self._board.fleet.streaks
        streak = streaks[runner.group] = after_crash(streaks.get(runner.group), error, now)
        if streak.is_paused:
            log.warning("function.crash_loop", function=runner.group[1], crashes=streak.crashes, pause_s=streak.pause_s)
            self._board.hints.retries()
