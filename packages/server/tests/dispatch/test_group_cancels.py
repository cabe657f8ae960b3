"""Single items of a group are cancelled as any job is, wherever they are at that moment."""

import asyncio

import pytest

from apothic.wire.functions import FunctionSpec
from apothic_server.testing.asgi import AsgiClient
from apothic_server.testing.cloud import ScriptedWorker
from apothic_server.testing.guarantees import guarantee
from apothic_server.testing.maps import finish, numbers_of, start_map

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(cloud):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", max_containers=1))
    return AsgiClient(cloud.asgi, cloud.key)


async def cancel(client, group, item):
    return (await client.request("POST", f"/v1/jobs/jobs:{group.id}.{item}/cancel")).json["status"]


async def status(client, group, item):
    return (await client.request("GET", f"/v1/jobs/jobs:{group.id}.{item}")).json["status"]


async def test_an_item_that_waits_is_cancelled_at_once_and_never_begins(cloud, client):
    group = await start_map(cloud, 3)

    answers = [await cancel(client, group, item) for item in (0, 2, 2)]
    worker = await ScriptedWorker(cloud).connect()
    only = await worker.take()
    finish(worker, only)

    assert answers == ["cancelled"] * 3
    assert numbers_of(only) == [1]
    assert [await status(client, group, item) for item in (0, 2)] == ["cancelled"] * 2


async def test_an_item_of_a_chunk_that_runs_is_cancelled_once_it_was_taken_back(cloud, client):
    group = await start_map(cloud, 20)
    worker = await ScriptedWorker(cloud).connect()
    chunk = await worker.take()
    while len(numbers_of(chunk)) == 1:
        finish(worker, chunk)
        await cloud.settle()
        await cloud.step()
        chunk = await worker.take()
    first, *_, last = numbers_of(chunk)

    answer = await cancel(client, group, last)
    asked = await worker.next("take_back")
    finish(worker, chunk, done=1)
    await cloud.settle()
    await cloud.step()
    await cloud.settle()

    assert first < last
    assert (answer, asked.job) == ("cancelling", chunk.job)
    assert await status(client, group, first) == "succeeded"
    assert await status(client, group, last) == "cancelled"


async def chunk_of(cloud, worker):
    """Finish single items until a chunk is granted; return it and its items."""
    while True:
        await cloud.settle()
        await cloud.step()
        taken = await worker.take()
        if len(numbers_of(taken)) > 3:
            return taken, numbers_of(taken)
        finish(worker, taken)


async def rest(cloud, worker, group):
    """Execute what is left of a group."""
    async with asyncio.timeout(20):
        while await group.status() == "running":
            await cloud.settle()
            while any(name == "assign" for name, _ in worker.received):
                finish(worker, await worker.take())
                await cloud.settle()
            await cloud.advance(1)


@guarantee("G4.1", "cancel_linearizable")
async def test_an_item_that_ends_after_its_cancellation_was_answered_did_not_succeed(cloud, client):
    group = await start_map(cloud, 60)
    worker = await ScriptedWorker(cloud).connect()
    chunk, numbers = await chunk_of(cloud, worker)
    answers = [await cancel(client, group, item) for item in (numbers[0], numbers[1])]
    during = await status(client, group, numbers[0])
    finish(worker, chunk, done=2, failed=[numbers[1]])
    await rest(cloud, worker, group)

    found = await group.outcomes()
    assert (answers, during) == (["cancelling"] * 2, "cancelling")
    assert {item: end for item, end in found.items() if end != "succeeded"} == dict.fromkeys(numbers[:2], "cancelled")
    assert await group.counts() == {"succeeded": 58, "cancelled": 2}
    assert [kind for _, kind in await cloud.events(f"{group.id}.{numbers[0]}")] == [
        "job.queued", "job.status", "job.running", "job.status", "job.end"
    ]  # fmt: skip


@guarantee("G4.1", "cancel_linearizable")
async def test_a_cancelled_item_of_a_chunk_stays_so_when_the_server_dies_meanwhile(cloud, client, restart):
    group = await start_map(cloud, 60)
    worker = await ScriptedWorker(cloud).connect()
    chunk, numbers = await chunk_of(cloud, worker)
    answer = await cancel(client, group, numbers[2])
    async with cloud.inner.database.system_unit() as unit:  # as when it was asked for through a standby
        assert await unit.execute("UPDATE group_cancels SET is_taken = true") == "UPDATE 1"
    await restart()
    await worker.connect(chunk)
    finish(worker, chunk)
    await cloud.settle()
    await rest(cloud, worker, group)

    found = await group.outcomes()
    assert answer == "cancelling"
    assert [item for item, end in found.items() if end != "succeeded"] == [numbers[2]]
    assert found[numbers[2]] == "cancelled"
    assert await group.counts() == {"succeeded": 59, "cancelled": 1}
    async with cloud.inner.database.system_unit() as unit:
        assert await unit.fetchval("SELECT count(*) FROM group_cancels") == 0


@guarantee("G4.2", "cancel_spares_neighbours")
async def test_a_cancelled_item_takes_no_other_of_its_chunk_with_it_when_their_worker_is_lost(cloud, client):
    group = await start_map(cloud, 60)
    worker = await ScriptedWorker(cloud).connect()
    _, numbers = await chunk_of(cloud, worker)
    await cancel(client, group, numbers[2])
    cloud.inner.board.fleet.workers[worker.incarnation].lease_expires_at = 0.0
    worker.disconnect()
    await cloud.advance(60)
    other = await ScriptedWorker(cloud, name="other").connect()
    await rest(cloud, other, group)

    found = await group.outcomes()
    assert [item for item, end in found.items() if end != "succeeded"] == [numbers[2]]
    assert await group.counts() == {"succeeded": 59, "cancelled": 1}


async def test_an_item_that_waits_for_its_retry_is_cancelled(cloud):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", max_containers=1, max_retries=3))
    client = AsgiClient(cloud.asgi, cloud.key)
    group = await start_map(cloud, 60)
    worker = await ScriptedWorker(cloud).connect()
    chunk, numbers = await chunk_of(cloud, worker)
    finish(worker, chunk, failed=[numbers[1]])
    answer = await cancel(client, group, numbers[1])
    await rest(cloud, worker, group)

    assert answer in ("cancelled", "cancelling")
    assert await group.counts() == {"succeeded": 59, "cancelled": 1}


async def test_items_named_together_are_cancelled_together(cloud, client):
    group = await start_map(cloud, 5)

    answer = await client.request("POST", f"/v1/groups/groups:{group.id}/cancel", json={"items": [1, 3, 4]})
    after = (await client.request("GET", f"/v1/groups/groups:{group.id}")).json

    assert answer.json["status"] == "running"
    assert (after["counts"]["cancelled"], after["counts"]["queued"]) == (3, 2)
    assert after["waiting_reason"] == "no worker is connected"
