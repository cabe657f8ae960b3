"""Endings: an attempt is over; its job succeeds, fails, or waits for another attempt (J4, J5, J6, J9, J10)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from apothic.wire.runner import error_to_json
from apothic.wire.values import RemoteError
from apothic_server.domain.decide.company import patience_s
from apothic_server.domain.decide.endings import Ended, Tally, Verdict, judge
from apothic_server.domain.jobs import JobEvent, JobFields, JobStatus, StoredValue
from apothic_server.domain.views import Outcome
from apothic_server.services.dispatch.board import Board, Settled
from apothic_server.services.dispatch.grants import Grants
from apothic_server.services.dispatch.live import LiveJob
from apothic_server.services.dispatch.nesting import orphans
from apothic_server.services.dispatch.records import move

FINAL = {
    JobEvent.SUCCEEDED: JobStatus.SUCCEEDED,
    JobEvent.FAILED: JobStatus.FAILED,
    JobEvent.TIMED_OUT: JobStatus.TIMED_OUT,
    JobEvent.STOPPED: JobStatus.CANCELLED,
}
"""The status after each verdict that ends a job."""

EndChunk = Callable[[LiveJob, Ended, StoredValue | None, Callable[[], None]], bool]
"""Ends the attempt of a chunk; False when the chunk is to be treated as any job."""


class Endings:
    """Applies the verdict on an ended attempt."""

    def __init__(self, board: Board, grants: Grants) -> None:
        self._board = board
        self._grants = grants
        self.end_chunk: EndChunk | None = None

    def end_attempt(
        self,
        job: LiveJob,
        ended: Ended,
        value: StoredValue | None = None,
        then: Callable[[], None] = lambda: None,
    ) -> None:
        """End the current attempt of `job`, free its slot and grant the slot again.

        Args:
            value: The result when it succeeded.
            then: Called once the end is on disk or was refused for good.
        """
        board = self._board
        if job.is_chunk and self.end_chunk is not None and self.end_chunk(job, ended, value, then):
            return
        tally = Tally(job.attempt, job.losses, has_items=job.items.attempt > 0, unstarted=job.unstarted)
        jitter = 0.0 if ended.outcome == "succeeded" else board.random()  # it is of use for retries alone
        verdict = judge(job.status, ended, tally, job.need.spec, jitter)
        ending = None if job.worker is None or ended.outcome == "lost" else (job.worker, job.fence)
        job.ending = ending
        left = orphans(board, job, succeeded=verdict.event is JobEvent.SUCCEEDED) if job.children else []
        runner = job.runner
        board.release(job)
        now = board.clock.now()
        change = move(job, verdict.event, now, fields=self._fields(job, verdict, value, now), error=verdict.error)
        job.losses = verdict.losses
        job.attempt -= verdict.is_unused
        job.unstarted = job.unstarted + 1 if verdict.is_unused else 0

        def answered(settled: Settled) -> None:
            if isinstance(settled, bool) and job.ending == ending:
                job.ending = None
            self._settled(job, verdict, value, settled, then)

        waiting = board.pending(job.need.group)
        board.write(change, answered, within_s=patience_s(waiting) if waiting else 0.0)
        if verdict.event is JobEvent.RETRY and not self.fail_closed(job):
            board.retry_after(job, verdict.delay_s)
        if left:
            board.hints.orphaned(left)
        self._grants.grant_next(runner)

    def fail_waiting(self, job: LiveJob, event: JobEvent, error: RemoteError) -> None:
        """End a job that waits and can never run, or waited too long (J11, J12); one that waits no more is let be."""
        board = self._board
        if not job.waits:
            return
        board.dequeue(job)
        now = board.clock.now()
        fields = JobFields(error=error_to_json(error), finished_at=now)
        change = move(job, event, now, fields=fields, error=error)
        verdict = Verdict(event, error, job.losses)
        board.write(change, lambda settled: self._settled(job, verdict, None, settled, lambda: None))

    def fail_closed(self, job: LiveJob) -> bool:
        """End a job that waits if its deployment was stopped or deleted (J12); return whether it was."""
        closed = self._board.closed.get(job.function.deployment)
        if closed is None:
            return False
        self.fail_waiting(job, JobEvent.FAILED, closed.error)
        return True

    def _fields(self, job: LiveJob, verdict: Verdict, value: StoredValue | None, now: datetime) -> JobFields:
        if verdict.event is JobEvent.RETRY:
            attempt = job.attempt - 1 if verdict.is_unused else None
            return JobFields(attempt=attempt, losses=verdict.losses, run_at=now + timedelta(seconds=verdict.delay_s))
        error = error_to_json(verdict.error) if verdict.error is not None else None
        result = value if verdict.event is JobEvent.SUCCEEDED else None
        losses = verdict.losses if verdict.losses != job.losses else None
        return JobFields(losses=losses, result=result, error=error, finished_at=now)

    def _settled(
        self, job: LiveJob, verdict: Verdict, value: StoredValue | None, settled: Settled, then: Callable[[], None]
    ) -> None:
        if settled is not True:
            self._board.reload(job.id)
            if settled is False:
                then()
            return
        if verdict.event is not JobEvent.RETRY:
            succeeded = verdict.event is JobEvent.SUCCEEDED
            result = value.value if value is not None and succeeded else None
            self._board.finish(job, Outcome(job.id, FINAL[verdict.event], result, verdict.error, job.attempt))
        then()
