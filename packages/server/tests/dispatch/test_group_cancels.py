"""Single items of a group are cancelled as any job is, wherever they are at that moment."""

import pytest

from apothic.wire.functions import FunctionSpec
from apothic_server.testing.asgi import AsgiClient
from apothic_server.testing.cloud import ScriptedWorker
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


async def test_items_named_together_are_cancelled_together(cloud, client):
    group = await start_map(cloud, 5)

    answer = await client.request("POST", f"/v1/groups/groups:{group.id}/cancel", json={"items": [1, 3, 4]})
    after = (await client.request("GET", f"/v1/groups/groups:{group.id}")).json

    assert answer.json["status"] == "running"
    assert (after["counts"]["cancelled"], after["counts"]["queued"]) == (3, 2)
    assert after["waiting_reason"] == "no worker is connected"
