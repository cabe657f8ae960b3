"""Reading, trimming and appending to event streams; to those of jobs only the batching writer appends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from apothic.wire.ids import JobId, OrgId
from apothic.wire.values import Value
from apothic_server.domain.jobs import Job, StoredEvent, StoredValue, StreamEvent
from apothic_server.domain.streams import StreamKind, StreamRef
from apothic_server.store.connection import Connection, Record
from apothic_server.store.recovery import job_of
from apothic_server.store.statements import load

SQL = load("streams")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a stream holds: indexes from `oldest` to `newest`; `is_final` when nothing follows."""

    oldest: int
    newest: int
    is_final: bool


@dataclass(frozen=True, slots=True)
class Trim:
    """Events of a stream below `first_index` may go."""

    stream: JobId
    org: OrgId
    first_index: int


async def get_bounds(connection: Connection, org: OrgId, stream: StreamRef) -> Bounds | None:
    """Return the stream's bounds, or None when the org has no such one."""
    if stream.kind is StreamKind.JOB:
        row = await connection.fetchrow(SQL["get_job_bounds"], org, stream.key)
    else:
        row = await connection.fetchrow(SQL["get_bounds"], org, stream.key, stream.kind.value)
    return None if row is None else Bounds(row["oldest"], row["newest"], row["is_final"])


async def hold(connection: Connection, org: OrgId, stream: StreamRef) -> tuple[int, bool] | None:
    """Keep a stream, not of a job, as it is until the transaction ends.

    Returns:
        Its newest index, -1 without any, and whether it has ended; None when the org has no such stream.
    """
    row = await connection.fetchrow(SQL["hold"], org, stream.key, stream.kind.value)
    return None if row is None else (row["newest"], row["is_final"])


async def append(
    connection: Connection,
    org: OrgId,
    stream: StreamRef,
    events: Sequence[StreamEvent],
    *,
    ended_at: datetime | None = None,
) -> None:
    """Give events, not of a job, the next indexes; the stream is made by its first.

    Who appends to several streams in one transaction does it app first, then deployments by version, so that two
    transactions never wait in a circle.

    Args:
        ended_at: Nothing follows the last of `events`.
    """
    kinds, times = [event.kind for event in events], [event.at for event in events]
    data = [msgspec.json.encode(event.data).decode() for event in events]
    await connection.execute(SQL["append"], stream.key, org, stream.kind.value, kinds, times, data, ended_at)


async def get_events(
    connection: Connection, org: OrgId, stream: StreamRef, *, after: int, upto: int, limit: int
) -> list[StoredEvent]:
    """Return up to `limit` events with an index above `after` and at most `upto`, in order."""
    return [_event(row) for row in await connection.fetch(SQL["list_events"], org, stream.key, after, upto, limit)]


async def get_job_and_index(
    connection: Connection, org: OrgId, job: JobId
) -> tuple[Job, StoredValue | None, int] | None:
    """Return a job, its result and the newest index of its stream, all as of one moment."""
    row = await connection.fetchrow(SQL["get_job_and_index"], org, job)
    if row is None:
        return None
    has_result = row["encoding"] is not None
    value = StoredValue(Value(row["encoding"], row["data"] or b"", row["python"]), row["blob"]) if has_result else None
    return job_of(row), value, row["newest"]


async def long_streams(connection: Connection, *, longer_than: int, after: JobId | None, limit: int) -> list[Trim]:
    """Return trims of unfinished jobs of all orgs whose stream is longer, in the order of their ids."""
    return [_trim(row) for row in await connection.fetch(SQL["list_long_streams"], longer_than, after or "", limit)]


async def old_streams(connection: Connection, *, ended_before: datetime, after: JobId | None, limit: int) -> list[Trim]:
    """Return trims of jobs of all orgs that ended long ago, in the order of their ids."""
    return [_trim(row) for row in await connection.fetch(SQL["list_old_streams"], ended_before, after or "", limit)]


async def trim(connection: Connection, what: Trim) -> None:
    """Raise the floor of a stream and delete what is below it."""
    await connection.execute(SQL["raise_floor"], what.stream, what.org, what.first_index)
    await connection.execute(SQL["trim_events"], what.stream, what.org, what.first_index)


def _event(row: Record) -> StoredEvent:
    data: dict[str, Any] = msgspec.json.decode(row["data"])
    return StoredEvent(row["index"], row["kind"], row["at"], data)


def _trim(row: Record) -> Trim:
    return Trim(JobId(row["id"]), OrgId(row["org"]), row["first_index"])
