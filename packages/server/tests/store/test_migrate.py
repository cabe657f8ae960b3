"""Migrations, the role of the request path, and what makes a server unsafe."""

import asyncio
from contextlib import asynccontextmanager

import asyncpg
import pytest

from apothic_server.store.connection import connect, connect_plainly
from apothic_server.store.database import Database
from apothic_server.store.errors import StoreError
from apothic_server.store.launcher import EmbeddedPostgres
from apothic_server.store.migrate import check_history, migrate, migrations, prepare_store, read_migrations
from apothic_server.store.settings_check import check_settings, unsafe_settings
from apothic_server.testing.guarantees import guarantee
from apothic_server.testing.postgres import run_sql

pytestmark = pytest.mark.anyio

SAFE = {
    "server_version_num": "150000",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "data_sync_retry": "off",
}


@asynccontextmanager
async def connected(address):
    connection = await connect(address, name="test", deadline_s=10.0)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def empty(postgres_server):
    """A database without a schema, on the session's server."""
    admin = postgres_server.with_database("postgres")
    await run_sql(admin, "CREATE DATABASE unprepared")
    yield postgres_server.with_database("unprepared")
    await run_sql(admin, "DROP DATABASE unprepared WITH (FORCE)")


@pytest.fixture
async def lone(folder):
    """A server of the test's own, for what belongs to a whole server: roles."""
    server = EmbeddedPostgres(folder)
    yield await server.start()
    await server.stop()


async def applied(address):
    async with connected(address) as connection:
        return await connection.fetch("SELECT number, name, sha256 FROM schema_migrations ORDER BY number")


async def refusal(address):
    with pytest.raises(StoreError) as caught:
        await prepare_store(address)
    return caught.value


async def test_an_empty_database_gets_every_migration_once(empty):
    first, second = await prepare_store(empty), await prepare_store(empty)

    assert first == migrations()
    assert second == []
    assert [tuple(row) for row in await applied(empty)] == [(one.number, one.name, one.sha256) for one in first]


async def test_two_processes_that_migrate_at_once_apply_each_file_once(empty):
    results = await asyncio.gather(*(prepare_store(empty) for _ in range(4)))

    assert sorted(len(result) for result in results) == [0, 0, 0, len(migrations())]


async def test_a_migration_that_fails_leaves_nothing_of_itself(empty):
    known = read_migrations(
        {"0001_one.sql": b"CREATE TABLE one (a int)", "0002_two.sql": b"CREATE TABLE two (a int); SELEKT"}
    )
    async with connected(empty) as connection:
        with pytest.raises(asyncpg.PostgresSyntaxError):
            await migrate(connection, known)

        assert await connection.fetchval("SELECT to_regclass('one') IS NOT NULL")
        assert await connection.fetchval("SELECT to_regclass('two') IS NULL")
        mended = read_migrations(
            {"0001_one.sql": b"CREATE TABLE one (a int)", "0002_two.sql": b"CREATE TABLE two (a int)"}
        )
        assert [one.number for one in await migrate(connection, mended)] == [2]


async def test_a_changed_file_is_refused(postgres):
    await run_sql(postgres, "UPDATE schema_migrations SET sha256 = 'other' WHERE number = 1")

    assert (await refusal(postgres)).code == "migration_changed"


async def test_a_database_of_a_newer_release_is_refused_and_left_alone(postgres):
    await run_sql(postgres, "INSERT INTO schema_migrations (number, name, sha256) VALUES (999, 'later', 'x')")
    before = await applied(postgres)

    error = await refusal(postgres)

    assert (error.code, "999" in error.detail) == ("store_newer", True)
    assert await applied(postgres) == before


def test_a_migration_left_out_in_the_middle_is_refused():
    known = read_migrations({f"000{number}_x.sql": b"SELECT 1" for number in (1, 2, 3)})

    assert check_history(known, {1: known[0].sha256}) == known[1:]
    with pytest.raises(StoreError, match="0002"):
        check_history(known, {1: known[0].sha256, 3: known[2].sha256})


@pytest.mark.parametrize(
    "names", [["0002_b.sql"], ["0001_a.sql", "0003_c.sql"], ["0001_a.sql", "0001_b.sql"], ["1_a.sql"]]
)
def test_misnumbered_files_are_refused(names):
    with pytest.raises(ValueError, match=names[-1]):
        read_migrations(dict.fromkeys(names, b""))


async def test_an_owner_who_may_make_roles_needs_no_administrator(lone):
    await run_sql(lone, "CREATE ROLE tenant LOGIN CREATEROLE PASSWORD 'tenant'")
    await run_sql(lone, "CREATE DATABASE theirs OWNER tenant")
    theirs = type(lone)(host=lone.host, user="tenant", password="tenant", database="theirs")

    await prepare_store(theirs)

    database = await Database.open(theirs)
    await database.close()
    assert await prepare_store(theirs) == []


async def test_an_owner_who_may_not_is_told_the_two_lines_that_help(lone):
    await run_sql(lone, "CREATE ROLE \"a tenant\" LOGIN PASSWORD 'tenant'")
    await run_sql(lone, 'CREATE DATABASE theirs OWNER "a tenant"')
    theirs = type(lone)(host=lone.host, user="a tenant", password="tenant", database="theirs")

    error = await refusal(theirs)

    lines = error.detail.splitlines()[1:]
    assert (error.code, len(lines)) == ("store_role_missing", 2)
    for line in lines:
        await run_sql(lone, line)
    assert await prepare_store(theirs) == migrations()


async def test_a_request_role_that_bypasses_row_level_security_is_refused(lone):
    await run_sql(lone, "CREATE ROLE apothic_request NOLOGIN BYPASSRLS")

    assert (await refusal(lone)).code == "unsafe_store"


@guarantee("G14.1", "unsafe_store_refused")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fsync", "off"),
        ("full_page_writes", "off"),
        ("data_sync_retry", "on"),
        ("synchronous_commit", "off"),
        ("synchronous_commit", "local"),
        ("synchronous_commit", "remote_write"),
    ],
)
async def test_a_server_that_may_lose_what_it_acknowledged_is_refused(folder, name, value):
    server = EmbeddedPostgres(folder, settings={name: value})
    address = await server.start()
    try:
        error = await refusal(address)
        assert error.code == "unsafe_store"
        assert f"{name} is {value}" in error.detail
        async with connected(address) as connection:
            assert await connection.fetchval("SELECT to_regclass('schema_migrations') IS NULL")
    finally:
        await server.stop()


@guarantee("G14.1", "unsafe_store_refused")
async def test_a_weak_default_of_the_role_or_the_database_is_refused(postgres):
    await run_sql(postgres, f"ALTER DATABASE {postgres.database} SET synchronous_commit = off")

    assert (await refusal(postgres)).code == "unsafe_store"


@guarantee("G14.1", "unsafe_store_refused")
def test_versions_and_settings_that_are_too_weak_are_all_named():
    assert unsafe_settings(SAFE) == []
    assert unsafe_settings({**SAFE, "synchronous_commit": "remote_apply"}) == []
    assert unsafe_settings({**SAFE, "server_version_num": "149999"}) == ["it is version 14 and must be 15 or newer"]
    assert len(unsafe_settings({})) == 5


async def test_a_safe_server_passes(postgres):
    connection = await connect_plainly(postgres)
    await check_settings(connection)
    await connection.close()
