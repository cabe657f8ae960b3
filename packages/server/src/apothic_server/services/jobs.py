"""Jobs for clients: submit, look, wait, read logs, cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from apothic.wire.ids import FunctionId, JobId
from apothic.wire.large import LARGE
from apothic.wire.limits import VALUE_INLINE_MAX, VALUE_MAX
from apothic.wire.values import Value
from apothic_server.domain.access import Actor
from apothic_server.domain.apps import Function, check_python
from apothic_server.domain.errors import Conflict, TooLarge, Unavailable, no_such
from apothic_server.domain.groups import parse_item_key
from apothic_server.domain.idempotency import Keep, KeptAnswer, RequestKey
from apothic_server.domain.jobs import Job, JobEntry, JobFilter, JobStatus, StoredValue
from apothic_server.domain.views import JobView, LogPage, Outcome, Submitted
from apothic_server.failpoints import fp
from apothic_server.ports.blobs import Blobs
from apothic_server.services.apps import Apps
from apothic_server.services.blobs import digest_of, write_blob
from apothic_server.services.deployed import DeployedFunctions
from apothic_server.services.dispatch.board import Board
from apothic_server.services.dispatch.calls import Calls, can_be_cancelled
from apothic_server.services.dispatch.live import WAITING
from apothic_server.services.dispatch.nesting import caller, check_depth
from apothic_server.services.group_items import GroupItems
from apothic_server.services.handover import Handover
from apothic_server.services.job_rows import JobRows
from apothic_server.services.new_jobs import new_live_job
from apothic_server.services.outcomes import Outcomes
from apothic_server.services.repeats import Repeats, held, keep_result
from apothic_server.services.values import LargeValues
from apothic_server.store import jobs as rows
from apothic_server.store import schedules
from apothic_server.store.database import Database
from apothic_server.store.disk import Disk

CANCEL_TRIES = 5
"""How often a cancel that met a job which had moved on is tried again."""


class Jobs:
    """Jobs of all orgs: on the dispatcher the unfinished ones in its memory, all others in the store."""

    def __init__(
        self,
        database: Database,
        deployed: DeployedFunctions,
        board: Board,
        calls: Calls,
        apps: Apps,
        blobs: Blobs,
        repeats: Repeats,
        outcomes: Outcomes,
        items: GroupItems,
        disk: Disk,
        values: LargeValues,
        *,
        new_key: Callable[[], str],
    ) -> None:
        self._database = database
        self._deployed = deployed
        self._board = board
        self._calls = calls
        self._outcomes = outcomes
        self._handover = Handover(database, board, outcomes)
        self._apps = apps
        self._blobs = blobs
        self._values = values
        self._repeats = repeats
        self._items = items
        self._rows = JobRows(database, items)
        self._disk = disk
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
            NotFound: No such function, or the org has not uploaded the large value it is called with (`no_such_blob`).
            TooLarge: The arguments exceed `VALUE_MAX`.
            TooMany: Too many calls wait on it.
            Unavailable: This process cannot take it now.
            DiskLow: The disk is nearly full.
            Invalid: The arguments need another Python than the function's (`python_mismatch`), or user code calls and
                stands too deep already (`call_depth_exceeded`).
            Conflict: User code calls, and would wait for ever (`call_cycle_deadlock`).
            Fenced: User code calls, and its attempt ended meanwhile.
        """
        return await self._once(actor, key, lambda: self._submit(actor, function, value, blocking=blocking, key=key))

    def submit_now(
        self, actor: Actor, function: FunctionId, value: Value, *, key: RequestKey | None = None
    ) -> Submitted | None:
        """Make a blocking call as `submit` does, with the same errors, when nothing but memory is needed for that.

        None, and nothing was done, when `submit` has to: user code calls, another process dispatches or may deploy, the
        value is large, the function is not in memory, or the key was used before, or may have been.
        """
        is_large = value.encoding == LARGE or len(value.data) > VALUE_INLINE_MAX
        if actor.attempt is not None or is_large or not self._board.dispatches:
            return None
        if key is not None and not self._repeats.is_new(actor, key):
            return None
        found = self._apps.known_by_id(actor, function)
        if found is None:
            return None
        self._disk.require_room()
        check_python(found, value.python)
        job = new_live_job(JobId(self._new_key()), found, StoredValue(value), self._board.clock.now(), actor)
        call = self._calls.submit(job, blocking=True, key=key)
        if key is not None:
            self._repeats.made(actor, key, call)
        return call

    async def retry(self, actor: Actor, job: JobId, *, key: RequestKey | None = None) -> Submitted:
        """Call the function of an ended job again, with the same arguments: a new job that names the old one (G1.4).

        The new job runs the app's active deployment. `key` as for `submit`.

        Raises:
            NotFound: No such job, or its app has the function no longer.
            Conflict: The job has not ended (`job_not_ended`), or its app was stopped (`app_stopped`).
            TooMany: Too many calls wait on the function.
            Unavailable: This process cannot take it now.
            DiskLow: The disk is nearly full.
        """
        return await self._once(actor, key, lambda: self._retry(actor, job, key))

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

    def attend(self, actor: Actor, key: JobId) -> Callable[[], None]:
        """Note that the actor waits for a job until the returned function is called; matters when it is user code.

        Raises:
            Conflict: It would wait for ever (`call_cycle_deadlock`).
            Fenced: Its attempt ended meanwhile.
        """
        job = self._board.jobs.get(key)
        if job is None and actor.attempt is not None:
            return self._items.follow(actor.attempt, key)
        parent = caller(self._board, actor.attempt) if actor.attempt is not None else None
        if parent is None or job is None or job.org != actor.org or job.outcome.done():
            return lambda: None
        return self._calls.attend(parent, job)

    def follow(self, actor: Actor, key: JobId) -> Callable[[], None]:
        """Note that the actor reads the events of a job until the returned function is called; matters for user code.

        Raises:
            Fenced: Its attempt ended meanwhile.
        """
        job = self._board.jobs.get(key)
        if job is None and actor.attempt is not None:
            return self._items.follow(actor.attempt, key)
        if actor.attempt is None or job is None or job.org != actor.org or job.outcome.done():
            return lambda: None
        return self._calls.follow(caller(self._board, actor.attempt), job)

    async def get(self, actor: Actor, key: JobId) -> JobView:
        """Raises: NotFound."""
        return await self.view(actor, await self._rows.get(actor, key))

    async def check(self, actor: Actor, key: JobId) -> None:
        """Raise NotFound unless a job exists for the actor: user code sees those of its app and those it called."""
        if actor.attempt is None:
            return  # whoever reads the job learns of it
        live = self._board.jobs.get(key)
        if live is None:
            await self._rows.get(actor, key)
        elif live.org != actor.org or not actor.sees(live.function.app, live.parent):
            raise no_such("job")

    async def list_jobs(self, actor: Actor, wanted: JobFilter, *, limit: int) -> tuple[list[JobEntry], JobId | None]:
        """Return up to `limit` jobs, newest first, and the job after which to read on, None at the end.

        A page may hold fewer than `limit`, even none, and go on.
        """
        async with self._database.request_unit(actor.org) as unit:
            found = await rows.list_jobs(unit, actor.org, wanted, limit=limit)
            following = found[-1].id if len(found) == limit else await rows.looked_to(unit, actor.org, wanted)
        reasons = self._calls.waiting_reasons([entry.id for entry in found if JobStatus(entry.status) in WAITING])
        return [replace(entry, waiting_reason=reasons.get(entry.id)) for entry in found], following

    async def view(self, actor: Actor, row: Job) -> JobView:
        """Return a row with the names of its app and function, and why it waits."""
        live = self._board.jobs.get(row.id)
        reason = self._calls.waiting_reasons([row.id] if row.status in WAITING else []).get(row.id)
        place = (row.org, row.deployment, row.function)
        function = live.function if live is not None else self._deployed.known(*place)
        tick, may_have_one = None, parse_item_key(row.id) is None
        if function is None or may_have_one:
            async with self._database.request_unit(actor.org) as unit:
                function = function or await self._deployed.get(unit, *place)
                tick = await schedules.tick_of(unit, row.org, row.id) if may_have_one else None
        if function is None:
            raise no_such("job")
        return JobView(row, function.app_name, function.spec.name, reason, function.spec.is_generator, tick)

    def obstacle(self, actor: Actor, key: JobId) -> str | None:
        """Return why a job of the actor's org may wait for long: no machine could ever run it, or its runners crash."""
        live = self._board.jobs.get(key)
        return self._calls.obstacle(live) if live is not None and live.org == actor.org else None

    async def outcome(self, actor: Actor, key: JobId) -> Outcome | asyncio.Future[Outcome]:
        """Return the job's end, or a future of it that the caller must not cancel.

        Raises:
            NotFound: No such job.
        """
        await self.check(actor, key)
        live = self._board.jobs.get(key)
        if live is not None and live.org == actor.org:
            return live.outcome
        stored = await self._rows.outcome(actor, key)
        if stored.status.is_final:
            return await self._outcomes.load(actor.org, stored)
        if self._board.dispatches and not stored.is_derived:
            found = await self._adopted(key)
            return found or await self._outcomes.load(actor.org, await self._rows.outcome(actor, key))
        future = self._outcomes.future(actor.org, key)
        # An end between the first look and the future was told to nobody.
        stored = await self._rows.outcome(actor, key)
        return await self._outcomes.load(actor.org, stored) if stored.status.is_final else future

    async def logs(self, actor: Actor, key: JobId, after: int, limit: int) -> LogPage:
        """Return up to `limit` lines with an index above `after`, in order.

        Raises:
            NotFound: No such job.
        """
        await self.check(actor, key)
        return await self._rows.logs(actor, key, after, limit)

    async def cancel(self, actor: Actor, key: JobId, keep: Keep[JobStatus] | None = None) -> JobStatus | KeptAnswer:
        """Cancel a job and return its status after that; an ended job keeps its status (G4.1).

        Raises:
            KeyReused: The key of `keep` was used for another job.
            NotFound: No such job.
            Unavailable: The store is away, or memory and store do not come to agree.
        """
        await self.check(actor, key)
        row = await self._repeats.find(actor, keep.key) if keep is not None else None
        if row is not None and row.answer is not None:
            return row.answer
        for _ in range(CANCEL_TRIES):
            live = self._board.jobs.get(key)
            if live is None or live.org != actor.org:
                job = await self._rows.get(actor, key)
                if job.status.is_final:
                    return await self._unchanged(actor, job.status, keep)
                if await self._items.cancel(actor, key):
                    status = (await self._rows.get(actor, key)).status
                    return await self._unchanged(actor, status if status.is_final else JobStatus.CANCELLING, keep)
                if not self._board.dispatches:
                    status = await self._handover.cancel(job, keep)
                    if isinstance(status, JobStatus):
                        is_old = job.status is JobStatus.CANCELLING
                        return await self._unchanged(actor, status, keep) if is_old else status
                    continue
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

    async def _once(self, actor: Actor, key: RequestKey | None, make: Callable[[], Awaitable[Submitted]]) -> Submitted:
        """Make a call, or return the one that was made with this key before."""
        if key is None:
            return await make()
        joined = await self._repeats.claim(actor, key)
        if joined is not None:
            return joined
        call = None
        try:
            call = await self._earlier(actor, key) or await make()
            return call
        finally:
            self._repeats.release(actor, key, call)

    async def _submit(
        self,
        actor: Actor,
        function: FunctionId | tuple[str, str],
        value: Value,
        *,
        blocking: bool,
        key: RequestKey | None,
    ) -> Submitted:
        self._disk.require_room()
        check_depth(actor.attempt)
        found = await self._find(actor, function)
        check_python(found, value.python)
        arguments = await self._stored(actor, value)
        job = new_live_job(JobId(self._new_key()), found, arguments, self._board.clock.now(), actor)
        parent = caller(self._board, actor.attempt) if actor.attempt is not None else None
        if not self._board.dispatches:
            return await self._handover.submit(job, key=key)
        return self._calls.submit(job, blocking=blocking, parent=parent, key=key)

    async def _retry(self, actor: Actor, old: JobId, key: RequestKey | None) -> Submitted:
        self._disk.require_room()
        row = await self._rows.get(actor, old)
        if not row.status.is_final:
            raise Conflict(f"the job is {row.status.value}; only one that has ended is retried", code="job_not_ended")
        function = await self._apps.function_by_id(actor, row.function)
        arguments = await self._rows.arguments(actor, row)
        check_python(function, arguments.value.python)
        job = new_live_job(JobId(self._new_key()), function, arguments, self._board.clock.now(), actor)
        if not self._board.dispatches:
            return await self._handover.submit(job, key=key, retry_of=old)
        return self._calls.submit(job, blocking=False, key=key, retry_of=old)

    async def _earlier(self, actor: Actor, key: RequestKey) -> Submitted | None:
        """Return the call that was made with this key before, unless the caller says that there is none."""
        row = await self._repeats.find(actor, key) if not key.is_first else None
        return await self._rejoined(actor, row.job) if row is not None and row.job is not None else None

    async def _rejoined(self, actor: Actor, job: JobId) -> Submitted:
        found = await self.outcome(actor, job)
        return Submitted(job, _done(None), _done(found) if isinstance(found, Outcome) else found, is_replay=True)

    async def _find(self, actor: Actor, function: FunctionId | tuple[str, str]) -> Function:
        if isinstance(function, str):
            return await self._apps.function_by_id(actor, function)
        return await self._apps.get_function(actor, *function)

    async def _stored(self, actor: Actor, value: Value) -> StoredValue:
        await self._values.use(actor.org, value)
        size = len(value.data)
        if size > VALUE_MAX:
            raise TooLarge(f"the arguments have {size} bytes, the limit is {VALUE_MAX}", code="value_too_large")
        if size <= VALUE_INLINE_MAX:
            return StoredValue(value)
        digest = digest_of(value.data)
        await write_blob(self._blobs, actor.org, digest, value.data)
        return StoredValue(Value(value.encoding, b"", value.python), digest)

    async def _adopted(self, key: JobId) -> asyncio.Future[Outcome] | None:
        """Return the outcome of a job that memory lacked, or knew wrongly; None when its end is in the store."""
        board = self._board
        if key in board.jobs and key not in board.to_reload:
            return board.jobs[key].outcome  # taken in, or read again, meanwhile
        board.reload(key)
        return await board.reloaded(key)


def _done(value: Any) -> asyncio.Future[Any]:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.set_result(value)
    return future
