"""Jobs for clients: submit, look, wait, read logs, cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

from apothic.wire.ids import FunctionId, JobId
from apothic.wire.limits import VALUE_INLINE_MAX, VALUE_MAX
from apothic.wire.runner import error_from_json
from apothic.wire.values import Value
from apothic_server.domain.access import Actor
from apothic_server.domain.apps import Function
from apothic_server.domain.decide.placement import Need
from apothic_server.domain.errors import TooLarge, Unavailable, no_such
from apothic_server.domain.idempotency import Keep, KeptAnswer, RequestKey
from apothic_server.domain.jobs import Job, JobEntry, JobFilter, JobStatus, StoredEvent, StoredOutcome, StoredValue
from apothic_server.domain.views import JobView, LogEntry, LogPage, Outcome, Submitted
from apothic_server.failpoints import fp
from apothic_server.ports.blobs import Blobs
from apothic_server.services.apps import Apps
from apothic_server.services.blobs import digest_of, write_blob
from apothic_server.services.dispatch.board import Board
from apothic_server.services.dispatch.calls import Calls, can_be_cancelled
from apothic_server.services.dispatch.live import LiveJob
from apothic_server.services.repeats import Repeats, held, keep_result
from apothic_server.store import jobs as rows
from apothic_server.store import recovery
from apothic_server.store.database import Database

CANCEL_TRIES = 5
"""How often a cancel that met a job which had moved on is tried again."""


class Jobs:
    """Jobs of all orgs: the unfinished ones in the dispatcher's memory, the others in the store."""

    def __init__(
        self,
        database: Database,
        board: Board,
        calls: Calls,
        apps: Apps,
        blobs: Blobs,
        repeats: Repeats,
        *,
        new_key: Callable[[], str],
    ) -> None:
        self._database = database
        self._board = board
        self._calls = calls
        self._apps = apps
        self._blobs = blobs
        self._repeats = repeats
        self._new_key = new_key

    async def submit(
        self,
        actor: Actor,
        function: FunctionId | tuple[str, str],
        value: Value,
        *,
        blocking: bool,
        key: RequestKey | None = None,
    ) -> Submitted:
        """Call a function, given by id or by (app, name), of its app's active deployment.

        With a `key` that the org used before for the same call, the answer is that call's job. When only the store can
        know, `accepted` raises `KeyTaken`, and `repeated` answers.

        Raises:
            KeyReused: The key was used for another call.
            NotFound: No such function.
            TooLarge: The arguments exceed `VALUE_MAX`.
            TooMany: Too many calls wait on it.
            Unavailable: This process cannot take it now.
        """
        if key is None:
            return await self._submit(actor, function, value, blocking=blocking)
        joined = await self._repeats.claim(actor, key)
        if joined is not None:
            return joined
        call = None
        try:
            earlier = await self._earlier(actor, key)
            call = earlier or await self._submit(actor, function, value, blocking=blocking, key=key)
            return call
        finally:
            self._repeats.release(actor, key, call)

    async def repeated(self, actor: Actor, key: RequestKey) -> Submitted:
        """Return the call that another request made with this key.

        Raises:
            KeyReused: It is another call.
            Unavailable: There is none after all; nothing was done.
        """
        row = await self._repeats.find(actor, key)
        if row is None or row.job is None:
            raise Unavailable("the call was not accepted; try again", retry_after_s=1)
        return await self._rejoined(actor, row.job)

    async def get(self, actor: Actor, key: JobId) -> JobView:
        """Raises: NotFound."""
        async with self._database.request_unit(actor.org) as unit:
            row = await rows.get_job(unit, actor.org, key)
        if row is None:
            raise no_such("job")
        return await self.view(actor, row)

    async def list_jobs(self, actor: Actor, wanted: JobFilter, *, limit: int) -> tuple[list[JobEntry], JobId | None]:
        """Return up to `limit` jobs, newest first, and the job after which to read on, None at the end.

        A page may hold fewer than `limit`, even none, and go on.
        """
        async with self._database.request_unit(actor.org) as unit:
            found = await rows.list_jobs(unit, actor.org, wanted, limit=limit)
            if len(found) == limit:
                return found, found[-1].id
            return found, await rows.looked_to(unit, actor.org, wanted)

    async def view(self, actor: Actor, row: Job) -> JobView:
        """Return a row with the names of its app and function, and why it waits."""
        live = self._board.jobs.get(row.id)
        reason = self._calls.waiting_reason(live) if live is not None and live.waits else None
        function = live.function if live is not None else await self._function_of(actor, row)
        return JobView(row, function.app_name, function.spec.name, reason)

    def obstacle(self, actor: Actor, key: JobId) -> str | None:
        """Return why a job of the actor's org may wait for long: no machine could ever run it, or its runners crash."""
        live = self._board.jobs.get(key)
        return self._calls.obstacle(live) if live is not None and live.org == actor.org else None

    async def outcome(self, actor: Actor, key: JobId) -> Outcome | asyncio.Future[Outcome]:
        """Return the job's end, or a future of it that the caller must not cancel.

        Raises:
            NotFound: No such job.
        """
        live = self._board.jobs.get(key)
        if live is not None and live.org == actor.org:
            return live.outcome
        async with self._database.request_unit(actor.org) as unit:
            stored = await rows.get_outcome(unit, actor.org, key)
        if stored is None:
            raise no_such("job")
        if not stored.status.is_final:
            return await self._adopted(key)
        return await self._outcome_of(actor, stored)

    async def logs(self, actor: Actor, key: JobId, after: int, limit: int) -> LogPage:
        """Return up to `limit` lines with an index above `after`, in order.

        Raises:
            NotFound: No such job.
        """
        async with self._database.request_unit(actor.org) as unit:
            newest = await rows.get_last_index(unit, actor.org, key)
            found = await rows.get_log_lines(unit, actor.org, key, after=after, limit=limit)
        if newest is None:
            raise no_such("job")
        return _log_page(found, newest, after=after, is_whole=len(found) < limit)

    async def cancel(self, actor: Actor, key: JobId, keep: Keep[JobStatus] | None = None) -> JobStatus | KeptAnswer:
        """Cancel a job and return its status after that; an ended job keeps its status (G4.1).

        Raises:
            KeyReused: The key of `keep` was used for another job.
            NotFound: No such job.
            Unavailable: The store is away, or memory and store do not come to agree.
        """
        row = await self._repeats.find(actor, keep.key) if keep is not None else None
        if row is not None and row.answer is not None:
            return row.answer
        for _ in range(CANCEL_TRIES):
            live = self._board.jobs.get(key)
            if live is None or live.org != actor.org:
                job = await self._row(actor, key)
                if job.status.is_final:
                    return await self._unchanged(actor, job.status, keep)
            else:
                moves = can_be_cancelled(live)
                committed = self._calls.cancel(live, keep)
                status = live.status
                settled = await asyncio.shield(committed)
                await fp("cancel.committed")
                if settled is True:
                    return status if moves else await self._unchanged(actor, status, keep)
                if isinstance(settled, BaseException):
                    raise settled
            if key not in self._board.ended:
                await self._adopted(key)
        raise Unavailable("the job changes faster than it can be cancelled; try again", retry_after_s=1)

    async def _unchanged(self, actor: Actor, status: JobStatus, keep: Keep[JobStatus] | None) -> JobStatus | KeptAnswer:
        """Return the answer of a cancel that changed nothing, after keeping it."""
        if keep is not None:
            async with self._database.request_unit(actor.org) as unit:
                kept = await held(unit, actor, keep)
                if kept is not None:
                    return kept
                await keep_result(unit, actor, keep, status, self._board.clock)
        return status

    async def _submit(
        self,
        actor: Actor,
        function: FunctionId | tuple[str, str],
        value: Value,
        *,
        blocking: bool,
        key: RequestKey | None = None,
    ) -> Submitted:
        found = await self._find(actor, function)
        arguments = await self._stored(actor, value)
        job = new_live_job(JobId(self._new_key()), found, arguments, self._board.clock.now())
        return self._calls.submit(job, created_by=actor.key, blocking=blocking, key=key)

    async def _earlier(self, actor: Actor, key: RequestKey) -> Submitted | None:
        """Return the call that was made with this key before, unless the caller says that there is none."""
        row = await self._repeats.find(actor, key) if not key.is_first else None
        return await self._rejoined(actor, row.job) if row is not None and row.job is not None else None

    async def _rejoined(self, actor: Actor, job: JobId) -> Submitted:
        found = await self.outcome(actor, job)
        return Submitted(job, _done(None), _done(found) if isinstance(found, Outcome) else found, is_replay=True)

    async def _function_of(self, actor: Actor, row: Job) -> Function:
        async with self._database.request_unit(actor.org) as unit:
            found = await recovery.deployed_function(unit, row.org, row.deployment, row.function)
        if found is None:
            raise no_such("job")
        return found

    async def _find(self, actor: Actor, function: FunctionId | tuple[str, str]) -> Function:
        if isinstance(function, str):
            return await self._apps.function_by_id(actor, function)
        return await self._apps.get_function(actor, *function)

    async def _stored(self, actor: Actor, value: Value) -> StoredValue:
        size = len(value.data)
        if size > VALUE_MAX:
            raise TooLarge(f"the arguments have {size} bytes, the limit is {VALUE_MAX}", code="value_too_large")
        if size <= VALUE_INLINE_MAX:
            return StoredValue(value)
        digest = digest_of(value.data)
        await write_blob(self._blobs, actor.org, digest, value.data)
        return StoredValue(Value(value.encoding, b"", value.python), digest)

    async def _row(self, actor: Actor, key: JobId) -> Job:
        async with self._database.request_unit(actor.org) as unit:
            found = await rows.get_job(unit, actor.org, key)
        if found is None:
            raise no_such("job")
        return found

    async def _adopted(self, key: JobId) -> asyncio.Future[Outcome]:
        """The store has an unfinished job that memory lacks: read it in, and return its outcome."""
        self._board.reload(key)
        return await self._board.reloaded(key)

    async def _outcome_of(self, actor: Actor, stored: StoredOutcome) -> Outcome:
        result = stored.result
        value = result.value if result is not None else None
        if result is not None and result.blob is not None:
            data = await self._blobs.read(actor.org, result.blob, size_max=VALUE_MAX)
            value = Value(result.value.encoding, data, result.value.python)
        error = error_from_json(stored.error) if stored.error is not None else None
        return Outcome(stored.job, stored.status, value, error, stored.attempt)


def _done(value: Any) -> asyncio.Future[Any]:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.set_result(value)
    return future


def _log_page(found: list[StoredEvent], newest: tuple[int, JobStatus], *, after: int, is_whole: bool) -> LogPage:
    lines = tuple(LogEntry(event.index, event.at, event.data["stream"], event.data["line"]) for event in found)
    last_read = lines[-1].index if lines else after
    index, status = newest
    return LogPage(lines, max(last_read, index) if is_whole else last_read, is_whole and status.is_final)


def new_live_job(job: JobId, function: Function, arguments: StoredValue, now: datetime) -> LiveJob:
    """Return the memory of a job that was never written yet."""
    return LiveJob(
        id=job,
        function=function,
        need=Need(function.org, (function.deployment, function.id), function.python, function.spec),
        arguments=arguments,
        status=JobStatus.QUEUED,
        attempt=0,
        fence=0,
        losses=0,
        created_at=now,
        outcome=asyncio.get_running_loop().create_future(),
    )
