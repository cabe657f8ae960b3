"""Groups on the dispatcher: cutting, chunks and their ends, retries alone, cancels, ends of groups."""

import asyncio

import pytest

from apothic.wire.functions import FunctionSpec
from apothic.wire.link import LogLine, RunnerEnded, Started
from apothic.wire.maps import ItemOutput
from apothic_server.testing.cloud import ScriptedWorker
from apothic_server.testing.guarantees import guarantee
from apothic_server.testing.maps import finish, numbers_of, start_map

pytestmark = pytest.mark.anyio


@pytest.fixture
async def worker(cloud):
    await cloud.deploy()
    return await ScriptedWorker(cloud, cpus=2).connect()


async def until_over(group, worker, *, act=finish):
    """Execute what is granted until the group has ended; returns the sizes of what travelled together."""
    sizes = []
    cloud = group.cloud
    async with asyncio.timeout(20):
        while await group.status() in ("running", "cancelling"):
            await cloud.settle()
            while worker.received:
                name, item = worker.received.popleft()
                if name == "assign":
                    sizes.append(len(numbers_of(item)))
                    worker.report({"started": [Started(item.job, item.fence)]})
                    act(worker, item)
                    await cloud.settle()
            await cloud.advance(1)
    return sizes


async def test_every_item_is_executed_once_in_chunks_that_grow(cloud, worker):
    group = await start_map(cloud, 2000)

    sizes = await until_over(group, worker)

    assert await group.outcomes() == dict.fromkeys(range(2000), "succeeded")
    assert await group.counts() == {"succeeded": 2000}
    assert await group.status() == "succeeded"
    assert sizes[0] == 1
    assert max(sizes) == 100, "a hundred items of a millisecond take as long as a chunk is to take"
    assert sum(sizes) == 2000


async def test_the_next_map_of_a_function_begins_with_what_takes_a_quarter_of_a_chunk(cloud, worker):
    await until_over(await start_map(cloud, 200), worker)

    sizes = await until_over(await start_map(cloud, 400), worker)

    assert sizes[0] == 24
    assert sum(sizes) == 400


async def test_runners_are_started_at_once_for_all_that_waits(cloud):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", max_containers=4))
    worker = await ScriptedWorker(cloud, cpus=8).connect()

    await start_map(cloud, 10)
    await cloud.settle()

    assert [name for name, _ in worker.received].count("start_runner") == 4


async def test_slow_items_travel_alone_and_are_jobs_with_events(cloud, worker):
    group = await start_map(cloud, 5)

    sizes = await until_over(group, worker, act=lambda worker, item: finish(worker, item, ms=150))

    assert sizes == [1] * 5
    assert [kind for _, kind in await cloud.events(f"{group.id}.3")] == [
        "job.queued", "job.status", "job.running", "job.result", "job.end"
    ]  # fmt: skip


async def test_an_item_that_failed_in_a_chunk_is_tried_again_alone(cloud):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", max_retries=1))
    worker = await ScriptedWorker(cloud, cpus=1).connect()
    group = await start_map(cloud, 200)
    tried = []

    def act(worker, item):
        tried.extend(number for number in numbers_of(item) if number in (50, 150))
        again = len(numbers_of(item)) == 1 and item.attempt == 2 and numbers_of(item) == [50]
        finish(worker, item, failed=[] if again else [50, 150])

    sizes = await until_over(group, worker, act=act)

    assert sorted(tried) == [50, 50, 150, 150]
    assert sizes[-2:] == [1, 1]
    found = await group.outcomes()
    assert [item for item, status in found.items() if status != "succeeded"] == [150]
    assert await group.counts() == {"succeeded": 199, "failed": 1}
    assert await group.status() == "failed"
    assert [kind for _, kind in await cloud.events(f"{group.id}.150")] == [
        "job.queued", "job.status", "job.running", "job.error", "job.status",
        "job.status", "job.running", "job.error", "job.end",
    ]  # fmt: skip


async def test_an_item_that_wrote_output_has_a_row_with_its_lines(cloud, worker):
    group = await start_map(cloud, 60)

    def act(worker, item):
        numbers = numbers_of(item)
        output = [ItemOutput(30 - numbers[0], [LogLine("stdout", 0, "hello")])] if 30 in numbers[1:] else []
        finish(worker, item, output=output)

    await until_over(group, worker, act=act)

    own = [row for row in await group.rows() if row["first_item"] == 30 and row["chunk_items"] is None]
    assert [(row["status"], row["overlays"], row["result"]) for row in own] == [("succeeded", "S", b"60")]
    assert "job.log" in [kind for _, kind in await cloud.events(f"{group.id}.30")]
    assert await group.counts() == {"succeeded": 60}
    assert await group.outcomes() == dict.fromkeys(range(60), "succeeded")


async def test_items_travel_together_though_one_in_a_hundred_writes_output(cloud, worker):
    group = await start_map(cloud, 2000)

    sizes = await until_over(group, worker, act=lambda worker, item: finish(worker, item, output=lines_of(item, 100)))

    assert await group.counts() == {"succeeded": 2000}
    assert (max(sizes), len(sizes) < 100) == (100, True)


async def test_items_that_all_write_output_travel_alone(cloud, worker):
    group = await start_map(cloud, 400)

    sizes = await until_over(group, worker, act=lambda worker, item: finish(worker, item, output=lines_of(item, 1)))

    assert await group.counts() == {"succeeded": 400}
    assert sizes[-100:] == [1] * 100


def lines_of(item, every):
    """Return a line for each of these items whose number is a multiple of `every`."""
    numbers = numbers_of(item)
    if len(numbers) == 1:
        return []
    written = [number - numbers[0] for number in numbers if number % every == 0]
    return [ItemOutput(offset, [LogLine("stdout", 0, "hello")]) for offset in written]


async def test_the_last_chunks_of_quick_items_are_not_cut_for_nothing(cloud, worker):
    group = await start_map(cloud, 2000)

    sizes = await until_over(group, worker)

    assert min(sizes[5:-1]) >= 10, "ten items of a millisecond take as long as a chunk takes at least"


async def chunk_of(group, worker):
    """Finish single items until a chunk is granted; returns its assign, started."""
    while True:
        await group.cloud.settle()
        assign = await worker.take()
        if len(numbers_of(assign)) > 3:
            return assign
        finish(worker, assign)


@guarantee("G1.1", "job_terminal_once")
async def test_what_a_chunk_gives_back_is_executed_by_others(cloud, worker):
    group = await start_map(cloud, 100)
    assign = await chunk_of(group, worker)
    finish(worker, assign, done=2)

    await until_over(group, worker)

    assert await group.outcomes() == dict.fromkeys(range(100), "succeeded")


async def test_a_chunk_that_died_keeps_its_prefix_and_the_others_travel_alone(cloud, worker):
    group = await start_map(cloud, 100)
    assign = await chunk_of(group, worker)
    first, *_, last = numbers_of(assign)
    finish(worker, assign, done=1, outcome="failed")
    worker.report({"runner_ended": [RunnerEnded(assign.runner, "exited")]})
    alone = []

    def act(worker, item):
        if len(numbers_of(item)) == 1:
            alone.extend(numbers_of(item))
        finish(worker, item)

    await until_over(group, worker, act=act)

    assert set(range(first + 1, last + 1)) <= set(alone)
    assert await group.outcomes() == dict.fromkeys(range(100), "succeeded")


async def test_a_chunk_whose_worker_is_lost_is_tried_again_whole(cloud, worker):
    group = await start_map(cloud, 100)
    assign = await chunk_of(group, worker)
    cloud.inner.board.fleet.workers[worker.incarnation].lease_expires_at = 0.0
    worker.disconnect()
    await cloud.advance(60)
    other = await ScriptedWorker(cloud, name="other", cpus=2).connect()
    seen = {}

    def act(worker, item):
        seen[item.job] = numbers_of(item)
        finish(worker, item)

    await until_over(group, other, act=act)

    assert seen[assign.job] == numbers_of(assign)
    assert await group.outcomes() == dict.fromkeys(range(100), "succeeded")


@guarantee("G2.3", "poison_job_bounded")
async def test_an_item_that_kills_what_executes_it_ends_within_nine_grants(cloud, worker):
    group = await start_map(cloud, 30)
    cloud.inner.board.fleet.workers[worker.incarnation].lease_expires_at = 1e9  # its heartbeats are beside the point
    grants = []

    def act(worker, item):
        if 7 not in numbers_of(item):
            finish(worker, item)
            return
        grants.append(len(numbers_of(item)))
        finish(worker, item, done=0, outcome="lost")
        worker.report({"runner_ended": [RunnerEnded(item.runner, "exited")]})

    await until_over(group, worker, act=act)

    assert len(grants) == 9
    assert max(grants) > 1, "it was in a chunk first"
    assert await group.counts() == {"succeeded": 29, "failed": 1}


async def test_a_cancelled_group_keeps_what_was_done(cloud, worker):
    group = await start_map(cloud, 1000)
    assign = await chunk_of(group, worker)
    await group.cancel()
    finish(worker, assign, done=2, outcome="cancelled")

    await until_over(group, worker, act=lambda worker, item: finish(worker, item, done=0, outcome="cancelled"))

    found = await group.outcomes()
    assert await group.status() == "cancelled"
    assert [found.get(item) for item in numbers_of(assign)][:3] == ["succeeded", "succeeded", "cancelled"]
    counts = await group.counts()
    assert counts["succeeded"] == sum(status == "succeeded" for status in found.values())
    assert sum(counts.values()) == 1000


async def test_a_group_stops_after_so_many_failures(cloud, worker):
    group = await start_map(cloud, 1000, stop_after=3)

    await until_over(group, worker, act=lambda worker, item: finish(worker, item, failed=numbers_of(item)))

    view = await group.view()
    assert view.group.status.value == "cancelled"
    assert view.group.error["code"] == "stopped_after_failures"
    counts = await group.counts()
    assert counts["failed"] >= 3
    assert sum(counts.values()) == 1000


async def test_items_that_wait_are_cancelled_one_by_one(cloud, worker):
    group = await start_map(cloud, 50)
    await group.cancel(40, 41, 7)

    sizes = await until_over(group, worker)

    found = await group.outcomes()
    assert [item for item, status in found.items() if status == "cancelled"] == [7, 40, 41]
    assert sum(sizes) == 47
    assert await group.status() == "failed"


async def test_an_item_of_a_running_chunk_is_cancelled_when_the_chunk_gives_it_back(cloud, worker):
    group = await start_map(cloud, 100)
    assign = await chunk_of(group, worker)
    numbers = numbers_of(assign)
    await group.cancel(numbers[-1])
    taken = await worker.next("take_back")
    assert (taken.job, taken.fence) == (assign.job, assign.fence)
    finish(worker, assign, done=1)

    await until_over(group, worker)

    found = await group.outcomes()
    assert [item for item, status in found.items() if status != "succeeded"] == [numbers[-1]]


async def test_a_chunk_that_takes_long_is_taken_back(cloud, worker):
    group = await start_map(cloud, 1000)
    assign = await chunk_of(group, worker)
    await cloud.advance(0.6)

    taken = await worker.next("take_back")

    assert (taken.job, taken.fence) == (assign.job, assign.fence)


@pytest.mark.parametrize("cancels", [False, True])
async def test_a_group_of_a_stopped_deployment_fails_with_what_was_not_done(cloud, worker, cancels):
    group = await start_map(cloud, 1000)
    assign = await chunk_of(group, worker)
    deployment = (await group.view()).group.deployment
    await cloud.services.deployments.stop(cloud.actor, deployment, cancels=cancels)
    await cloud.settle()
    finish(worker, assign, done=2, outcome="cancelled" if cancels else "succeeded")

    await until_over(group, worker, act=lambda worker, item: finish(worker, item, done=0, outcome="cancelled"))

    view, found, counts = await group.view(), await group.outcomes(), await group.counts()
    assert (view.group.status.value, view.group.error["code"]) == ("failed", "deployment_stopped")
    assert [found[item] for item in numbers_of(assign)[:2]] == ["succeeded", "succeeded"]
    assert sum(counts.values()) == 1000
    assert not cloud.inner.maps.groups


@guarantee("G1.1", "job_terminal_once")
async def test_after_a_restart_each_item_still_ends_once(cloud, worker, restart):
    group = await start_map(cloud, 300)
    assign = await chunk_of(group, worker)
    await cloud.settle()
    await restart()
    await worker.connect(assign)
    await cloud.step()
    finish(worker, assign, done=3)

    await until_over(group, worker)

    assert await group.outcomes() == dict.fromkeys(range(300), "succeeded")
    assert await group.counts() == {"succeeded": 300}
