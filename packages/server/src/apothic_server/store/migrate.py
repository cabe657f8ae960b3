"""Brings a database to the schema of this release.

Migrations are the files `migrations/NNNN_name.sql`, numbered from 1 without gaps, applied in order, each in one
transaction, by one process at a time. An applied file never changes again: its hash is kept in `schema_migrations`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib import resources

import asyncpg

from apothic_server.store.address import StoreAddress
from apothic_server.store.connection import Connection, Record, connect_plainly
from apothic_server.store.database import REQUEST_ROLE
from apothic_server.store.errors import StoreError, store_errors
from apothic_server.store.settings_check import check_settings

MIGRATION_DEADLINE_S = 600.0
LOCK = 0x6170_6F74_6869_6330
"""Key of the advisory lock that one migrating process holds."""

_FILE = re.compile(r"(?P<number>\d{4})_(?P<name>[a-z0-9_]+)\.sql")
_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    number      integer PRIMARY KEY,
    name        text NOT NULL,
    sha256      text NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""
_ROLE = """
SELECT role.oid IS NOT NULL AS exists,
       coalesce(role.rolsuper OR role.rolbypassrls, false) AS is_too_strong,
       coalesce(pg_has_role(current_user, role.oid, $2), false) AS is_granted,
       quote_ident(current_user) AS owner
FROM (SELECT) AS one LEFT JOIN pg_roles AS role ON role.rolname = $1
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of the migrations folder.

    Attributes:
        sha256: Hash of the file's bytes, in hexadecimal.
    """

    number: int
    name: str
    sql: str
    sha256: str


async def prepare_store(address: StoreAddress) -> list[Migration]:
    """Make a store ready for `Database.open`: check its settings, make the request role, apply what is missing.

    Returns:
        The migrations applied now, in order.

    Raises:
        StoreError: `unsafe_store`, `store_role_missing`, `migration_changed` or `store_newer`.
        Unavailable: The store is away, or another process migrates for too long.
    """
    with store_errors(connecting=True):
        connection = await connect_plainly(
            address, command_timeout=MIGRATION_DEADLINE_S, server_settings={"search_path": "public"}
        )
        try:
            await check_settings(connection)
            return await migrate(connection, migrations())
        finally:
            await connection.close(timeout=5.0)


async def migrate(connection: Connection, known: list[Migration]) -> list[Migration]:
    """Apply those of `known` that the database lacks.

    A failing file leaves its own part undone and the files before it applied.

    Raises:
        StoreError: As for `prepare_store`; nothing was changed then.
    """
    await connection.execute("SELECT pg_advisory_lock($1)", LOCK)
    try:
        missing = check_history(known, await _applied(connection))
        await make_request_role(connection)
        await connection.execute(_TABLE)
        for migration in missing:
            await _apply(connection, migration)
        return missing
    finally:
        if not connection.is_closed():
            await connection.execute("SELECT pg_advisory_unlock($1)", LOCK)


def migrations() -> list[Migration]:
    """Return the migrations of this release in order.

    Raises:
        ValueError: A file is misnamed, or a number is missing or used twice; an error of ours.
    """
    folder = resources.files("apothic_server.store").joinpath("migrations")
    files = {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.name.endswith(".sql")}
    return read_migrations(files)


def read_migrations(files: dict[str, bytes]) -> list[Migration]:
    """Read migrations from file contents by name; see `migrations`."""
    found: list[Migration] = []
    for name, content in sorted(files.items()):
        match = _FILE.fullmatch(name)
        if match is None or int(match["number"]) != len(found) + 1:
            raise ValueError(f"migration {name} is misnamed, or a number before it is missing or used twice")
        digest = hashlib.sha256(content).hexdigest()
        found.append(Migration(int(match["number"]), match["name"], content.decode("utf-8"), digest))
    return found


def check_history(known: list[Migration], applied: dict[int, str]) -> list[Migration]:
    """Return the migrations that are missing.

    Args:
        known: The files of this release, in order.
        applied: SHA-256 by number, as the database has them.

    Raises:
        StoreError: `store_newer` when the database has numbers that are unknown here, `migration_changed` when a file
            is not the one that was applied, or one in the middle was left out.
    """
    if unknown := set(applied) - {migration.number for migration in known}:
        raise StoreError(
            f"the database has migration {max(unknown)} and this release knows {len(known)}; use a newer release",
            code="store_newer",
        )
    for migration in known[: len(applied)]:
        if applied.get(migration.number) != migration.sha256:
            raise StoreError(
                f"migration {migration.number:04} ({migration.name}) is not the one that the database had applied",
                code="migration_changed",
            )
    return known[len(applied) :]


async def make_request_role(connection: Connection) -> None:
    """Make the role of the request path, which belongs to the whole server, and allow our user to take it on.

    Raises:
        StoreError: `store_role_missing` when we may not; the sentence holds the two lines for an administrator.
            `unsafe_store` when the role exists and row-level security would not hold for it.
    """
    role = await _look_up_role(connection)
    try:
        if not role["exists"]:
            await _create_role(connection)
        if not role["is_granted"]:
            await connection.execute(f"GRANT {REQUEST_ROLE} TO CURRENT_USER")
    except asyncpg.InsufficientPrivilegeError as error:
        raise StoreError(
            f"the role {REQUEST_ROLE} cannot be made; ask an administrator of the server to run:\n"
            f"CREATE ROLE {REQUEST_ROLE} NOLOGIN;\nGRANT {REQUEST_ROLE} TO {role['owner']};",
            code="store_role_missing",
        ) from error
    if role["is_too_strong"]:
        raise StoreError(
            f"the role {REQUEST_ROLE} may bypass row-level security; ask an administrator of the server to run:\n"
            f"ALTER ROLE {REQUEST_ROLE} NOSUPERUSER NOBYPASSRLS;",
            code="unsafe_store",
        )


async def _look_up_role(connection: Connection) -> Record:
    # From version 16 on a role's maker is its member without the right to take it on.
    right = (
        "SET" if await connection.fetchval("SELECT current_setting('server_version_num')::int") >= 160_000 else "MEMBER"
    )
    row = await connection.fetchrow(_ROLE, REQUEST_ROLE, right)
    assert row is not None
    return row


async def _create_role(connection: Connection) -> None:
    try:
        await connection.execute(f"CREATE ROLE {REQUEST_ROLE} NOLOGIN")
    except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
        # Another database of the same server is migrated at this moment.
        return


async def _applied(connection: Connection) -> dict[int, str]:
    if await connection.fetchval("SELECT to_regclass('schema_migrations') IS NULL"):
        return {}
    rows = await connection.fetch("SELECT number, sha256 FROM schema_migrations")
    return {row["number"]: row["sha256"] for row in rows}


async def _apply(connection: Connection, migration: Migration) -> None:
    async with connection.transaction():
        await connection.execute(migration.sql)
        await connection.execute(
            "INSERT INTO schema_migrations (number, name, sha256) VALUES ($1, $2, $3)",
            migration.number,
            migration.name,
            migration.sha256,
        )
