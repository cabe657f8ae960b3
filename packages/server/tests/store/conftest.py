"""Folders for servers of a test's own."""

import asyncio
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from apothic_server.store.launcher import EmbeddedPostgres
from apothic_server.store.postmaster import processes_in
from apothic_server.testing.postgres import scratch_place


@pytest.fixture(scope="session")
def made_store():
    """A store that was started once and stopped; tests start copies of it, which spares them `initdb`."""
    path = Path(tempfile.mkdtemp(prefix="apothic-made-", dir=scratch_place()))

    async def make():
        server = EmbeddedPostgres(path / "store")
        await server.start()
        await server.stop()

    asyncio.run(make())
    yield path / "store"
    shutil.rmtree(path)


@pytest.fixture
def place():
    """A folder that every user can pass through; what still runs in it is ended and it is removed after the test."""
    path = Path(tempfile.mkdtemp(prefix="apothic-place-", dir=scratch_place()))
    path.chmod(0o755)
    yield path
    for data in path.rglob("data"):
        for pid in processes_in(data):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(path)


@pytest.fixture
def folder(place, made_store):
    """A store of our own user that was started once and stopped."""
    shutil.copytree(made_store, place / "store")
    return place / "store"
