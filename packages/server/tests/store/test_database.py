"""Units of the two paths to the store, and how a store that is away is told."""

import asyncio
import re
from contextlib import suppress

import asyncpg
import pytest

from apothic.wire.ids import OrgId, make_key
from apothic_server.domain.errors import Unavailable
from apothic_server.store.connection import connect
from apothic_server.store.database import Database
from apothic_server.store.errors import StoreError, store_errors
from apothic_server.testing.postgres import run_sql

pytestmark = pytest.mark.anyio

ALPHA, BETA = OrgId(make_key(1, 1)), OrgId(make_key(1, 2))


@pytest.fixture
async def two_orgs(database):
    async with database.system_unit() as unit:
        for org, slug in ((ALPHA, "alpha"), (BETA, "beta")):
            await unit.execute("INSERT INTO orgs VALUES ($1, $2, now())", org, slug)


async def slugs(unit):
    return [row["slug"] for row in await unit.fetch("SELECT slug FROM orgs ORDER BY slug")]


async def test_a_request_unit_sees_its_own_org_only(database, two_orgs):
    async with database.request_unit(ALPHA) as unit:
        assert await slugs(unit) == ["alpha"]
    async with database.request_unit(BETA) as unit:
        assert await slugs(unit) == ["beta"]


async def test_a_system_unit_sees_all_orgs(database, two_orgs):
    async with database.system_unit() as unit:
        assert await slugs(unit) == ["alpha", "beta"]


async def test_a_request_unit_cannot_write_rows_of_another_org(database, two_orgs):
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        async with database.request_unit(ALPHA) as unit:
            await unit.execute("INSERT INTO apps (id, org, name, created_at) VALUES ('a', $1, 'app', now())", BETA)


async def test_a_request_connection_without_an_org_sees_nothing(database, two_orgs):
    async with database.request_unit(ALPHA) as unit:
        await unit.execute("SELECT 1")
    async with database._request.acquire() as connection:
        assert await slugs(connection) == []


async def test_a_request_connection_is_the_restricted_role_and_stays_it(database):
    async with database.request_unit(ALPHA) as unit:
        await unit.execute("RESET ROLE")
        await unit.execute("RESET ALL")

        assert await unit.fetchval("SELECT current_user") == "apothic_request"


async def test_an_exception_rolls_the_unit_back(database, two_orgs):
    with pytest.raises(LookupError):
        async with database.system_unit() as unit:
            await unit.execute("DELETE FROM orgs")
            raise LookupError

    async with database.system_unit() as unit:
        assert await slugs(unit) == ["alpha", "beta"]


async def test_a_swallowed_statement_error_does_not_pass_for_a_commit(database, two_orgs):
    with pytest.raises(RuntimeError, match="swallowed"):
        async with database.system_unit() as unit:
            await unit.execute("DELETE FROM orgs")
            with suppress(asyncpg.DivisionByZeroError):
                await unit.execute("SELECT 1/0")

    async with database.system_unit() as unit:
        assert await slugs(unit) == ["alpha", "beta"]


async def test_a_cancelled_unit_gives_its_connection_back_clean(postgres):
    database = await Database.open(postgres, system_connections_max=1)
    entered = asyncio.Event()

    async def hang():
        async with database.system_unit() as unit:
            await unit.execute("INSERT INTO orgs VALUES ($1, 'alpha', now())", ALPHA)
            entered.set()
            await unit.execute("SELECT pg_sleep(60)")

    task = asyncio.create_task(hang())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async with database.system_unit() as unit:
        assert await slugs(unit) == []
    await database.close()


async def test_an_org_that_is_no_key_never_reaches_the_store(database):
    with pytest.raises(ValueError, match="26 characters"):
        async with database.request_unit(OrgId("x'; DROP TABLE jobs; --")):
            pass


async def test_no_free_connection_in_time_is_unavailable(postgres):
    database = await Database.open(postgres, system_connections_max=1, acquire_deadline_s=0.01)

    async with database.system_unit():
        with pytest.raises(Unavailable, match="in time"):
            async with database.system_unit():
                pass
    await database.close()


async def test_a_statement_past_its_deadline_is_unavailable(database):
    with pytest.raises(Unavailable, match="in time") as caught:
        async with database.system_unit() as unit:
            await unit.execute("SET LOCAL statement_timeout = '20ms'")
            await unit.execute("SELECT pg_sleep(60)")

    assert (caught.value.code, caught.value.retryable, caught.value.retry_after_s) == ("unavailable", True, 1)


async def test_a_connection_lost_in_a_unit_is_unavailable_and_the_next_unit_works(database, postgres):
    with pytest.raises(Unavailable, match="away"):
        async with database.system_unit() as unit:
            await run_sql(postgres, f"SELECT pg_terminate_backend({unit.get_server_pid()})")
            await unit.execute("SELECT 1")

    async with database.system_unit() as unit:
        assert await unit.fetchval("SELECT 1") == 1


async def test_a_connection_lost_while_idle_costs_no_unit(database, postgres):
    async with database.system_unit() as unit:
        pid = unit.get_server_pid()
    lost = asyncio.Event()
    async with database._system.acquire() as connection:
        connection.add_termination_listener(lambda _: lost.set())
        await run_sql(postgres, f"SELECT pg_terminate_backend({pid})")
        await lost.wait()

    async with database.system_unit() as unit:
        assert await unit.fetchval("SELECT 1") == 1


async def test_units_of_a_closed_database_are_unavailable(postgres):
    database = await Database.open(postgres)
    await database.close()
    await database.close()

    with pytest.raises(Unavailable, match="away"):
        async with database.system_unit():
            pass


async def test_a_refused_connection_is_unavailable(postgres, tmp_path):
    absent = type(postgres)(host=str(tmp_path), user="apothic", password="x", database="apothic")

    with pytest.raises(Unavailable, match="away"):
        await Database.open(absent)
    with pytest.raises(Unavailable, match="away"):
        await connect(absent, name="test", deadline_s=1.0)


async def test_a_wrong_password_is_unavailable_and_not_repeated(postgres):
    wrong = type(postgres)(host=postgres.host, user="apothic", password="hunter2", database=postgres.database)

    with pytest.raises(Unavailable) as caught:
        await Database.open(wrong)

    assert "hunter2" not in str(caught.value) + repr(wrong)


async def test_the_writers_connection_is_the_owner_and_waits_for_the_disk(database, postgres):
    await run_sql(postgres, f"ALTER DATABASE {postgres.database} SET synchronous_commit = off")

    writer = await database.connect_writer()

    assert await writer.fetchval("SELECT current_user") == "apothic"
    assert await writer.fetchval("SHOW synchronous_commit") == "on"
    await writer.close()


async def test_an_unprepared_store_is_refused(postgres_server):
    empty = postgres_server.with_database("postgres")

    with pytest.raises(StoreError) as caught:
        await Database.open(empty)

    assert caught.value.code == "store_not_prepared"


async def test_row_level_security_switched_off_is_refused(postgres):
    await run_sql(postgres, "ALTER TABLE apps DISABLE ROW LEVEL SECURITY")

    with pytest.raises(StoreError) as caught:
        await Database.open(postgres)

    assert caught.value.code == "unsafe_store"


async def test_mistakes_of_ours_are_not_called_unavailable(database):
    with pytest.raises(asyncpg.PostgresSyntaxError):
        async with database.system_unit() as unit:
            await unit.execute("SELEKT")
    with pytest.raises(FileNotFoundError), store_errors():
        raise FileNotFoundError
    with pytest.raises(asyncpg.InterfaceError, match=re.escape("expects 1 argument")), store_errors():
        async with database.system_unit() as unit:
            await unit.fetchval("SELECT $1::text")
