"""Schedules: the ticks that come due, and what people ask of them.

A look reads, decides, then writes in one transaction that needs the row to be as it was read: the jobs, their ticks,
the events of what was left out, and the next due time. Of two servers that look at once one writes, and the other's
decision is thrown away whole. A crash leaves all of it or nothing (G10.1).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import structlog

from apothic.wire.ids import JobId, OrgId, ScheduleId
from apothic.wire.values import Value
from apothic_server.domain.access import Actor, Role
from apothic_server.domain.decide.ticks import Plan, passed_over, plan_ticks
from apothic_server.domain.errors import Conflict, DiskLow, Unavailable, no_such
from apothic_server.domain.idempotency import Keep, KeptAnswer
from apothic_server.domain.jobs import NewJob, StoredValue, StreamEvent
from apothic_server.domain.schedule_rules import in_words
from apothic_server.domain.schedules import Schedule, ScheduleView, SkipReason, Tick
from apothic_server.domain.timing import dues
from apothic_server.failpoints import fp
from apothic_server.services.dispatch.board import Board
from apothic_server.services.jobs import Jobs
from apothic_server.services.repeats import held, keep_result
from apothic_server.services.schedule_changes import paused, started, tell_skipped
from apothic_server.store import jobs as job_rows
from apothic_server.store import recovery
from apothic_server.store import schedules as rows
from apothic_server.store.connection import Connection
from apothic_server.store.database import Database
from apothic_server.store.disk import Disk

log = structlog.get_logger("apothic.schedules")

LOOKS_MAX = 1_000
NEXT_SHOWN = 5
RUNS_SHOWN = 5
NO_ARGUMENTS = StoredValue(Value("json", b"[[],{}]"))


class Schedules:
    """Schedules of all orgs."""

    def __init__(self, database: Database, board: Board, jobs: Jobs, disk: Disk, *, new_key: Callable[[], str]) -> None:
        self._database = database
        self._board = board
        self._clock = board.clock
        self._jobs = jobs
        self._disk = disk
        self._new_key = new_key

    async def step(self) -> float | None:
        """Look at what is due, on the server that dispatches; return the seconds until the next is."""
        return await self.look_at_due() if self._board.dispatches else None

    async def look_at_due(self) -> float | None:
        """Look at what is due, on whatever server; safe while others do the same. Returns as `step`."""
        async with self._database.system_read() as connection:
            due = await rows.list_due(connection, self._clock.now(), limit=LOOKS_MAX)
        for org, key in due:
            try:
                await self._look(org, key)
            except (Unavailable, DiskLow):
                raise
            except Exception:  # one that cannot be run must not keep the others from running
                log.exception("schedule.failed", org=org, schedule=key)
        async with self._database.system_read() as connection:
            following = await rows.next_fire(connection)
        wait_s = 0.0 if following is None else (following - self._clock.now()).total_seconds()
        return wait_s if wait_s > 0 else None

    async def list_schedules(
        self, actor: Actor, *, app_name: str | None, after: ScheduleId | None, limit: int
    ) -> list[ScheduleView]:
        """Return up to `limit` schedules that have not ended, by id, with an id above `after`."""
        async with self._database.request_unit(actor.org) as unit:
            found = await rows.list_schedules(unit, actor.org, app_name=app_name, after=after or "", limit=limit)
            return [await self._view(unit, one) for one in found]

    async def get(self, actor: Actor, key: ScheduleId) -> ScheduleView:
        """Raises: NotFound."""
        async with self._database.request_unit(actor.org) as unit:
            return await self._view(unit, await self._found(unit, actor, key))

    async def pause(
        self, actor: Actor, key: ScheduleId, keep: Keep[ScheduleView] | None = None
    ) -> ScheduleView | KeptAnswer:
        """Let a schedule make no jobs until it is resumed; running ones go on. Pausing twice changes nothing.

        Raises:
            NotFound: No such schedule.
            Conflict: It has ended (`schedule_ended`), or changes at this moment.
        """
        now = self._clock.now()
        return await self._set(actor, key, keep, lambda one: one if one.paused_at is not None else paused(one, now))

    async def resume(
        self, actor: Actor, key: ScheduleId, keep: Keep[ScheduleView] | None = None
    ) -> ScheduleView | KeptAnswer:
        """Let a paused schedule go on with the first tick after now; what passed is told as left out.

        Raises as `pause`.
        """
        now = self._clock.now()
        return await self._set(actor, key, keep, lambda one: one if one.paused_at is None else started(one, now))

    async def run_now(self, actor: Actor, key: ScheduleId, keep: Keep[JobId] | None = None) -> JobId | KeptAnswer:
        """Make a job of a schedule at once, whatever else of it runs and though it is paused; its ticks stay.

        Raises:
            NotFound: No such schedule.
            Conflict: It has ended (`schedule_ended`), or changes at this moment.
            DiskLow: The disk is nearly full.
        """
        self._disk.require_room()
        async with self._database.system_unit() as unit:
            kept = await held(unit, actor, keep)
            if kept is not None:
                return kept
            one = await self._found(unit, actor, key)
            if one.ended_at is not None:
                raise _ended()
            job = self._job(one, actor)
            running = await rows.unended(unit, one.org, one.jobs)
            if not await rows.set_schedule(unit, replace(one, jobs=(*running, job.id))):
                raise _busy()
            await rows.add_tick(unit, Tick(one.id, None), job)
            await keep_result(unit, actor, keep, job.id, self._clock)
        self._made(job.id)
        return job.id

    async def _set(
        self, actor: Actor, key: ScheduleId, keep: Keep[ScheduleView] | None, change: Callable[[Schedule], Schedule]
    ) -> ScheduleView | KeptAnswer:
        now = self._clock.now()
        async with self._database.request_unit(actor.org) as unit:
            kept = await held(unit, actor, keep)
            if kept is not None:
                return kept
            before = await self._found(unit, actor, key)
            if before.ended_at is not None:
                raise _ended()
            after = change(before)
            if after is not before:
                if not await rows.set_schedule(unit, after):
                    raise _busy()
                await self._tell_rest(unit, before, after, now)
            view = await self._view(unit, await self._found(unit, actor, key))
            await keep_result(unit, actor, keep, view, self._clock)
        self._board.hints.changed(before.app)
        return view

    async def _tell_rest(self, unit: Connection, before: Schedule, after: Schedule, now: datetime) -> None:
        """Tell what a pause leaves out: the waiting tick when it begins, the ticks that passed when it is over."""
        if after.paused_at is not None:
            before = replace(before, next_due=None)
        await tell_skipped(unit, before, passed_over(before, now, SkipReason.PAUSED), now)

    async def _look(self, org: OrgId, key: ScheduleId) -> None:
        now = self._clock.now()
        async with self._database.system_unit() as unit:
            one = await rows.get_schedule(unit, org, key)
            if one is None or one.status != "active":
                return
            running = await rows.unended(unit, org, one.jobs)
            room = await self._room(unit, one)
        plan = plan_ticks(one, now, running=len(running), room=room)
        if not plan.runs and not plan.skipped and plan.waiting_due == one.waiting_due and plan.next_due == one.next_due:
            return
        if plan.runs:
            self._disk.require_room()
        for job in running if plan.cancels else ():
            await self._jobs.cancel(_owner(one), job)
        await self._carry_out(one, plan, running, now)

    async def _carry_out(self, one: Schedule, plan: Plan, running: tuple[JobId, ...], now: datetime) -> None:
        jobs = {due: self._job(one) for due in plan.runs}
        made: list[JobId] = []
        async with self._database.system_unit() as unit:
            after = replace(
                one,
                next_due=plan.next_due,
                fire_at=plan.fire_at,
                waiting_due=plan.waiting_due,
                jobs=(*running, *(job.id for job in jobs.values())),
            )
            if not await rows.set_schedule(unit, after):
                return  # somebody else was first
            for due, job in jobs.items():
                if await rows.add_tick(unit, Tick(one.id, due), job):
                    made.append(job.id)
            await tell_skipped(unit, one, plan.skipped, now)
            await fp("schedule.before")
        await fp("schedule.after")
        for job in made:
            self._made(job)
        if plan.skipped:
            self._board.hints.changed(one.app)

    async def _room(self, unit: Connection, one: Schedule) -> int:
        function = await recovery.deployed_function(unit, one.org, one.deployment, one.function)
        if function is None:
            return 0
        most = function.spec.max_pending_tasks
        return most - await job_rows.count_waiting(unit, one.org, one.deployment, one.function, limit=most)

    async def _found(self, unit: Connection, actor: Actor, key: ScheduleId) -> Schedule:
        found = await rows.get_schedule(unit, actor.org, key)
        if found is None:
            raise no_such("schedule")
        return found

    async def _view(self, unit: Connection, one: Schedule) -> ScheduleView:
        runs = await rows.list_runs(unit, one.org, one.id, limit=RUNS_SHOWN)
        following: list[datetime] = []
        if one.status == "active" and one.next_due is not None:
            following = [one.next_due, *itertools.islice(dues(one.spec, one.anchor, one.next_due), NEXT_SHOWN - 1)]
        return ScheduleView(one, in_words(one.spec), tuple(following), tuple(runs))

    def _job(self, one: Schedule, actor: Actor | None = None) -> NewJob:
        now = self._clock.now()
        return NewJob(
            id=JobId(self._new_key()),
            org=one.org,
            app=one.app,
            deployment=one.deployment,
            function=one.function,
            arguments=NO_ARGUMENTS,
            created_by=one.created_by if actor is None else actor.key,
            created_at=now,
            events=(StreamEvent("job.queued", now, {"status": "queued"}),),
        )

    def _made(self, job: JobId) -> None:
        self._board.hints.changed(job)
        self._board.look_at(job)


def _owner(one: Schedule) -> Actor:
    return Actor(one.org, one.created_by, Role.MEMBER, frozenset({"jobs:write"}))


def _ended() -> Conflict:
    return Conflict("the schedule has ended; deploy its function with a schedule again", code="schedule_ended")


def _busy() -> Conflict:
    return Conflict("the schedule changes at this moment; try again")
