"""Workers: one row for each start of one worker (an incarnation), with its lease (G3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from apothic.wire.ids import EnrolledId, IncarnationId, OrgId
from apothic.wire.link import Machine
from apothic_server.store.connection import Connection, Record
from apothic_server.store.statements import load

SQL = load("workers")


@dataclass(frozen=True, slots=True)
class StoredWorker:
    """One incarnation. It is live while it has not ended and its lease has not expired."""

    id: IncarnationId
    org: OrgId
    name: str
    machine: Machine
    connected_at: datetime
    lease_expires_at: datetime
    ended_at: datetime | None
    ended_reason: str | None
    enrolled: EnrolledId | None


async def record_hello(
    connection: Connection,
    *,
    org: OrgId,
    worker: IncarnationId,
    name: str,
    machine: Machine,
    now: datetime,
    lease_expires_at: datetime,
    enrolled: EnrolledId | None = None,
) -> bool:
    """Insert an incarnation, or renew one that links again; False when it has ended or belongs to another org."""
    text = msgspec.json.encode(machine).decode()
    found = await connection.fetchval(SQL["add_worker"], worker, org, name, text, now, lease_expires_at, enrolled)
    return found is not None


async def renew_lease(connection: Connection, org: OrgId, worker: IncarnationId, lease_expires_at: datetime) -> bool:
    """Extend a lease (one UPDATE per heartbeat); False when the incarnation is unknown or has ended."""
    return await connection.fetchval(SQL["renew_lease"], org, worker, lease_expires_at) is not None


async def end_worker(connection: Connection, org: OrgId, worker: IncarnationId, reason: str, now: datetime) -> bool:
    """Mark an incarnation as ended; False when it is unknown or had ended before."""
    return await connection.fetchval(SQL["end_worker"], org, worker, now, reason) is not None


async def list_workers(connection: Connection, org: OrgId, *, ended_after: datetime) -> list[StoredWorker]:
    """Return the org's incarnations in the order of their ids, without those that ended before `ended_after`."""
    return [_worker(row) for row in await connection.fetch(SQL["list_workers"], org, ended_after)]


def _worker(row: Record) -> StoredWorker:
    columns: dict[str, Any] = dict(row.items())
    columns["machine"] = msgspec.json.decode(row["machine"], type=Machine)
    return StoredWorker(**columns)
