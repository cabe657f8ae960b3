"""Maps inside functions: what waiting for a group lends, what ends with the caller, and which waits would never end."""

import asyncio

import pytest

from apothic.wire import chunks
from apothic.wire.functions import FunctionSpec
from apothic.wire.tokens import AttemptName, attempt_token
from apothic.wire.values import Value
from apothic_server.domain.errors import Conflict
from apothic_server.domain.group_views import Inputs, NewGroup
from apothic_server.testing.asgi import AsgiClient
from apothic_server.testing.cloud import ScriptedWorker, ended
from apothic_server.testing.maps import finish, numbers_of

pytestmark = pytest.mark.anyio


def function(name, **options):
    return FunctionSpec(name, qualname=name, **{"memory_mb": 256, "max_containers": 4, **options})


async def calling(cloud, worker, attempt, item=None):
    key = cloud.services.attempts.key_of(worker.incarnation)
    name = AttemptName(worker.incarnation, attempt.job, attempt.fence, item)
    return await cloud.services.authenticate(attempt_token(key, attempt.job, attempt.fence), str(name))


@pytest.fixture
async def scene(cloud):
    """A machine with one processor, held by a job whose code is about to map."""
    cloud.start_loop("maps")
    await cloud.deploy("shop", function("outer", max_containers=1), function("inner"))
    worker = await ScriptedWorker(cloud, cpus=1).connect()
    parent = await cloud.spawn("outer")
    attempt = await worker.take()
    return worker, parent, attempt, await calling(cloud, worker, attempt)


async def group_of(cloud, code, name="inner", items=1):
    made = await cloud.services.groups.create(code, ("shop", name), NewGroup())
    if items:
        await add(cloud, code, made.group.id, items)
    return made.group.id


async def add(cloud, code, group, items):
    data = chunks.pack([b"j%d" % item for item in range(items)])
    await cloud.services.groups.add_inputs(code, group, Inputs(0, items, None, data))


async def end_of(cloud, group):
    reader, end = await cloud.services.groups.outcomes(cloud.actor, group, 0), None
    async with asyncio.timeout(10):
        while end is None:
            end = (await reader.next(timeout_s=10)).end
    reader.close()
    return end


async def status(cloud, group):
    return (await cloud.services.groups.get(cloud.actor, group)).group.status.value


async def test_who_waits_for_a_group_lends_its_processor(cloud, scene):
    worker, _, _, code = scene
    group = await group_of(cloud, code)
    idle = worker.worker.cpus_free

    reader = await cloud.services.groups.outcomes(code, group, 0)
    item = await worker.take()
    parked = worker.worker.cpus_free
    reader.close()
    reader.close()

    assert item.job == f"{group}.0"
    assert (idle, parked, worker.worker.cpus_free) == (0, 0, -1)
    view = await cloud.services.groups.get(cloud.actor, group)
    assert (view.group.parent, view.group.depth) == (scene[2].job, 1)


async def test_who_waits_for_an_item_lends_its_processor_too(cloud, scene):
    worker, _, _, code = scene
    group = await group_of(cloud, code, items=5)

    leave = cloud.services.jobs.attend(code, f"{group}.4")
    item = await worker.take()
    leave()

    assert item.job == f"{group}.0"
    assert worker.worker.cpus_free == -1


@pytest.mark.parametrize("end", ["cancelled", "failed", "lost"])
@pytest.mark.parametrize("is_reading", [True, False])
async def test_a_group_that_its_caller_waited_for_ends_with_it(cloud, scene, end, is_reading):
    worker, parent, attempt, code = scene
    group = await group_of(cloud, code, items=3)
    reader = await cloud.services.groups.outcomes(code, group, 0)
    item = await worker.take()
    if not is_reading:
        reader.close()

    if end == "cancelled":
        await cloud.services.jobs.cancel(cloud.actor, parent.job)
    worker.fail(attempt, outcome=end)
    while (await worker.next("cancel")).job != item.job:
        pass
    finish(worker, item, outcome="cancelled")
    over = await end_of(cloud, group)

    assert (over.group.status.value, over.counts["cancelled"]) == ("cancelled", 3)
    reader.close()


async def test_a_group_that_was_only_made_goes_on_without_its_caller(cloud, scene):
    worker, parent, attempt, code = scene
    made, read = await group_of(cloud, code), await group_of(cloud, code)
    (await cloud.services.groups.outcomes(code, read, 0)).close()

    worker.succeed(attempt)
    await ended(parent)
    await asyncio.sleep(0)

    assert [await status(cloud, group) for group in (made, read)] == ["running", "running"]


@pytest.mark.parametrize("is_early", [True, False])
async def test_a_function_that_is_full_of_callers_cannot_be_mapped_by_them(cloud, scene, is_early):
    _, _, _, code = scene
    group = await group_of(cloud, code, "outer", items=0 if is_early else 1)

    with pytest.raises(Conflict, match="outer is full") as caught:
        reader = await cloud.services.groups.outcomes(code, group, 0)
        await add(cloud, code, group, 1)

    assert caught.value.code == "call_cycle_deadlock"
    if is_early:
        assert (await cloud.services.groups.get(cloud.actor, group)).group.uploaded == 0
        reader.close()


async def test_a_job_that_an_item_called_names_it_also_when_several_were_executed_together(cloud, scene):
    worker, _, _, code = scene
    group = await group_of(cloud, code, items=60)
    reader = await cloud.services.groups.outcomes(code, group, 0)
    chunk = await worker.take()
    while len(numbers_of(chunk)) == 1:
        finish(worker, chunk)
        chunk = await worker.take()
    numbers = numbers_of(chunk)
    client = AsgiClient(cloud.asgi, cloud.key)

    async def called_by(item, *, blocking=False):
        code = await calling(cloud, worker, chunk, item)
        child = await cloud.services.jobs.submit(code, ("shop", "inner"), Value("json", b"[[],{}]"), blocking=blocking)
        await child.accepted
        record = (await client.request("GET", f"/v1/jobs/jobs:{child.job}")).json
        return child.job, (record["parent_job_id"], record["depth"])

    awaited, of_last = await called_by(numbers[-1], blocking=True)
    _, of_first = await called_by(numbers[0])
    _, of_other = await called_by(numbers[-1] + 1)
    _, of_nobody = await called_by(None)
    finish(worker, chunk, done=0, outcome="failed")
    await cloud.settle()

    assert of_last == (f"jobs:{group}.{numbers[-1]}", 2)
    assert of_first == (f"jobs:{group}.{numbers[0]}", 2)
    assert (of_other, of_nobody) == ((None, 2), (None, 2)), "an item of another chunk is not believed"
    assert await cloud.status(awaited) == "cancelled", "it ends with the attempt that waits for it"
    reader.close()


async def test_an_item_that_calls_its_callers_full_function_is_told_at_once(cloud, scene):
    worker, _, _, code = scene
    group = await group_of(cloud, code)
    reader = await cloud.services.groups.outcomes(code, group, 0)
    inner = await calling(cloud, worker, await worker.take())

    with pytest.raises(Conflict) as caught:
        await cloud.services.jobs.submit(inner, ("shop", "outer"), Value("json", b"[[],{}]"), blocking=True)

    assert caught.value.code == "call_cycle_deadlock"
    reader.close()
