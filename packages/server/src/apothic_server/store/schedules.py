"""Schedules and their ticks. Every function works in the transaction of the connection it is given."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from apothic.wire.ids import AppId, JobId, OrgId, ScheduleId
from apothic.wire.schedules import ScheduleSpec
from apothic_server.domain.jobs import NewJob
from apothic_server.domain.schedules import Run, Schedule, Tick
from apothic_server.store.connection import Connection, Record
from apothic_server.store.rows import document, row_of
from apothic_server.store.statements import load

SQL = load("schedules")
WRITER = load("writer")


async def list_schedules(
    connection: Connection, org: OrgId, *, app_name: str | None, after: str = "", limit: int
) -> list[Schedule]:
    """Return up to `limit` schedules that have not ended, with an id above `after`, in the order of their ids."""
    return [_schedule(row) for row in await connection.fetch(SQL["list_schedules"], org, after, app_name, limit)]


async def get_schedule(connection: Connection, org: OrgId, schedule: ScheduleId) -> Schedule | None:
    """Return a schedule, or None when the org has no such one."""
    row = await connection.fetchrow(SQL["get_schedule"], org, schedule)
    return None if row is None else _schedule(row)


async def locked_schedules(connection: Connection, org: OrgId, app: AppId) -> list[Schedule]:
    """Return all schedules of an app, ended ones too; nobody else changes them until the transaction ends."""
    rows = await connection.fetch(SQL["lock_schedules"], org, app)
    found = [await get_schedule(connection, org, row["id"]) for row in rows]
    return [one for one in found if one is not None]


async def add_schedule(connection: Connection, new: Schedule) -> None:
    """Write a new schedule that waits for its first tick."""
    columns = (new.deployment, new.created_by, _json(new.spec), new.anchor, new.next_due, new.fire_at, new.created_at)
    await connection.execute(SQL["add_schedule"], new.id, new.org, new.app, new.function, *columns)


async def set_schedule(connection: Connection, new: Schedule) -> bool:
    """Write a schedule as it is to be, unless its row was written since it was read; return whether it was written."""
    columns = (
        new.deployment, new.created_by, _json(new.spec), new.anchor, new.next_due, new.fire_at, new.waiting_due,
        list(new.jobs), new.paused_at, new.ended_at,
    )  # fmt: skip
    key = await connection.fetchval(SQL["set_schedule"], new.org, new.id, new.revision, *columns)
    return key is not None


async def list_due(connection: Connection, now: datetime, *, limit: int) -> list[tuple[OrgId, ScheduleId]]:
    """Return up to `limit` schedules of all orgs that are to be looked at; as the owner."""
    return [(OrgId(row["org"]), ScheduleId(row["id"])) for row in await connection.fetch(SQL["list_due"], now, limit)]


async def next_fire(connection: Connection) -> datetime | None:
    """Return when the next schedule of any org is to be looked at; as the owner."""
    at: datetime | None = await connection.fetchval(SQL["next_fire"])
    return at


async def add_tick(connection: Connection, tick: Tick, job: NewJob) -> bool:
    """Insert a job and the tick that makes it; False when that tick has made a job already. As the owner."""
    key = await connection.fetchval(SQL["add_tick"], job.id, job.org, tick.schedule, tick.due)
    if key is None:
        return False
    row = row_of(job)
    made = await connection.fetch(WRITER["insert_jobs"], document([row]), [row.arguments], [None], None)
    assert len(made) == 1, "its id is new"
    return True


async def tick_of(connection: Connection, org: OrgId, job: JobId) -> Tick | None:
    """Return what of a schedule made a job; None when no schedule did."""
    row = await connection.fetchrow(SQL["get_tick"], org, job)
    return None if row is None else Tick(row["schedule"], row["due"])


async def list_runs(connection: Connection, org: OrgId, schedule: ScheduleId, *, limit: int) -> list[Run]:
    """Return the newest jobs of a schedule, the newest first."""
    rows = await connection.fetch(SQL["list_runs"], org, schedule, limit)
    return [Run(row["job"], row["due"], row["status"], row["created_at"]) for row in rows]


async def unended(connection: Connection, org: OrgId, jobs: tuple[JobId, ...]) -> tuple[JobId, ...]:
    """Return those of `jobs` that have not ended."""
    return tuple(JobId(row["id"]) for row in await connection.fetch(SQL["list_unended"], org, list(jobs)))


def _json(spec: ScheduleSpec) -> str:
    return msgspec.json.encode(spec).decode()


def _schedule(row: Record) -> Schedule:
    columns: dict[str, Any] = dict(row.items())
    columns |= {"spec": msgspec.json.decode(row["spec"], type=ScheduleSpec), "jobs": tuple(row["jobs"])}
    return Schedule(**columns)
