"""Reading jobs, their values and their streams; the batching writer (`writer.py`) is the only one that writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from apothic.wire.ids import DeploymentId, FunctionId, JobId, OrgId
from apothic.wire.limits import LOG_PAGE_LINES_MAX
from apothic.wire.values import Value
from apothic_server.domain.jobs import Job, JobEntry, JobFilter, JobStatus, StoredEvent, StoredOutcome, StoredValue
from apothic_server.store.connection import Connection, Record
from apothic_server.store.statements import load

SQL = load("jobs")
BEYOND = "~"
"""Sorts behind every key."""

LOOKED_AT_MAX = 10_000
"""Jobs that one page of a list looks at, so that a filter that few jobs pass costs no more than that."""


async def get_job(connection: Connection, org: OrgId, job: JobId) -> Job | None:
    """Return a job's row without its values, or None when the org has no such job."""
    row = await connection.fetchrow(SQL["get_job"], org, job)
    return None if row is None else _job(row)


async def list_jobs(connection: Connection, org: OrgId, wanted: JobFilter, *, limit: int) -> list[JobEntry]:
    """Return up to `limit` jobs that the filter lets pass, newest first, among the `LOOKED_AT_MAX` it looks at."""
    below, oldest = _bounds(wanted)
    rows = await connection.fetch(
        SQL["list_unfinished" if wanted.is_unfinished else "list_jobs"],
        org, below, oldest, limit, LOOKED_AT_MAX, wanted.app_name,
        wanted.function_name, None if wanted.status is None else wanted.status.value, wanted.deployment,
    )  # fmt: skip
    found: list[JobEntry] = []
    for row in rows:
        columns: dict[str, Any] = dict(row.items())
        found.append(JobEntry(**columns))
    return found


async def looked_to(connection: Connection, org: OrgId, wanted: JobFilter) -> JobId | None:
    """Return the oldest job that `list_jobs` looks at, or None when there are no older ones."""
    query = SQL["unfinished_looked_to" if wanted.is_unfinished else "looked_to"]
    key = await connection.fetchval(query, org, *_bounds(wanted), LOOKED_AT_MAX)
    return None if key is None else JobId(key)


async def get_arguments(connection: Connection, org: OrgId, job: JobId) -> StoredValue | None:
    """Return what a job was called with, or None when the org has no such job."""
    row = await connection.fetchrow(SQL["get_arguments"], org, job)
    return None if row is None else _value(row)


async def get_outcome(connection: Connection, org: OrgId, job: JobId) -> StoredOutcome | None:
    """Return status, result and error as they are now, or None when the org has no such job."""
    row = await connection.fetchrow(SQL["get_outcome"], org, job)
    if row is None:
        return None
    return _outcome(row)


async def list_outcomes(connection: Connection, jobs: Mapping[JobId, OrgId]) -> list[StoredOutcome]:
    """Return the ends of those of `jobs`, each with its org, that have ended; as the owner."""
    rows = await connection.fetch(SQL["list_outcomes"], list(jobs), list(jobs.values()))
    return [_outcome(row) for row in rows]


async def count_waiting(
    connection: Connection, org: OrgId, deployment: DeploymentId, function: FunctionId, *, limit: int
) -> int:
    """Return how many jobs of a deployed function wait, `limit` at most."""
    return int(await connection.fetchval(SQL["count_waiting"], org, deployment, function, limit))


async def get_last_index(connection: Connection, org: OrgId, job: JobId) -> tuple[int, JobStatus] | None:
    """Return the newest index of a job's stream and the job's status, or None when the org has no such job.

    Read it before the events: when it says that the job has ended, a later statement sees all of them.
    """
    row = await connection.fetchrow(SQL["get_last_index"], org, job)
    return None if row is None else (row["last_index"], JobStatus(row["status"]))


async def get_log_lines(
    connection: Connection, org: OrgId, job: JobId, *, after: int = -1, limit: int = LOG_PAGE_LINES_MAX
) -> list[StoredEvent]:
    """Return up to `limit` `job.log` events with an index above `after`, in order."""
    rows = await connection.fetch(SQL["get_log_lines"], org, job, after, limit)
    return [StoredEvent(row["index"], row["kind"], row["at"], _json(row["data"]) or {}) for row in rows]


def _bounds(wanted: JobFilter) -> tuple[str, str]:
    """Return the key below which all jobs of a list are, and the one that none is below."""
    below, oldest = wanted.before or BEYOND, wanted.oldest or ""
    if wanted.group is None:
        return below, oldest
    return min(below, f"{wanted.group}/"), max(oldest, f"{wanted.group}.")  # `/` comes right behind the dot


def _job(row: Record) -> Job:
    columns: dict[str, Any] = dict(row.items())
    columns |= {"status": JobStatus(row["status"]), "error": _json(row["error"])}
    return Job(**columns)


def _outcome(row: Record) -> StoredOutcome:
    result = None if row["encoding"] is None else _value(row)
    return StoredOutcome(row["id"], JobStatus(row["status"]), row["attempt"], result, _json(row["error"]))


def _value(row: Record) -> StoredValue:
    return StoredValue(Value(row["encoding"], row["data"] or b"", row["python"]), row["blob"])


def _json(text: str | None) -> dict[str, Any] | None:
    return None if text is None else msgspec.json.decode(text)
