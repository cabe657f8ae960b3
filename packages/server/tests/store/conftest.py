"""Folders for servers of a test's own."""

import asyncio
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from apothic_server.store.binaries import find_binaries
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


@pytest.fixture(scope="session")
def programs():
    """The folder of `postgres` and `initdb`, where every user can reach it: a copy when the environment is closed."""
    folder = find_binaries().folder
    if all(parent.stat().st_mode & 0o001 for parent in folder.parents):
        yield folder
        return
    copy = Path(tempfile.mkdtemp(prefix="apothic-programs-", dir=scratch_place()))
    copy.chmod(0o755)
    # The programs find their libraries relative to themselves, so what lies beside the package goes along.
    package = folder.parents[1]
    for part in package.parent.glob(f"{package.name}*"):
        shutil.copytree(part, copy / part.name)
    yield copy / folder.relative_to(package.parent)
    shutil.rmtree(copy)


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
