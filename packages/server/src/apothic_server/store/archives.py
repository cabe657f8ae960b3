"""Archives that an org has uploaded. A row is written after the bytes are safe in the blob store."""

from __future__ import annotations

from datetime import datetime

from apothic.wire.ids import OrgId
from apothic_server.store.connection import Connection
from apothic_server.store.statements import load

SQL = load("archives")


async def archive_size(connection: Connection, org: OrgId, sha256: str) -> int | None:
    """Bytes of an archive that this org has uploaded, None when it has not; what other orgs have is never told."""
    return await connection.fetchval(SQL["archive_size"], org, sha256)


async def insert_archive(connection: Connection, org: OrgId, sha256: str, size_bytes: int, now: datetime) -> bool:
    """Record an upload; False when the org has this archive already."""
    return await connection.fetchval(SQL["add_archive"], org, sha256, size_bytes, now) is not None
