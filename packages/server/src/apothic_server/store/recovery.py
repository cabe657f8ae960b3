"""What the dispatcher reads and ends across all orgs; every function needs the tables' owner."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from typing import Any

import msgspec

from apothic.wire.ids import DeploymentId, EnrolledId, FunctionId, GroupId, IncarnationId, JobId, OrgId
from apothic.wire.values import Value
from apothic_server.domain.apps import Function
from apothic_server.domain.groups import SPREAD, Slice
from apothic_server.domain.jobs import ItemCount, Job, JobStatus, StoredValue, UnfinishedJob
from apothic_server.store.apps import function_of
from apothic_server.store.connection import Connection, Record
from apothic_server.store.statements import load

SQL = load("recovery")
JOB_COLUMNS = tuple(column.name for column in fields(Job))
"""What the statements select first, in this order."""

STATUS, ERROR = JOB_COLUMNS.index("status"), JOB_COLUMNS.index("error")


async def unfinished(connection: Connection, *, after: JobId | None, limit: int) -> dict[JobId, JobStatus]:
    """Return up to `limit` unfinished jobs with an id above `after`, in the order of their ids."""
    return _statuses(await connection.fetch(SQL["list_unfinished"], after or "", limit))


async def unfinished_jobs(connection: Connection, *, after: JobId | None, limit: int) -> list[UnfinishedJob]:
    """Return up to `limit` unfinished jobs with an id above `after` and their arguments, in the order of their ids."""
    return [_unfinished(row) for row in await connection.fetch(SQL["list_unfinished_jobs"], after or "", limit)]


async def statuses_of(connection: Connection, jobs: list[JobId]) -> dict[JobId, JobStatus]:
    """Return those of `jobs` that exist, finished or not."""
    return _statuses(await connection.fetch(SQL["list_statuses"], jobs))


async def get_jobs(connection: Connection, jobs: list[JobId]) -> list[UnfinishedJob]:
    """Return jobs with their arguments, in the order of their ids; unknown ids are left out."""
    rows = await connection.fetch(SQL["get_jobs_with_arguments"], jobs)
    return [_unfinished(row) for row in rows]


async def count_lines(connection: Connection, jobs: list[tuple[OrgId, JobId]]) -> dict[JobId, int]:
    """Return how many lines of their newest attempt are stored of jobs."""
    rows = await connection.fetch(SQL["count_lines"], [org for org, _ in jobs], [job for _, job in jobs])
    return {JobId(row["job"]): row["lines"] or 0 for row in rows}


async def any_job(connection: Connection, job: JobId) -> Job | None:
    """Return a job of any org without its values; None when there is none."""
    row = await connection.fetchrow(SQL["get_any_job"], job)
    return None if row is None else job_of(row)


async def orphans(connection: Connection) -> list[JobId]:
    """Return unfinished jobs whose caller waited for them and has ended otherwise than by success."""
    return [JobId(row["id"]) for row in await connection.fetch(SQL["list_orphans"])]


async def deployed_function(
    connection: Connection, org: OrgId, deployment: DeploymentId, function: FunctionId
) -> Function | None:
    """Return a function as a given deployment, active or not, has it."""
    return function_of(await connection.fetchrow(SQL["get_deployed_function"], org, deployment, function))


async def find_deployed_functions(connection: Connection, wanted: list[tuple[str, str, str]]) -> list[Function]:
    """Return the functions of these (org, deployment, name), once each and in no order; unknown ones are left out."""
    orgs, deployments, names = ([each[place] for each in wanted] for place in range(3))
    rows = await connection.fetch(SQL["find_deployed_functions"], orgs, deployments, names)
    return [found for row in rows if (found := function_of(row)) is not None]


async def deployed_archive(connection: Connection, deployment: DeploymentId) -> tuple[OrgId, str] | None:
    """Return org and digest of a deployment's archive: workers serve the whole installation."""
    row = await connection.fetchrow(SQL["get_deployed_archive"], deployment)
    return None if row is None else (OrgId(row["org"]), row["archive"])


async def live_workers(connection: Connection) -> dict[IncarnationId, datetime]:
    """Return all incarnations that have not ended, each with the time that its last renewal wrote."""
    rows = await connection.fetch(SQL["live_workers"])
    return {IncarnationId(row["id"]): row["lease_expires_at"] for row in rows}


async def end_workers(connection: Connection, seen: dict[IncarnationId, datetime], now: datetime) -> set[IncarnationId]:
    """End these incarnations, but not those renewed since `seen` was read; return the ended ones."""
    if not seen:
        return set()
    rows = await connection.fetch(SQL["end_workers"], list(seen), list(seen.values()), now)
    return {IncarnationId(row["id"]) for row in rows}


async def end_workers_named(
    connection: Connection, name: str, reason: str, now: datetime, *, but: str
) -> list[IncarnationId]:
    """End all live incarnations of the worker beside a server that has this name, except `but`; return them."""
    rows = await connection.fetch(SQL["end_workers_named"], name, now, reason, but)
    return [IncarnationId(row["id"]) for row in rows]


async def end_starts_of(
    connection: Connection, worker: EnrolledId, starts: list[IncarnationId], reason: str, now: datetime
) -> list[IncarnationId]:
    """End those of `starts` that are live starts of an enrolled worker; return them."""
    rows = await connection.fetch(SQL["end_starts_of"], worker, starts, now, reason)
    return [IncarnationId(row["id"]) for row in rows]


def job_of(row: Record) -> Job:
    """Return the job of a row that holds its columns, perhaps among others."""
    columns: dict[str, Any] = {name: row[name] for name in JOB_COLUMNS}
    error = row["error"]
    columns |= {"status": JobStatus(row["status"]), "error": None if error is None else msgspec.json.decode(error)}
    return Job(**columns)


def _statuses(rows: list[Record]) -> dict[JobId, JobStatus]:
    return {JobId(row["id"]): JobStatus(row["status"]) for row in rows}


def _unfinished(row: Record) -> UnfinishedJob:
    # By place, which takes a third of the time: a start reads every unfinished job.
    cells = list(row.values())
    *job, data, blob, encoding, python, item_attempt, next_ordinal, group, first_item, chunk_items, overlays = cells
    job[STATUS] = JobStatus(job[STATUS])
    if job[ERROR] is not None:
        job[ERROR] = msgspec.json.decode(job[ERROR])
    value = StoredValue(Value(encoding, data or b"", python), blob)
    part = None if group is None else slice_of(GroupId(group), first_item, chunk_items, overlays, encoding)
    return UnfinishedJob(Job(*job), value, ItemCount(item_attempt, next_ordinal), part)


def slice_of(group: GroupId, first: int, chunk_items: int | None, overlays: str | None, encoding: str) -> Slice:
    """Return the items that a row of a group covers."""
    count, is_chunk = (1, False) if chunk_items is None else (chunk_items, True)
    return Slice(group, first, count, is_chunk, overlays, spread=encoding == SPREAD)


async def lock_orgs(connection: Connection) -> None:
    """Let nobody else insert orgs until this transaction ends."""
    await connection.execute(SQL["lock_orgs"])
