"""Functions with batching: which runner a call is given to, and when it takes more (G2.7)."""

import asyncio

import pytest

from apothic.wire.chunks import pack
from apothic.wire.functions import BatchSpec, FunctionSpec
from apothic.wire.link import Finished, Started
from apothic.wire.maps import ChunkResult
from apothic.wire.tokens import AttemptName, attempt_token
from apothic.wire.values import Value
from apothic_server.domain.errors import Conflict
from apothic_server.domain.jobs import JobStatus
from apothic_server.testing.cloud import ScriptedWorker, ended
from apothic_server.testing.guarantees import guarantee
from apothic_server.testing.maps import finish, numbers_of, start_map

pytestmark = pytest.mark.anyio

NOTHING = Value("json", b"[[],{}]")


def work(size=3, **options):
    return FunctionSpec("work", qualname="work", **{"batching": BatchSpec(size, 50), "max_containers": 2, **options})


async def given(worker, count):
    return [await worker.next("assign") for _ in range(count)]


def begin(worker, attempts):
    worker.report({"started": [Started(one.job, one.fence) for one in attempts]})


@guarantee("G2.7", "slots_never_exceeded")
async def test_a_batch_is_filled_before_another_begins_and_takes_nothing_while_it_runs(cloud):
    await cloud.deploy("shop", work())
    worker = await ScriptedWorker(cloud).connect()
    jobs = [await cloud.spawn() for _ in range(4)]
    first, other = await given(worker, 3), await given(worker, 1)

    assert len({one.runner for one in first}) == 1
    assert other[0].runner not in {one.runner for one in first}
    assert [worker.started[one.runner].batching for one in (first[0], other[0])] == [BatchSpec(3, 50)] * 2

    begin(worker, first)
    worker.succeed(first[0])
    await ended(jobs[0])
    jobs += [await cloud.spawn() for _ in range(3)]
    other += await given(worker, 2)
    assert {one.runner for one in other} == {other[0].runner}
    assert await cloud.status(jobs[-1].job) == "queued"
    assert worker.worker.held == 2

    for attempt in first[1:]:
        worker.succeed(attempt)
    (last,) = await given(worker, 1)
    assert last.runner == first[0].runner
    begin(worker, [*other, last])
    for attempt in (*other, last):
        worker.succeed(attempt)
    assert [(await ended(job)).status for job in jobs] == [JobStatus.SUCCEEDED] * 7


async def test_a_worker_that_dials_in_again_with_a_batch_that_runs_is_given_no_more_to_it(cloud):
    await cloud.deploy("shop", work(max_containers=1))
    worker = await ScriptedWorker(cloud).connect()
    await cloud.spawn()
    (attempt,) = await given(worker, 1)
    begin(worker, [attempt])
    worker.disconnect()
    await worker.connect(attempt)
    waiting = await cloud.spawn()

    assert await cloud.status(waiting.job) == "queued"
    worker.succeed(attempt)
    assert (await given(worker, 1))[0].job == waiting.job


async def test_a_call_may_wait_for_its_batch_longer_than_a_start_takes(cloud):
    await cloud.deploy("shop", work(startup_timeout_s=5, timeout_s=60, batching=BatchSpec(3, 600_000)))
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    (attempt,) = await given(worker, 1)
    for _ in range(60):
        await cloud.advance(10)
        await worker.heartbeat(attempt)

    assert await cloud.status(job.job) == "starting"
    begin(worker, [attempt])
    worker.succeed(attempt)
    assert (await ended(job)).status is JobStatus.SUCCEEDED


@guarantee("G2.7", "nested_calls_no_deadlock")
@pytest.mark.parametrize("containers", [1, 2])
async def test_a_batch_is_refused_what_it_would_wait_for_for_ever(cloud, containers):
    await cloud.deploy("shop", work(max_containers=containers))
    worker = await ScriptedWorker(cloud).connect()
    jobs = [await cloud.spawn() for _ in range(3)]
    first = await given(worker, 3)
    begin(worker, first)
    code = await code_of(cloud, worker, first[0])

    if containers == 1:
        with pytest.raises(Conflict) as caught:
            await cloud.services.jobs.submit(code, ("shop", "work"), NOTHING, blocking=True)
        assert caught.value.code == "call_cycle_deadlock"
    else:
        inner = await cloud.services.jobs.submit(code, ("shop", "work"), NOTHING, blocking=True)
        (attempt,) = await given(worker, 1)
        begin(worker, [attempt])
        worker.succeed(attempt)
        assert (await ended(inner)).status is JobStatus.SUCCEEDED
    for attempt in first:
        worker.succeed(attempt)
    assert [(await ended(job)).status for job in jobs] == [JobStatus.SUCCEEDED] * 3


@guarantee("G2.7", "nested_calls_no_deadlock")
async def test_a_circle_of_two_functions_through_a_batch_is_refused(cloud):
    await cloud.deploy("shop", work(max_containers=1), FunctionSpec("between", qualname="between", max_containers=2))
    worker = await ScriptedWorker(cloud).connect()
    for _ in range(3):
        await cloud.spawn()
    batch = await given(worker, 3)
    begin(worker, batch)
    code = await code_of(cloud, worker, batch[0])
    await cloud.services.jobs.submit(code, ("shop", "between"), NOTHING, blocking=True)
    (between,) = await given(worker, 1)

    with pytest.raises(Conflict) as caught:
        await cloud.services.jobs.submit(
            await code_of(cloud, worker, between), ("shop", "work"), NOTHING, blocking=True
        )

    assert caught.value.code == "call_cycle_deadlock"


async def executed(cloud, group, worker, act):
    """Execute what is granted until a map has ended; return how many items travelled together each time."""
    sizes = []
    async with asyncio.timeout(20):
        while await group.status() == "running":
            await cloud.settle()
            orders = [item for name, item in worker.received if name == "assign"]
            worker.received.clear()
            begin(worker, orders)
            sizes += [len(numbers_of(order)) for order in orders]
            for order in orders:
                act(order)
            await cloud.advance(1)
    return sizes


async def test_items_of_a_map_travel_in_whole_batches_and_the_rest_one_by_one(cloud):
    await cloud.deploy("shop", work(size=16, max_containers=1))
    worker = await ScriptedWorker(cloud).connect()
    group = await start_map(cloud, 500)

    sizes = await executed(cloud, group, worker, lambda order: finish(worker, order, ms=len(numbers_of(order))))

    assert await group.outcomes() == dict.fromkeys(range(500), "succeeded")
    assert sizes[:2] == [16, 16]
    assert max(sizes) == 96, "whole batches of what a hundred milliseconds are enough for"
    assert sizes[-4:] == [1] * 4
    assert all(size % 16 == 0 for size in sizes[:-4])


async def test_nothing_joins_a_chunk_of_a_map_and_it_joins_nothing(cloud):
    await cloud.deploy("shop", work(size=3))
    worker = await ScriptedWorker(cloud).connect()
    await start_map(cloud, 3)
    (chunk,) = await given(worker, 1)
    await cloud.spawn()
    (single,) = await given(worker, 1)

    assert len(numbers_of(chunk)) == 3
    assert single.runner != chunk.runner


async def test_where_a_batch_returns_too_much_its_items_travel_one_by_one(cloud):
    await cloud.deploy("shop", work(size=4, max_containers=1))
    worker = await ScriptedWorker(cloud).connect()
    group = await start_map(cloud, 40)

    def act(order):
        if len(numbers_of(order)) == 1:
            finish(worker, order)
            return
        part = ChunkResult(1, [], pack([b"j1"]))
        worker.report({"finished": [Finished(order.job, order.fence, "succeeded", ran_ms=1, items=part)]})

    sizes = await executed(cloud, group, worker, act)

    assert await group.outcomes() == dict.fromkeys(range(40), "succeeded")
    assert len([size for size in sizes if size > 1]) <= 3, "those that were cut before the first one had ended"


async def code_of(cloud, worker, attempt):
    """Return the actor that the code of an attempt is."""
    name = AttemptName(worker.incarnation, attempt.job, attempt.fence)
    token = attempt_token(cloud.services.attempts.key_of(worker.incarnation), attempt.job, attempt.fence)
    return await cloud.services.authenticate(token, str(name))
