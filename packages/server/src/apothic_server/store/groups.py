"""Groups, their inputs, and what the rows of their items tell; all in the transaction of the given connection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from apothic.wire.ids import AppId, DeploymentId, FunctionId, GroupId, JobId, OrgId
from apothic.wire.values import Value
from apothic_server.domain.group_views import GroupFilter, Inputs
from apothic_server.domain.groups import NOTED_S, Counts, Group, GroupStatus, Segment
from apothic_server.domain.jobs import JobStatus, StoredValue
from apothic_server.store.connection import Connection, Record
from apothic_server.store.statements import load

SQL = load("groups")
BEYOND = "~"
"""Sorts behind every key."""

LOOKED_AT_MAX = 10_000
"""Groups that one page of a list looks at."""

ENDS_PAGE = 500
ENDS_BYTES = 1024 * 1024
"""Rows, and about how many bytes of results, that one look at ends returns; at least one row."""

KEPT_RESULT_MAX = 64 * 1024
"""Bytes of the outcomes of an ended chunk that are read with any of its items."""

BEGIN = (-1, "")
"""Place before all rows."""

_COUNTED = {
    JobStatus.QUEUED: "queued",
    JobStatus.STARTING: "running",
    JobStatus.RUNNING: "running",
    JobStatus.CANCELLING: "running",
    JobStatus.RETRYING: "retrying",
    JobStatus.SUCCEEDED: "succeeded",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "cancelled",
    JobStatus.TIMED_OUT: "timed_out",
}


@dataclass(frozen=True, slots=True)
class StoredEnd:
    """A row whose end is known.

    Attributes:
        count: Items that it covers.
        done: How many of a chunk's items have an entry in its result; None for an item's own row.
        failed: Offsets of a chunk's entries that tell of a failure.
        own: Items of a chunk, by number, that have a row of their own.
    """

    id: JobId
    first: int
    count: int
    status: JobStatus
    result: StoredValue | None
    error: dict[str, Any] | None
    done: int | None
    failed: tuple[int, ...]
    own: tuple[int, ...]

    @property
    def place(self) -> tuple[int, str]:
        return self.first, self.id


@dataclass(frozen=True, slots=True)
class CoveringChunk:
    """The row of the chunk that covers an item; `count`, `done` and `failed` as in `StoredEnd`.

    Attributes:
        own: Items that have a row of their own, by number; empty unless the group has ended.
        entries: Its outcomes, when they were unpacked before.
    """

    first: int
    count: int
    status: JobStatus
    attempt: int
    done: int
    failed: frozenset[int]
    result: StoredValue | None
    error: dict[str, Any] | None
    started_at: datetime | None
    finished_at: datetime | None
    own: frozenset[int] = frozenset()
    entries: list[bytes] | None = None


@dataclass(frozen=True, slots=True)
class StoredItem:
    """What the store has of an item, as of one moment.

    Attributes:
        has_row: It has a row of its own, which alone tells of it.
        is_cancel_asked: Somebody asked to cancel it, and its group has not ended.
    """

    group: Group
    chunk: CoveringChunk | None
    has_row: bool
    is_cancel_asked: bool


@dataclass(frozen=True, slots=True)
class Ends:
    """Rows in the order of their items; `is_last` when no others follow."""

    rows: list[StoredEnd]
    is_last: bool


async def add_group(connection: Connection, new: Group) -> bool:
    """Write a new, empty group; False, and nothing written, when its function has one with its key."""
    columns = (new.spread, new.key, new.stop_after, new.created_by, new.parent, new.depth, new.created_at)
    made = await connection.fetchval(SQL["add_group"], new.id, new.org, new.app, new.deployment, new.function, *columns)
    return made is not None


async def find_group(connection: Connection, org: OrgId, function: FunctionId, key: str) -> GroupId | None:
    """Return the group of a function with this key, or None."""
    found = await connection.fetchval(SQL["find_group"], org, function, key)
    return None if found is None else GroupId(found)


async def count_unfinished(
    connection: Connection, org: OrgId, deployment: DeploymentId, function: FunctionId, *, limit: int
) -> int:
    """Return how many groups of a deployed function have not ended, `limit` at most."""
    return int(await connection.fetchval(SQL["count_unfinished"], org, deployment, function, limit))


async def get_group(connection: Connection, org: OrgId, group: GroupId) -> Group | None:
    """Return a group, or None when the org has no such one."""
    row = await connection.fetchrow(SQL["get_group"], org, group)
    return None if row is None else _group(row)


async def hold_group(connection: Connection, org: OrgId, group: GroupId) -> Group | None:
    """Return a group that nobody else changes until the transaction ends."""
    row = await connection.fetchrow(SQL["hold_group"], org, group)
    return None if row is None else _group(row)


async def list_groups(
    connection: Connection, org: OrgId, wanted: GroupFilter, *, limit: int
) -> list[tuple[Group, str, str]]:
    """Return up to `limit` groups that pass, newest first, each with the names of app and function."""
    status = None if wanted.status is None else wanted.status.value
    rows = await connection.fetch(
        SQL["list_groups"], org, wanted.before or BEYOND, limit, LOOKED_AT_MAX, wanted.app_name,
        wanted.function_name, status,
    )  # fmt: skip
    return [(_group(row), row["app_name"], row["function_name"]) for row in rows]


async def looked_to(connection: Connection, org: OrgId, wanted: GroupFilter) -> GroupId | None:
    """Return the oldest group that `list_groups` looks at, or None when there are no older ones."""
    key = await connection.fetchval(SQL["looked_to"], org, wanted.before or BEYOND, LOOKED_AT_MAX)
    return None if key is None else GroupId(key)


async def get_names(connection: Connection, org: OrgId, app: AppId, function: FunctionId) -> tuple[str, str]:
    """Return the names of a group's app and function, which never go."""
    row = await connection.fetchrow(SQL["get_names"], org, app, function)
    assert row is not None, "a group refers to them"
    return row["app_name"], row["function_name"]


async def waiting_bytes(connection: Connection, group: Group) -> int:
    """Return how many bytes of a group's inputs were not given to a runner yet, within the size of one chunk."""
    return int(await connection.fetchval(SQL["waiting_bytes"], group.org, group.id, group.uploaded_bytes))


async def add_inputs(
    connection: Connection, org: OrgId, group: GroupId, inputs: Inputs, blob: str | None, *, now: datetime
) -> None:
    """Append items to a group that is held; `blob` is where their data lies when it is not to lie in the row."""
    data = inputs.data if blob is None else None
    columns = (inputs.first, inputs.count, inputs.python, len(inputs.data), data, blob)
    await connection.execute(SQL["add_inputs"], org, group, *columns, now)


async def hear(connection: Connection, org: OrgId, group: GroupId, *, now: datetime) -> None:
    """Note that somebody cares for a group that takes items still; a note that is younger than `NOTED_S` is enough."""
    await connection.execute(SQL["hear"], org, group, now, now - timedelta(seconds=NOTED_S))


async def close_group(connection: Connection, org: OrgId, group: GroupId) -> None:
    """Say of a group that is held that it has all its items."""
    await connection.execute(SQL["close_group"], org, group)


async def cancel_group(connection: Connection, org: OrgId, group: GroupId) -> None:
    """Say of a group that runs and is held that it is to end."""
    await connection.execute(SQL["cancel_group"], org, group)


async def ask_to_cancel(connection: Connection, org: OrgId, group: GroupId, items: Sequence[int]) -> None:
    """Write down that items of a group that is held are to be cancelled; of some that may be written already."""
    await connection.execute(SQL["ask_to_cancel"], org, group, list(items))


async def count_new_cancels(connection: Connection, org: OrgId, group: GroupId, items: Sequence[int]) -> int:
    """Return of how many of these items the dispatcher does not know yet that they are to be cancelled."""
    return int(await connection.fetchval(SQL["count_new_cancels"], org, group, list(items)))


async def get_inputs(connection: Connection, org: OrgId, group: GroupId, item: int) -> Segment | None:
    """Return the inputs among which those of an item are, or None."""
    row = await connection.fetchrow(SQL["get_inputs"], org, group, item)
    if row is None or item >= row["first"] + row["count"]:
        return None
    return Segment(row["first"], row["count"], row["python"], row["data"] or b"", row["blob"])


async def get_item(
    connection: Connection, org: OrgId, group: GroupId, item: int, key: JobId, *, with_result: bool
) -> StoredItem | None:
    """Return what the store has of the item whose own row would be `key`; None when the group has no such item.

    Args:
        with_result: Else the result of its chunk is read only when it tells why the item failed, or is no larger than
            `KEPT_RESULT_MAX` and the group has ended.
    """
    row = await connection.fetchrow(SQL["get_item"], org, group, item, key, with_result, KEPT_RESULT_MAX)
    if row is None:
        return None
    chunk = None if row["first_item"] is None else _chunk(row)
    return StoredItem(_group(row), chunk, has_row=row["has_row"], is_cancel_asked=row["is_cancel_asked"])


async def count_items(connection: Connection, group: Group) -> dict[str, int]:
    """Return the items of a group by status, from the rows that cover them."""
    found = Counts().as_json()
    for row in await connection.fetch(SQL["count_items"], group.org, group.id):
        found[_COUNTED[JobStatus(row["status"])]] += int(row["items"] or 0)
    found["queued"] += group.uploaded - sum(found.values())
    return found


async def list_ends(
    connection: Connection, org: OrgId, group: GroupId, ranges: Sequence[tuple[int, int]], *, after: tuple[int, str]
) -> Ends:
    """Return rows whose end is known and that cover items of `ranges`, from low to below high, after a place."""
    lows, highs = [low for low, _ in ranges], [high for _, high in ranges]
    rows = await connection.fetch(SQL["list_ends"], org, group, lows, highs, *after, ENDS_PAGE, ENDS_BYTES)
    is_last = not rows or (len(rows) == rows[0]["looked_at"] and len(rows) < ENDS_PAGE)
    return Ends([_end(row) for row in rows], is_last)


def _group(row: Record) -> Group:
    columns: dict[str, Any] = {name: row[name] for name in Group.__slots__}
    columns |= {"status": GroupStatus(row["status"]), "counts": _json(row["counts"]), "error": _json(row["error"])}
    return Group(**columns)


def _chunk(row: Record) -> CoveringChunk:
    value = Value(row["result_encoding"] or "", row["result"] or b"", row["result_python"])
    return CoveringChunk(
        first=row["first_item"],
        count=row["chunk_items"],
        status=JobStatus(row["chunk_status"]),
        attempt=row["attempt"],
        done=row["chunk_done"] or 0,
        failed=frozenset(row["failed_items"] or ()),
        result=None if row["result_encoding"] is None else StoredValue(value, row["result_blob"]),
        error=_json(row["chunk_error"]),
        started_at=row["started_at"],
        finished_at=row["chunk_finished_at"],
        own=frozenset(row["own"] or ()),
    )


def _end(row: Record) -> StoredEnd:
    encoding = row["result_encoding"]
    value = None if encoding is None else Value(encoding, row["result"] or b"", row["result_python"])
    is_chunk = row["chunk_items"] is not None
    return StoredEnd(
        id=JobId(row["id"]),
        first=row["first_item"],
        count=row["chunk_items"] if is_chunk else 1,
        status=JobStatus(row["status"]),
        result=None if value is None else StoredValue(value, row["result_blob"]),
        error=_json(row["error"]),
        done=(row["chunk_done"] or 0) if is_chunk else None,
        failed=tuple(row["failed_items"] or ()),
        own=tuple(row["own"] or ()),
    )


def _json(text: str | None) -> dict[str, Any] | None:
    return None if text is None else msgspec.json.decode(text)
