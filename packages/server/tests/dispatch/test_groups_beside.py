"""A group that is made, filled and read on a server that does not dispatch (D4)."""

import asyncio

import pytest

from apothic.wire.functions import FunctionSpec
from apothic_server.bootstrap import Cloud, Sources
from apothic_server.domain.jobs import JobStatus
from apothic_server.testing.cloud import ScriptedWorker, start_beside
from apothic_server.testing.guarantees import guarantee
from apothic_server.testing.maps import finish, numbers_of, start_map

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


@guarantee("G4.1", "cancel_linearizable")
async def test_items_are_cancelled_on_a_standby_wherever_they_are(cloud, standby):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", max_containers=1))
    worker = await ScriptedWorker(cloud).connect()
    group = await start_map(standby, 60)
    chunk = await worker.take()
    while len(numbers_of(chunk)) == 1:
        finish(worker, chunk)
        chunk = await worker.take()
    numbers = numbers_of(chunk)

    async with asyncio.timeout(20):
        running = await standby.services.jobs.cancel(standby.actor, f"{group.id}.{numbers[0]}")
        waiting = await standby.services.jobs.cancel(standby.actor, f"{group.id}.58")
        await group.cancel(numbers[0], 59)
        finish(worker, chunk, done=1)
        while len(await group.outcomes()) < 60:
            if any(name == "assign" for name, _ in worker.received):
                finish(worker, await worker.take())
            await cloud.settle()

    found = await group.outcomes()
    assert running is JobStatus.CANCELLING
    assert waiting in (JobStatus.CANCELLING, JobStatus.CANCELLED)
    assert {item for item, end in found.items() if end == "cancelled"} == {numbers[0], 58, 59}
    assert sum(end == "succeeded" for end in found.values()) == 57
