"""Rows of idempotency keys. Those of calls are written by the batching writer, in the insert of their job."""

from __future__ import annotations

from datetime import datetime

from apothic.wire.ids import OrgId
from apothic_server.domain.idempotency import KeptAnswer, KeyRow, RequestKey
from apothic_server.store.connection import Connection
from apothic_server.store.statements import load

SQL = load("idempotency")


async def lock_key(connection: Connection, org: OrgId, key: RequestKey) -> bool:
    """Take the key until the transaction ends, however it ends; False when another transaction has it."""
    return bool(await connection.fetchval(SQL["lock_key"], org, key.digest))


async def find_key(connection: Connection, org: OrgId, key: RequestKey) -> KeyRow | None:
    """Return what the org's request with this key did, or None when none took effect."""
    row = await connection.fetchrow(SQL["find_key"], org, key.digest)
    if row is None:
        return None
    answer = None if row["status"] is None else KeptAnswer(row["status"], row["body"])
    return KeyRow(key.digest, row["fingerprint"], row["job"], answer)


async def add_key(connection: Connection, org: OrgId, row: KeyRow, now: datetime) -> None:
    """Keep what a request did, in the transaction that does it; a row that is there already stays."""
    answer = row.answer
    status, body = (None, None) if answer is None else (answer.status, answer.body)
    await connection.execute(SQL["add_key"], org, row.digest, row.fingerprint, row.job, status, body, now)


async def forget_keys(connection: Connection, *, completed_before: datetime, limit: int) -> int:
    """Delete up to `limit` keys of all orgs whose work was complete before that time; return how many; as the owner."""
    rows = await connection.fetch(SQL["forget_keys"], completed_before, limit)
    return len(rows)
