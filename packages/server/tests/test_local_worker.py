"""How a worker beside the server is kept running."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from apothic_server.domain.errors import Unavailable
from apothic_server.local_worker import RESTART_FIRST_S, RESTART_MAX_S, STARTS_MAX, LocalWorker, restart_wait_s
from apothic_server.settings import Settings


def test_a_worker_that_never_works_is_started_less_and_less_often():
    waits = [restart_wait_s(None, has_dialled_in=False)]
    for _ in range(9):
        waits.append(restart_wait_s(waits[-1], has_dialled_in=False))

    assert waits[:3] == [RESTART_FIRST_S, 2 * RESTART_FIRST_S, 4 * RESTART_FIRST_S]
    assert waits[-2:] == [RESTART_MAX_S, RESTART_MAX_S]


def test_a_worker_that_worked_is_started_again_at_once():
    assert restart_wait_s(RESTART_MAX_S, has_dialled_in=True) == RESTART_FIRST_S


@pytest.mark.anyio
async def test_a_worker_that_dies_while_the_store_is_away_is_started_again(tmp_path):
    deaths = asyncio.Queue()
    is_away = False

    async def on_death(why, *, but=""):
        await deaths.put(why)
        if is_away:
            raise Unavailable("the store is away", retry_after_s=1)

    (tmp_path / "worker").write_text("no folder, so no worker lives long")
    linked = asyncio.Event()
    settings = Settings(data=tmp_path)
    worker = LocalWorker(settings, url="http://127.0.0.1:1", token=tmp_path / "token", linked=linked, on_death=on_death)
    starting = asyncio.create_task(worker.start())
    while not starting.done():
        linked.set()
        await asyncio.sleep(0)

    async with asyncio.timeout(60):
        told = [await deaths.get()]
        is_away = True
        told.append(await deaths.get())
        is_away = False
        told += [await deaths.get(), await deaths.get()]
    await worker.stop()

    assert await starting
    assert told == ["the cloud was stopped and started again", *["the local worker ended with status 2"] * 3]


def worker_of(folder):
    """Return the number of the process that was started for this data folder, None when there is none."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder / "worker-address").encode() in (process / "cmdline").read_bytes():
                return int(process.name)
        except OSError:
            continue
    return None


@pytest.mark.anyio
@pytest.mark.parametrize(("kills", "is_ready"), [(1, True), (STARTS_MAX, False)])
async def test_a_worker_that_is_killed_while_it_starts_is_started_again(tmp_path, kills, is_ready):
    deaths = []

    async def on_death(why, *, but=""):
        deaths.append(why)

    (tmp_path / "token").write_text("lw_none")
    linked = asyncio.Event()
    settings = Settings(data=tmp_path)
    worker = LocalWorker(settings, url="http://127.0.0.1:1", token=tmp_path / "token", linked=linked, on_death=on_death)
    starting = asyncio.create_task(worker.start())
    killed = set()
    async with asyncio.timeout(60):
        while len(killed) < kills:
            await asyncio.sleep(0)
            if (found := worker_of(tmp_path)) is not None and found not in killed:
                os.kill(found, signal.SIGKILL)
                killed.add(found)
        while is_ready and not starting.done():
            await asyncio.sleep(0)
            if worker_of(tmp_path) not in {None, *killed}:
                linked.set()
        found = await starting
    await worker.stop()

    assert found is is_ready
    assert deaths[1:] == ["the local worker was killed while it started"] * min(kills, STARTS_MAX - 1)
    assert worker_of(tmp_path) is None
