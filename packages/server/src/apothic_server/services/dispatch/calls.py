"""Calls: new jobs come in, jobs are cancelled, and why a job waits (J1, J7, J8)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from apothic.wire.ids import JobId
from apothic.wire.link import Cancel, TakeBack
from apothic_server.domain.decide.company import turn_s
from apothic_server.domain.decide.crash_loop import crash_reason
from apothic_server.domain.decide.endings import Ended
from apothic_server.domain.decide.placement import Wait, place
from apothic_server.domain.errors import Conflict, KeyTaken, TooMany, Unavailable
from apothic_server.domain.fleet import GroupKey
from apothic_server.domain.idempotency import Keep, RequestKey
from apothic_server.domain.jobs import JobEvent, JobFields, JobStatus
from apothic_server.domain.views import Outcome, Submitted
from apothic_server.services.dispatch.board import Board, Settled
from apothic_server.services.dispatch.endings import Endings
from apothic_server.services.dispatch.grants import Grants
from apothic_server.services.dispatch.live import LiveJob
from apothic_server.services.dispatch.nesting import Leave, adopt_child, attend, awaited_children, follow
from apothic_server.services.dispatch.records import move, new_job

CANCEL_GRACE_S = 10.0
"""Between TERM and KILL (G4.2)."""


class Calls:
    """What clients ask of the dispatcher."""

    def __init__(self, board: Board, grants: Grants, endings: Endings) -> None:
        self._board = board
        self._grants = grants
        self._endings = endings

    def submit(
        self,
        job: LiveJob,
        *,
        blocking: bool,
        parent: LiveJob | None = None,
        key: RequestKey | None = None,
        retry_of: JobId | None = None,
    ) -> Submitted:
        """Take a new job in; with a slot free, its grant shares the commit.

        A blocking call's frame leaves before its insert is durable (D9), unless it may run at most once; `accepted`
        waits for the commit all the same.
        With a `key` the store refuses the job when the org has used it; then `accepted` raises `KeyTaken`.

        Args:
            parent: The job whose user code calls; its slot is lent out while it waits for a blocking call.

        Raises:
            TooMany: `max_pending_tasks` calls wait already.
            Conflict: `parent` would wait for ever (`call_cycle_deadlock`).
            Unavailable: This process stops, or does not dispatch now.
            Conflict: The deployment was stopped or deleted meanwhile (`app_stopped`).
        """
        board = self._board
        if not board.takes_work:
            raise Unavailable("the server is not taking work right now; try again", retry_after_s=1)
        if job.function.deployment in board.closed:
            raise Conflict("the deployment of this function was just stopped; deploy the app again", code="app_stopped")
        leave = self._attend(parent, job) if parent is not None and blocking else None
        where = self._grants.slot_now(job)
        if where is None:
            self._check_pending(job, leave)
        accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        submitted = Submitted(job.id, accepted, job.outcome, leave=leave or (lambda: None))
        record = new_job(job, job.created_at, key, retry_of)
        refusal = Unavailable if key is None else KeyTaken
        job.due_at = board.clock.monotonic()
        if (deadline_s := job.need.spec.deadline_s) is not None:
            job.deadline_at = job.due_at + deadline_s
        job.is_blocking = blocking and not job.need.spec.at_most_once

        def told(settled: Settled) -> None:
            self._accepted(job, accepted, settled, refusal)

        try:
            if blocking:
                patience_s = 0.0 if where is not None else turn_s(board.pending(job.need.group) + 1)
                board.records.append_quietly(record, told, patience_s=patience_s)
            else:
                board.records.append_told(record, told)
        except Exception:
            submitted.leave()  # nobody waits for a job that does not exist
            raise
        board.jobs[job.id] = job
        if where is None:
            board.enqueue(job)
        else:
            self._grants.start(job, where)
        if leave is not None:
            self._grants.grant_ready()
        return submitted

    def attend(self, parent: LiveJob, job: LiveJob) -> Leave:
        """Let `parent` wait for a job that exists; its slot is lent out until the returned function is called.

        Raises:
            Conflict: It would wait for ever (`call_cycle_deadlock`).
        """
        leave = attend(self._board, parent, job)
        self._grants.grant_ready()
        return leave

    def follow(self, parent: LiveJob, job: LiveJob) -> Leave:
        """Let `parent` read the events of a job; its slot is lent out until the returned function is called."""
        leave = follow(self._board, parent, job)
        self._grants.grant_ready()
        return leave

    def cancel_orphans(self, jobs: list[LiveJob]) -> None:
        """Cancel jobs that nobody waits for any more, because the attempt that did has ended."""
        for job in jobs:
            if job.id in self._board.jobs and not job.status.is_final:
                self.cancel(job)

    def cancel(self, job: LiveJob, keep: Keep[JobStatus] | None = None) -> asyncio.Future[Settled]:
        """J7 or J8; nothing when the job has ended or is being cancelled already (G4.1).

        When the job moves, the status after it is kept with `keep` in the same commit.
        The jobs that it called and waits for are cancelled with it, and those that they wait for.

        Returns:
            Resolved when the status that the job has in memory after this call is on disk, or with why it is not.
        """
        if can_be_cancelled(job):
            children = awaited_children(self._board, job)
            waited = job.waits
            now = self._board.clock.now()
            self._board.dequeue(job)
            fields = JobFields(finished_at=now) if waited else JobFields()
            then = self._cancelled if waited else self._cancelling
            key = keep.row(JobStatus.CANCELLED if waited else JobStatus.CANCELLING) if keep is not None else None
            change = move(job, JobEvent.CANCEL_ASKED, now, fields=fields, key=key)
            self._board.write(change, lambda settled: then(job, settled))
            self.cancel_orphans(children)
        if job.written is not None:
            return job.written
        on_disk: asyncio.Future[Settled] = asyncio.get_running_loop().create_future()
        on_disk.set_result(True)
        return on_disk

    def waiting_reasons(self, jobs: Iterable[JobId]) -> dict[JobId, str]:
        """Return why each of those jobs that wait does so, in one plain sentence; jobs of one function ask once."""
        if not self._board.dispatches:
            return dict.fromkeys(jobs, "the server that dispatches knows why; this one does not")
        found: dict[JobId, str] = {}
        of_functions: dict[GroupKey, str] = {}
        for key in jobs:
            job = self._board.jobs.get(key)
            if job is None or not job.waits:
                continue
            delay, group = self._delay(job), job.need.group
            if delay is None and group not in of_functions:
                of_functions[group] = self._reason(job)
            found[key] = delay or of_functions[group]
        return found

    def _delay(self, job: LiveJob) -> str | None:
        left = job.due_at - self._board.clock.monotonic()
        streak = self._board.fleet.streaks.get(job.need.group)
        is_held_back = streak is not None and streak.is_paused
        return f"waits {left:.0f} s before its next attempt" if left > 0 and not is_held_back else None

    def _reason(self, job: LiveJob) -> str:
        streak = self._board.fleet.streaks.get(job.need.group)
        if streak is not None and streak.is_paused:
            return crash_reason(streak, self._board.clock.monotonic())
        where = place(job.need, self._board.fleet)
        return where.reason if isinstance(where, Wait) else "about to start"

    def obstacle(self, job: LiveJob) -> str | None:
        """Return why a job may wait for long: no connected machine could ever run it, or its runners crash."""
        where = place(job.need, self._board.fleet) if job.waits else None
        return where.reason if isinstance(where, Wait) and (where.is_hopeless or where.is_crash_loop) else None

    def send_cancel(self, job: LiveJob) -> None:
        """Tell the worker to stop the attempt; harmless when repeated."""
        if job.runner is not None:
            self._board.send(job.runner.worker, "cancel", Cancel(job.id, job.fence, CANCEL_GRACE_S))

    def send_take_back(self, job: LiveJob) -> None:
        """Tell the worker to end the item under way of a chunk and to give the others back."""
        if job.runner is not None and job.is_sent:
            self._board.send(job.runner.worker, "take_back", TakeBack(job.id, job.fence))

    def _attend(self, parent: LiveJob, job: LiveJob) -> Leave:
        leave = attend(self._board, parent, job)
        adopt_child(parent, job)
        job.waited_fence = parent.fence
        return leave

    def _check_pending(self, job: LiveJob, leave: Leave | None) -> None:
        bound = job.need.spec.max_pending_tasks
        if self._board.pending(job.need.group) >= bound:
            if leave is not None:
                leave()
            detail = f"{bound} calls of {job.need.spec.name} wait already (max_pending_tasks={bound})"
            raise TooMany(detail, retry_after_s=1)

    def _accepted(
        self, job: LiveJob, accepted: asyncio.Future[None], settled: Settled, refusal: type[Unavailable]
    ) -> None:
        if settled is not True:
            self._board.reload(job.id)
        if accepted.done():
            return
        if settled is True:
            accepted.set_result(None)
            return
        error = settled if isinstance(settled, BaseException) else refusal("the job was not stored; try again")
        accepted.set_exception(error)
        accepted.exception()

    def _cancelled(self, job: LiveJob, settled: Settled) -> None:
        if settled is not True:
            self._board.reload(job.id)
            return
        self._board.finish(job, Outcome(job.id, job.status, None, None, job.attempt))
        self._grants.grant_ready()

    def _cancelling(self, job: LiveJob, settled: Settled) -> None:
        if settled is not True:
            self._board.reload(job.id)
        elif job.is_sent:
            self.send_cancel(job)
        elif job.status is JobStatus.CANCELLING and job.runner is not None:
            self._endings.end_attempt(job, Ended("cancelled", None))


def can_be_cancelled(job: LiveJob) -> bool:
    """Whether a cancel moves the job, and does not find it ended or being cancelled."""
    return job.status is not JobStatus.CANCELLING and not job.status.is_final
