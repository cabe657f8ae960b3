"""A group that is made, filled and read on a server that does not dispatch (D4)."""

import asyncio

import pytest

from apothic.wire.functions import FunctionSpec
from apothic_server.bootstrap import Cloud, Sources
from apothic_server.domain.errors import Unavailable
from apothic_server.testing.cloud import ScriptedWorker, start_beside
from apothic_server.testing.maps import finish, start_map

pytestmark = pytest.mark.anyio


@pytest.fixture
async def standby(cloud, postgres, tmp_path):
    """A second process beside `cloud` that does not dispatch."""
    sources = Sources(clock=cloud.clock, random=lambda: 0.0)
    beside = await start_beside(cloud, Cloud(postgres, tmp_path, url="http://standby.test", sources=sources))
    for one in (cloud, beside):
        for name in ("peers", "outcomes", "reload", "maps", "values"):
            one.start_loop(name)
    yield beside
    await beside.stop_loops()
    await beside.inner.stop()


async def test_a_group_made_on_a_standby_is_executed_and_its_outcomes_are_read_there(cloud, standby):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", max_containers=1))
    worker = await ScriptedWorker(cloud).connect()
    group = await start_map(standby, 3)
    reader = await standby.services.groups.outcomes(standby.actor, group.id, 0)

    found, end = 0, None
    async with asyncio.timeout(20):
        for _ in range(3):
            finish(worker, await worker.take())
        while end is None:
            batch = await reader.next(timeout_s=10)
            found += sum(run.count for run in batch.runs)
            end = batch.end
    reader.close()

    assert (found, end.group.status.value, end.counts["succeeded"]) == (3, "succeeded", 3)


async def test_single_items_are_cancelled_by_the_server_that_dispatches_only(cloud, standby):
    await cloud.deploy()
    group = await start_map(standby, 3)

    with pytest.raises(Unavailable):
        await group.cancel(1)
    with pytest.raises(Unavailable):
        await standby.services.jobs.cancel(standby.actor, f"{group.id}.1")
    assert (await group.view()).counts["queued"] == 3
