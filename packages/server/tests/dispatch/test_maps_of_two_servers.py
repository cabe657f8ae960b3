"""Groups while two processes serve: made on the one that does not dispatch, and gone on with when the role moves."""

import asyncio

import pytest

from apothic_server.bootstrap import Cloud, Sources
from apothic_server.testing.cloud import ScriptedWorker, start_beside
from apothic_server.testing.maps import finish, numbers_of, start_map

pytestmark = pytest.mark.anyio


@pytest.fixture
async def standby(cloud, postgres, tmp_path):
    sources = Sources(clock=cloud.clock, random=lambda: 0.0)
    beside = await start_beside(cloud, Cloud(postgres, tmp_path, url="http://standby.test", sources=sources))
    yield beside
    await beside.inner.stop()


async def execute(cloud, worker, group, *, until):
    """Execute what is granted until so many items have ended."""
    async with asyncio.timeout(20):
        while sum(count for name, count in (await group.counts()).items() if name == "succeeded") < until:
            await cloud.settle()
            if any(name == "assign" for name, _ in worker.received):
                finish(worker, await worker.take())
                await cloud.settle()
            await worker.heartbeat()
            await cloud.advance(1)


async def test_a_group_that_is_made_beside_the_dispatcher_goes_on_with_another_one(cloud, standby):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud, cpus=1).connect()
    group = await start_map(standby, 300, close=False)

    await execute(cloud, worker, group, until=20)
    await cloud.settle()
    held = await worker.take()
    await cloud.inner.drain()
    await standby.inner.upkeep.role()
    await standby.inner.recovery.sweep()
    assert standby.inner.board.dispatches
    await worker.connect(held, on=standby)
    await standby.step()
    finish(worker, held)
    await group.close(300)
    await execute(standby, worker, group, until=300)
    await standby.step()

    assert len(numbers_of(held)) > 1
    assert await group.outcomes() == dict.fromkeys(range(300), "succeeded")
    assert await group.status() == "succeeded"
