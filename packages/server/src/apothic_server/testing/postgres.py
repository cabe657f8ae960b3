"""A real PostgreSQL for tests: one embedded server per test session, one migrated database per test.

Fixtures: `postgres` (the address of the test's own database), `database` (the same, opened), and below them
`postgres_server` (the session's server; its address names the migrated template).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import pytest

from apothic_server.store.address import StoreAddress
from apothic_server.store.connection import connect
from apothic_server.store.database import Database
from apothic_server.store.errors import StoreError
from apothic_server.store.launcher import EmbeddedPostgres
from apothic_server.store.migrate import prepare_store
from apothic_server.store.postmaster import find_postmaster

__all__ = ["database", "postgres", "postgres_server", "run_sql", "scratch_place"]

TEMPLATE = "template_apothic"
_DEADLINE_S = 30.0
_PREFIX = "apothic-test-postgres-"
_MEMORY = Path("/dev/shm")  # noqa: S108 - folders in it are made closed to others
_ROOM_BYTES = 2 * 1024**3
T = TypeVar("T")
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres_server() -> Generator[StoreAddress]:
    """Run one server for the session; yield the address of the migrated database that the tests' are copies of."""
    place = scratch_place()
    _in_loop(lambda: _sweep(place))
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
    server = EmbeddedPostgres(folder)
    try:
        yield _in_loop(lambda: _prepare(server))
    finally:
        _in_loop(server.stop)
        shutil.rmtree(folder)


@pytest.fixture
def postgres(postgres_server: StoreAddress) -> Iterator[StoreAddress]:
    """Yield the address of a fresh, migrated and empty database; it is dropped after the test."""
    admin = postgres_server.with_database("postgres")
    name = f"test_{next(_numbers)}"
    _in_loop(lambda: run_sql(admin, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}"))
    try:
        yield postgres_server.with_database(name)
    finally:
        _in_loop(lambda: run_sql(admin, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
async def database(postgres: StoreAddress) -> AsyncGenerator[Database]:
    """Yield the test's own database, opened; for tests marked `anyio`."""
    opened = await Database.open(postgres)
    try:
        yield opened
    finally:
        await opened.close()


async def run_sql(address: StoreAddress, sql: str) -> None:
    """Run statements as the owner, on a connection of their own."""
    connection = await connect(address, name="test", deadline_s=_DEADLINE_S)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


async def _prepare(server: EmbeddedPostgres) -> StoreAddress:
    address = await server.start()
    await run_sql(address, f"CREATE DATABASE {TEMPLATE}")
    template = address.with_database(TEMPLATE)
    await prepare_store(template)
    return template


def scratch_place() -> Path:
    """Return a folder in memory when there is room: every setting stays, and waiting for the disk costs nothing."""
    has_room = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= _ROOM_BYTES
    return _MEMORY if has_room else Path(tempfile.gettempdir())


async def _sweep(place: Path) -> None:
    """End the servers of test sessions that were killed, and remove their folders."""
    for folder in place.glob(f"{_PREFIX}*"):
        is_ours = folder.stat().st_uid == os.geteuid()
        if is_ours and find_postmaster(folder / "data") is not None:
            abandoned = EmbeddedPostgres(folder)
            # While the session that made it lives, it holds the lock.
            with suppress(StoreError):
                await abandoned.start()
                await abandoned.stop()
                shutil.rmtree(folder)


def _in_loop(work: Callable[[], Awaitable[T]]) -> T:
    async def run() -> T:
        return await work()

    return asyncio.run(run())
