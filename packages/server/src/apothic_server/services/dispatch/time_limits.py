"""Time limits as the server enforces them: of waiting jobs on time, of attempts when their worker did not (G4.3)."""

from __future__ import annotations

from apothic_server.domain.decide.endings import Ended
from apothic_server.domain.decide.limits import Limit, limit_error
from apothic_server.domain.jobs import JobEvent
from apothic_server.services.dispatch.board import Board
from apothic_server.services.dispatch.calls import Calls
from apothic_server.services.dispatch.crash_loops import CrashLoops
from apothic_server.services.dispatch.endings import Endings
from apothic_server.services.dispatch.grants import Grants
from apothic_server.services.dispatch.live import LiveJob

PAUSE_S = 10.0
"""Between two looks; after a longer one this process stood still, and what workers said meanwhile is still unread."""


class TimeLimits:
    """Ends jobs whose time is over."""

    def __init__(self, board: Board, grants: Grants, calls: Calls, endings: Endings, crash_loops: CrashLoops) -> None:
        self._board = board
        self._grants = grants
        self._calls = calls
        self._endings = endings
        self._crash_loops = crash_loops
        self._looked_at = board.clock.monotonic()

    def enforce(self) -> float | None:
        """End what is overdue and return the seconds until the next limit, None when none is known."""
        board = self._board
        if board.term is None:
            return None
        now = board.clock.monotonic()
        stood_still = now - self._looked_at > PAUSE_S
        self._looked_at = now
        for job in board.alarms.take_due(now):
            limit = board.limit_of(job)
            if limit is None or limit.at > now:
                board.watch(job)
            elif stood_still and not job.waits:
                board.watch(job, not_before=now + board.late_of(job))
            else:
                self._end(job, limit)
        wait_s = board.alarms.next_at - now
        return wait_s if wait_s < float("inf") else None

    def _end(self, job: LiveJob, limit: Limit) -> None:
        error = limit_error(limit.code, job.need.spec)
        if job.waits:
            self._endings.fail_waiting(job, JobEvent.TIMED_OUT, error)
            return
        self._calls.send_cancel(job)
        # The worker should have ended this attempt long ago: nothing more is given to a runner that may be stuck.
        if job.runner is not None and job.runner.attempts == {job.id}:
            self._crash_loops.ended(job.runner, "timed_out", error)
            self._grants.stop_runner(job.runner)
        self._endings.end_attempt(job, Ended("timed_out", error))
