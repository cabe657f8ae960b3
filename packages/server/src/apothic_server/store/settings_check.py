"""Refuses a PostgreSQL server that acknowledges what it may lose (G14.1)."""

from __future__ import annotations

from collections.abc import Mapping

from apothic_server.store.connection import Connection
from apothic_server.store.errors import StoreError

VERSION_MIN = 15
_REQUIRED = {
    "fsync": frozenset({"on"}),
    "synchronous_commit": frozenset({"on", "remote_apply"}),
    "full_page_writes": frozenset({"on"}),
    "data_sync_retry": frozenset({"off"}),
}
_QUERY = "SELECT name, setting FROM pg_settings WHERE name = ANY($1::text[])"


async def check_settings(connection: Connection) -> None:
    """Check version and durability of the server that `connection` reaches.

    Args:
        connection: One that was opened without settings of its own, so that the defaults of role and database count.

    Raises:
        StoreError: `unsafe_store`; the sentence names every setting that has to change.
    """
    rows = await connection.fetch(_QUERY, [*_REQUIRED, "server_version_num"])
    problems = unsafe_settings({row["name"]: row["setting"] for row in rows})
    if problems:
        raise StoreError(f"the PostgreSQL server is not safe to use: {'; '.join(problems)}", code="unsafe_store")


def unsafe_settings(settings: Mapping[str, str]) -> list[str]:
    """Return one sentence part for each setting that is too weak or missing; empty when the server is safe.

    Args:
        settings: Values by name as `pg_settings` shows them, `server_version_num` among them.
    """
    version = int(settings.get("server_version_num", "0")) // 10_000
    too_old = [f"it is version {version} and must be {VERSION_MIN} or newer"] if version < VERSION_MIN else []
    weak = {name: sorted(good) for name, good in _REQUIRED.items() if settings.get(name) not in good}
    return too_old + [f"{name} is {settings.get(name)} and must be {good[0]}" for name, good in weak.items()]
