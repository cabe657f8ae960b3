"""When a function whose runners all fail gets its next one, and what its jobs are told meanwhile.

A runner *crashed* when it could not be started, or died by itself before a call in it came to an end. After
`CRASHES_MAX` in a row no runner of that function and deployment is started for a while, twice as long after each
further crash, and then one at a time. A call that comes to its own end, also with an exception, ends the streak.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from apothic.wire.values import RemoteError
from apothic_server.domain.fleet import Runner, Streak

CRASHES_MAX = 5
PAUSE_S, PAUSE_S_MAX = 10.0, 300.0
REASON_MAX = 200
"""Characters of the newest error that a waiting job shows."""

CRASHES = frozenset(
    {
        "load_failed",
        "startup_timeout",
        "exited",
        "killed_by_signal",
        "out_of_memory",
        "disk_limit",
        "isolation_refused",
        "deployment_deleted",
    }
)
"""Errors of attempts whose runner is gone and by its own fault. `worker_lost` is not: it has its budget and delays."""

NEUTRAL = frozenset({"timeout", "deadline_exceeded", "worker_lost", "image_build_failed", "python_not_available"})
"""Errors of attempts that were stopped from outside or never reached a runner, so they say nothing about it."""


def after_crash(before: Streak | None, error: RemoteError, now: float) -> Streak:
    """Return the streak with one more crash; one that happens during a pause was under way before and adds no time."""
    streak = Streak(0, error, now) if before is None else before
    streak = replace(streak, crashes=streak.crashes + 1, error=error, crashed_at=now)
    if streak.is_paused or streak.crashes < CRASHES_MAX:
        return streak
    pause_s = min(max(PAUSE_S, 2 * streak.pause_s), PAUSE_S_MAX)
    return replace(streak, pause_s=pause_s, next_at=now + pause_s, is_paused=True)


def after_pause(streak: Streak, now: float) -> Streak:
    """Return the streak with its pause ended if that is over."""
    return replace(streak, is_paused=False) if streak.is_paused and streak.next_at <= now else streak


def holds_back(streak: Streak, runners: Iterable[Runner]) -> bool:
    """Whether no further runner may be started now, beside the living `runners` of the function."""
    if streak.is_paused:
        return True
    return streak.crashes >= CRASHES_MAX and any(not runner.has_served for runner in runners)


def crash_reason(streak: Streak, now: float | None = None) -> str:
    """Return why jobs wait, in one sentence; with the time of the next start when `now` is given."""
    newest = " ".join(f"{streak.error.code}: {streak.error.message}".split())
    newest = newest if len(newest) <= REASON_MAX else f"{newest[: REASON_MAX - 1]}…"
    said = f"{streak.crashes} runners in a row ended before a call in them did, the last one with {newest}"
    if not streak.is_paused:
        return f"{said}; one more is being tried"
    if now is None:
        return f"{said}; the next one is started after a pause"
    return f"{said}; the next one is started in {max(streak.next_at - now, 0.0):.0f} s"
