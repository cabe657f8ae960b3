"""Calls and cancellations on a process that does not dispatch: guarded writes that the dispatcher learns of (D4).

A new job is committed as queued and nothing more; the dispatcher grants it. A cancellation compares status and fence as
read from the row, so a move of the dispatcher that comes first makes it read again.
"""

from __future__ import annotations

import asyncio

from apothic.wire.ids import DeploymentId, FunctionId, JobId, OrgId
from apothic_server.domain.errors import KeyTaken, TooMany, Unavailable
from apothic_server.domain.idempotency import Keep, RequestKey
from apothic_server.domain.jobs import Job, JobStatus
from apothic_server.domain.views import Submitted
from apothic_server.services.dispatch.board import Board, Settled
from apothic_server.services.dispatch.live import LiveJob
from apothic_server.services.dispatch.records import ask_to_cancel, new_job
from apothic_server.services.outcomes import Outcomes
from apothic_server.store import jobs as rows
from apothic_server.store.database import Database

COUNTED_S = 0.25
"""Waiting calls of a function are counted this often; those that were taken here since then are added."""

COUNTS_MAX = 1_000


class Handover:
    """What a process without the role does with calls."""

    def __init__(self, database: Database, board: Board, outcomes: Outcomes) -> None:
        self._database = database
        self._board = board
        self._outcomes = outcomes
        self._counts: dict[tuple[OrgId, DeploymentId, FunctionId], tuple[float, int]] = {}

    async def submit(
        self,
        job: LiveJob,
        *,
        key: RequestKey | None = None,
        retry_of: JobId | None = None,
    ) -> Submitted:
        """Commit a new job as queued; `accepted` waits for that, `outcome` for what the dispatcher makes of it.

        With a `key` the store refuses the job when the org has used it; then `accepted` raises `KeyTaken`.

        Raises:
            TooMany: `max_pending_tasks` calls wait already.
            Unavailable: This process stops.
        """
        board = self._board
        if board.is_draining:
            raise Unavailable("the server is stopping; try again", retry_after_s=1)
        await self._count(job)
        outcome = self._outcomes.future(job.org, job.id)
        accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        refusal = Unavailable if key is None else KeyTaken
        record = new_job(job, board.clock.now(), key, retry_of)
        board.records.append_told(record, lambda settled: self._inserted(job, accepted, settled, refusal))
        return Submitted(job.id, accepted, outcome)

    async def cancel(self, row: Job, keep: Keep[JobStatus] | None = None) -> JobStatus | None:
        """J7 or J8. Returns the status after it, or None when the row has moved and is to be read again.

        Raises:
            Unavailable: The store is away.
        """
        if row.status.is_final or row.status is JobStatus.CANCELLING:
            return row.status
        change, after = ask_to_cancel(row, self._board.clock.now(), keep)
        if not await self._board.records.append(change):
            return None
        self._board.hints.changed(row.id)
        self._board.look_at(row.id)
        return after

    def _inserted(
        self, job: LiveJob, accepted: asyncio.Future[None], settled: Settled, refusal: type[Unavailable]
    ) -> None:
        if settled is True:
            self._board.hints.changed(job.id)
            self._board.look_at(job.id)
            accepted.set_result(None)
            return
        error = settled if isinstance(settled, BaseException) else refusal("the job was not stored; try again")
        for future in (accepted, self._outcomes.take(job.id)):
            if future is not None:
                future.set_exception(error)
                future.exception()

    async def _count(self, job: LiveJob) -> None:
        """Refuse a call above the bound of its function; the count is at most `COUNTED_S` old."""
        function, bound = job.function, job.need.spec.max_pending_tasks
        key = (function.org, function.deployment, function.id)
        now = self._board.clock.monotonic()
        counted_at, count = self._counts.get(key, (0.0, 0))
        if now - counted_at >= COUNTED_S:
            async with self._database.system_read() as connection:
                count = await rows.count_waiting(connection, *key, limit=bound)
            if len(self._counts) >= COUNTS_MAX:
                self._counts.clear()
            counted_at = now
        if count >= bound:
            detail = f"{bound} calls of {job.need.spec.name} wait already (max_pending_tasks={bound})"
            raise TooMany(detail, retry_after_s=1)
        self._counts[key] = (counted_at, count + 1)
