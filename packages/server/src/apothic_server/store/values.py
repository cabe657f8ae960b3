"""Which large values an org has uploaded. The bytes are in a blob store of their own."""

from __future__ import annotations

from datetime import datetime

from apothic.wire.ids import OrgId
from apothic_server.store.connection import Connection
from apothic_server.store.statements import load

SQL = load("values")


async def begin_value(connection: Connection, org: OrgId, sha256: str, now: datetime) -> None:
    """Record that bytes of this digest may come, so that nobody loses sight of them."""
    await connection.execute(SQL["begin_value"], org, sha256, now)


async def finish_value(connection: Connection, org: OrgId, sha256: str, size_bytes: int, now: datetime) -> None:
    """Record that a value is stored whole."""
    await connection.execute(SQL["finish_value"], org, sha256, now, size_bytes)


async def use_value(
    connection: Connection, org: OrgId, sha256: str, now: datetime, *, unless_after: datetime
) -> int | None:
    """Keep a value for another while and return its size; None when this org has not uploaded it.

    Args:
        unless_after: Nothing is written when it was used after this time.
    """
    found = await connection.fetchrow(SQL["known_value"], org, sha256)
    if found is not None and found["used_at"] > unless_after:
        return found["size_bytes"]
    return await connection.fetchval(SQL["use_value"], org, sha256, now)


async def bytes_of_values(connection: Connection, org: OrgId) -> int:
    """Return the bytes of all values of an org."""
    return await connection.fetchval(SQL["bytes_of_values"], org)


async def unused_values(connection: Connection, *, before: datetime, limit: int) -> list[tuple[OrgId, str]]:
    """Return values that were used last before a time and that no job names."""
    found = await connection.fetch(SQL["unused_values"], before, limit)
    return [(row["org"], row["sha256"]) for row in found]


async def forget_value(connection: Connection, org: OrgId, sha256: str, *, before: datetime) -> bool:
    """Remove the row unless it was used since; its lock is held until the end of the transaction."""
    return await connection.fetchval(SQL["forget_value"], org, sha256, before) is not None
