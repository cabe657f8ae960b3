"""What the dispatcher reads and ends of groups, of all orgs; every function needs the tables' owner."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import msgspec

from apothic.wire.ids import GroupId, JobId, OrgId
from apothic_server.domain.groups import Counts, Group, GroupStatus, Segment, Slice
from apothic_server.store.connection import Connection, Record
from apothic_server.store.recovery import slice_of
from apothic_server.store.statements import load

SQL = load("live_groups")
COLUMNS = tuple(column.name for column in fields(Group))


@dataclass(frozen=True, slots=True)
class Unretried:
    """An ended chunk, some of whose failed items may have retries left and have no row of their own.

    Attributes:
        covers: The items that it covers.
        failed: Their offsets.
        data: Its packed outcomes, unless they lie in the blob store.
    """

    id: JobId
    covers: Slice
    fence: int
    worker: str | None
    created_at: datetime
    started_at: datetime | None
    failed: tuple[int, ...]
    data: bytes
    blob: str | None
    python: str | None


async def unfinished_groups(connection: Connection, *, after: str, limit: int) -> list[Group]:
    """Return up to `limit` groups that have not ended, with an id above `after`, in the order of their ids."""
    return [group_of(row) for row in await connection.fetch(SQL["list_unfinished"], after, limit)]


async def get_groups(connection: Connection, groups: list[GroupId]) -> list[Group]:
    """Return groups, ended ones too, in no order; unknown ids are left out."""
    return [group_of(row) for row in await connection.fetch(SQL["get_groups"], groups)]


async def one_snapshot(connection: Connection) -> None:
    """Let all that is read in this transaction be of one moment; before anything is."""
    await connection.execute(SQL["one_snapshot"])


async def count_items(connection: Connection, org: OrgId, group: GroupId) -> Counts:
    """Return how many items have ended how; those that have not are not counted."""
    row = await connection.fetchrow(SQL["count_items"], group, org)
    return Counts() if row is None else Counts(**{name: int(value) for name, value in row.items()})


async def uncovered(connection: Connection, org: OrgId, group: GroupId, *, uploaded: int) -> list[tuple[int, int]]:
    """Return the items that no row covers: ranges of the first and the one after the last, in order."""
    *gaps, last = [(row["first"], row["upto"]) for row in await connection.fetch(SQL["list_gaps"], group, org)]
    return [*gaps, (last[1], uploaded)] if last[1] < uploaded else gaps


async def live_rows(connection: Connection, org: OrgId, group: GroupId) -> dict[JobId, Slice]:
    """Return the rows of a group that have not ended, and what they cover."""
    rows = await connection.fetch(SQL["list_live_rows"], group, org)
    return {
        JobId(row["id"]): slice_of(
            group, row["first_item"], row["chunk_items"], row["overlays"], row["arguments_encoding"]
        )
        for row in rows
    }


async def unretried(connection: Connection, org: OrgId, group: GroupId, *, item: int, limit: int) -> list[Unretried]:
    """Return up to `limit` ended chunks from `item` on with a failed item that has no row of its own, in order."""
    rows = await connection.fetch(SQL["list_unretried"], group, org, item, limit)
    return [
        Unretried(
            id=JobId(row["id"]),
            covers=Slice(group, row["first_item"], row["chunk_items"], is_chunk=True),
            fence=row["fence"],
            worker=row["worker"],
            created_at=row["created_at"],
            started_at=row["started_at"],
            failed=tuple(row["failed_items"]),
            data=row["data"] or b"",
            blob=row["blob"],
            python=row["python"],
        )
        for row in rows
    ]


async def inputs(connection: Connection, org: OrgId, group: GroupId, *, item: int, limit: int) -> list[Segment]:
    """Return up to `limit` segments, in order, of which the first holds `item`; nothing when none does."""
    rows = await connection.fetch(SQL["list_inputs"], group, org, item, limit)
    found = [Segment(row["first"], row["count"], row["python"], row["data"] or b"", row["blob"]) for row in rows]
    return found if found and found[0].end > item else []


async def cancels(connection: Connection, org: OrgId, group: GroupId) -> list[int]:
    """Return the items of an unfinished group that somebody asked to cancel, whatever became of them."""
    return [row["item"] for row in await connection.fetch(SQL["list_cancels"], group, org)]


async def take_cancels(connection: Connection, groups: list[GroupId], *, term: int) -> dict[GroupId, list[int]]:
    """Return, and mark as taken in, the items of these groups to be cancelled that no dispatcher took in yet."""
    found: dict[GroupId, list[int]] = {}
    for row in await connection.fetch(SQL["take_cancels"], groups, term):
        found.setdefault(GroupId(row["group_id"]), []).append(row["item"])
    return found


async def stop_group(
    connection: Connection, org: OrgId, group: GroupId, error: dict[str, Any] | None, *, term: int
) -> bool:
    """Write that a running group is being cancelled; return whether it was."""
    told = None if error is None else _json(error)
    return await connection.fetchval(SQL["stop_group"], group, org, told, term) is not None


async def stop_silent(
    connection: Connection, org: OrgId, group: GroupId, error: dict[str, Any], *, heard_before: datetime, term: int
) -> bool:
    """Write that a running group is being cancelled, unless it has all its items or was heard of since; return whether
    it was.
    """
    found = await connection.fetchval(SQL["stop_silent"], group, org, _json(error), heard_before, term)
    return found is not None


async def end_group(
    connection: Connection,
    org: OrgId,
    group: GroupId,
    status: GroupStatus,
    counts: Counts,
    error: dict[str, Any] | None,
    *,
    uploaded: int,
    now: datetime,
    term: int,
) -> bool:
    """Write the end of a group, unless it has ended, has more items or the term is over; return whether it was."""
    told = None if error is None else _json(error)
    found = await connection.fetchval(
        SQL["end_group"], group, org, status.value, _json(counts.as_json()), told, now, uploaded, term
    )
    return found is not None


def group_of(row: Record) -> Group:
    """Return the group of a row that holds its columns."""
    columns: dict[str, Any] = {name: row[name] for name in COLUMNS}
    for name in ("counts", "error"):
        columns[name] = None if row[name] is None else msgspec.json.decode(row[name])
    columns["status"] = GroupStatus(row["status"])
    return Group(**columns)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
