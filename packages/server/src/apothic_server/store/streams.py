"""Reading, trimming and appending to event streams; to those of jobs only the batching writer appends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from apothic.wire.ids import JobId, OrgId
from apothic.wire.values import Value
from apothic_server.domain.jobs import ItemSegment, Job, StoredEvent, StoredItems, StoredValue, StreamEvent
from apothic_server.domain.streams import StreamKind, StreamRef
from apothic_server.store.connection import Connection, Record
from apothic_server.store.recovery import job_of
from apothic_server.store.statements import load

SQL = load("streams")
SEGMENTS_LOOKED_AT = 200
"""Segments of items that one read considers."""

PAGE_BYTES = 64 * 1024
"""A page of events ends with the one that exceeds this."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a stream holds: indexes from `oldest` to `newest`; `is_final` when nothing follows.

    Attributes:
        oldest_item: Items are kept from here on, also where other events are gone.
        has_items: Items were published.
    """

    oldest: int
    newest: int
    is_final: bool
    oldest_item: int = 0
    has_items: bool = False


@dataclass(frozen=True, slots=True)
class Trim:
    """Events of a stream below `first_index` may go; `is_job` tells where its bounds are."""

    stream: str
    org: OrgId
    first_index: int
    is_job: bool


@dataclass(frozen=True, slots=True)
class Growing:
    """A live job's stream that may be too large: events from `first_index` to below `next_index`."""

    stream: JobId
    org: OrgId
    first_index: int
    next_index: int


@dataclass(frozen=True, slots=True)
class HeavyItems:
    """A job and the bytes of its kept items."""

    job: JobId
    org: OrgId
    size_bytes: int


async def get_bounds(connection: Connection, org: OrgId, stream: StreamRef) -> Bounds | None:
    """Return the stream's bounds, or None when the org has no such one."""
    if stream.kind is StreamKind.JOB:
        row = await connection.fetchrow(SQL["get_job_bounds"], org, stream.key)
        if row is not None:
            return Bounds(row["oldest"], row["newest"], row["is_final"], row["oldest_item"], row["has_items"])
    else:
        row = await connection.fetchrow(SQL["get_bounds"], org, stream.key, stream.kind.value)
    return None if row is None else Bounds(row["oldest"], row["newest"], row["is_final"])


async def is_first(connection: Connection, org: OrgId, stream: StreamRef, index: int) -> bool:
    """Whether the event at an index is the one that its stream began with; after a restore that is not at 0."""
    return await connection.fetchval(SQL["is_first"], org, stream.key, index) is not None


async def hold(connection: Connection, org: OrgId, stream: StreamRef) -> tuple[int, bool] | None:
    """Keep a stream, not of a job, as it is until the transaction ends.

    Returns:
        Its newest index, -1 without any, and whether it has ended; None when the org has no such stream.
    """
    row = await connection.fetchrow(SQL["hold"], org, stream.key, stream.kind.value)
    return None if row is None else (row["newest"], row["is_final"])


async def count_build_lines(
    connection: Connection, org: OrgId, stream: StreamRef, worker: str, environment: str
) -> int:
    """Return how many lines are stored of the build of an environment that has not ended on a worker."""
    return await connection.fetchval(SQL["count_build_lines"], org, stream.key, worker, environment)


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
    """Return up to `limit` events with an index above `after` and at most `upto`, in order.

    Fewer come when they exceed `PAGE_BYTES`, but at least one.
    """
    rows = await connection.fetch(SQL["list_events"], org, stream.key, after, upto, limit, PAGE_BYTES)
    return [_event(row) for row in rows]


async def get_items(
    connection: Connection, org: OrgId, job: JobId, *, after: int, upto: int, size_max: int
) -> list[StoredItems]:
    """Return segments that hold an index above `after`, up to about `size_max` bytes of them, in order."""
    rows = await connection.fetch(SQL["list_items"], org, job, after, size_max, upto, SEGMENTS_LOOKED_AT)
    return [_items(row) for row in rows]


async def get_next_ordinal(connection: Connection, org: OrgId, job: JobId, *, upto: int) -> int:
    """Return one more than the greatest ordinal among the items up to an index."""
    return await connection.fetchval(SQL["get_next_ordinal"], org, job, upto) or 0


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


async def long_streams(
    connection: Connection, *, longer_than: int, after: str, limit: int, of_jobs: bool = True
) -> list[Trim]:
    """Return trims of live streams of all orgs that are longer: of unfinished jobs, or of apps and deployments."""
    statement = SQL["list_long_streams" if of_jobs else "list_long_others"]
    return [_trim(row, of_jobs) for row in await connection.fetch(statement, longer_than, after, limit)]


async def old_streams(
    connection: Connection, *, ended_before: datetime, after: str, limit: int, of_jobs: bool = True
) -> list[Trim]:
    """Return trims of streams of all orgs that ended long ago: of jobs, or of apps and deployments."""
    statement = SQL["list_old_streams" if of_jobs else "list_old_others"]
    return [_trim(row, of_jobs) for row in await connection.fetch(statement, ended_before, after, limit)]


async def growing_streams(connection: Connection, *, longer_than: int, after: str, limit: int) -> list[Growing]:
    """Return streams of unfinished jobs of all orgs that hold more events, in the order of their ids."""
    rows = await connection.fetch(SQL["list_growing_streams"], longer_than, after, limit)
    return [Growing(JobId(row["id"]), OrgId(row["org"]), row["first_index"], row["next_index"]) for row in rows]


async def heavy_trim(connection: Connection, stream: Growing, *, bytes_max: int) -> Trim | None:
    """Return the trim that leaves at most `bytes_max` bytes, items of generators not counted; None when all fit."""
    floor: int | None = await connection.fetchval(
        SQL["get_heavy_floor"], stream.stream, stream.org, stream.first_index, bytes_max
    )
    return None if floor is None else Trim(stream.stream, stream.org, floor, is_job=True)


async def heavy_items(connection: Connection, *, bytes_max: int, after: str, limit: int) -> list[HeavyItems]:
    """Return jobs of all orgs whose kept items weigh more, in the order of their ids; at least 8 MiB."""
    rows = await connection.fetch(SQL["list_heavy_items"], bytes_max, after, limit)
    return [HeavyItems(JobId(row["id"]), OrgId(row["org"]), row["size_bytes"]) for row in rows]


async def rotate_items(connection: Connection, stream: HeavyItems, *, size_bytes: int, limit: int) -> int:
    """Delete a job's oldest items of at least `size_bytes`, in at most `limit` segments, and raise their floor.

    Returns:
        The bytes that went.
    """
    gone: int = await connection.fetchval(SQL["rotate_items"], stream.job, stream.org, size_bytes, limit)
    return gone


async def trim(connection: Connection, what: Trim) -> None:
    """Raise the floor of a stream and delete what is below it."""
    statement = SQL["raise_floor" if what.is_job else "raise_floor_of_other"]
    await connection.execute(statement, what.stream, what.org, what.first_index)
    await connection.execute(SQL["trim_events"], what.stream, what.org, what.first_index)


def _event(row: Record) -> StoredEvent:
    data: dict[str, Any] = msgspec.json.decode(row["data"])
    return StoredEvent(row["index"], row["kind"], row["at"], data)


def _items(row: Record) -> StoredItems:
    count = row["last_index"] - row["first_index"] + 1
    segment = ItemSegment(
        row["attempt"], row["first_ordinal"], count, row["at"], row["encoding"], row["python"], row["data"]
    )
    return StoredItems(row["first_index"], segment)


def _trim(row: Record, is_job: bool) -> Trim:
    return Trim(row["id"], OrgId(row["org"]), row["first_index"], is_job)
