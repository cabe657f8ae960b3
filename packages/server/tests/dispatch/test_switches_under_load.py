"""Deploys while others read and call: everybody sees the old version or the new one, and jobs keep their code (G11)."""

from __future__ import annotations

import asyncio

import pytest

from apothic.wire.functions import FunctionSpec
from apothic_server.bootstrap import Cloud, Sources
from apothic_server.testing.cloud import ScriptedWorker, ended, start_beside
from apothic_server.testing.guarantees import guarantee

pytestmark = pytest.mark.anyio
DEPLOYS = 50
REQUESTS = 10_000
READERS = 8
JOBS = 300


@pytest.fixture
async def standby(cloud, postgres, tmp_path):
    """A second process beside `cloud`."""
    sources = Sources(clock=cloud.clock, random=lambda: 0.0)
    beside = await start_beside(cloud, Cloud(postgres, tmp_path, url="http://standby.test", sources=sources))
    for one in (cloud, beside):
        for name in ("peers", "outcomes", "reload"):
            one.start_loop(name)
    yield beside
    await beside.stop_loops()
    await beside.inner.stop()


def work(number, **options):
    """A function whose memory tells the number of the deploy."""
    return FunctionSpec("work", qualname="work", memory_mb=1_000 + number, **options)


@guarantee("G11.1", "switch_atomic", count=REQUESTS)
async def test_ten_thousand_requests_during_fifty_deploys_see_one_version_each(cloud, standby):
    numbers = {(await cloud.deploy("shop", work(0))).id: 0}
    answered = started = 0
    seen = 0
    turns: asyncio.Queue[int] = asyncio.Queue()

    async def read(reader):
        nonlocal seen
        one = (cloud, standby)[reader % 2]
        last = -1
        for _ in range(REQUESTS // READERS):
            floor = answered
            function = await one.services.apps.get_function(one.actor, "shop", "work")
            number = function.spec.memory_mb - 1_000
            assert numbers.setdefault(function.deployment, number) == number
            assert floor <= number <= started
            assert last <= number
            last = number
            seen += 1
            if seen % (REQUESTS // (DEPLOYS + 1)) == 0:
                turns.put_nowait(seen)

    async def deploy():
        nonlocal answered, started
        for number in range(1, DEPLOYS + 1):
            await turns.get()
            started = number
            made = await (cloud, standby)[number % 2].deploy("shop", work(number), archive=b"files %d" % number)
            assert numbers.setdefault(made.id, number) == number
            answered = number

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(deploy())
        for reader in range(READERS):
            tasks.create_task(read(reader))

    assert seen == REQUESTS
    assert len(numbers) == DEPLOYS + 1
    async with cloud.inner.database.system_unit() as unit:
        assert await unit.fetchval("SELECT count(*) FROM deployments WHERE status = 'active'") == 1


@guarantee("G11.2", "inflight_keeps_code", count=JOBS)
async def test_jobs_under_load_run_the_version_that_was_live_when_they_were_accepted(cloud):
    options = {"max_pending_tasks": 1_000, "max_containers": 4, "max_retries": 1, "retry_initial_delay_s": 0.0}
    await cloud.deploy("shop", work(0, **options))
    worker = await ScriptedWorker(cloud, cpus=8, memory_mb=64_000).connect()
    calls: list[tuple[int, int, object]] = []
    live = 0
    attempts: dict[str, list[str]] = {}
    turns: asyncio.Queue[int] = asyncio.Queue()

    async def call():
        for _ in range(JOBS // 10):
            before = live
            submitted = await cloud.spawn()
            calls.append((before, live, submitted))
            if len(calls) % (JOBS // 21) == 0:
                turns.put_nowait(len(calls))

    async def deploy():
        nonlocal live
        for number in range(1, 21):
            await turns.get()
            await cloud.deploy("shop", work(number, **options), archive=b"files %d" % number)
            live = number

    async def run():
        while True:
            assign = await worker.take()
            runners = attempts.setdefault(assign.job, [])
            runners.append(worker.started[assign.runner].deployment)
            if len(runners) == 1 and len(attempts) % 5 == 0:
                worker.fail(assign)
            else:
                worker.succeed(assign)

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(run())
        load = [tasks.create_task(one) for one in (deploy(), *(call() for _ in range(10)))]
        await asyncio.gather(*load)
        for _, _, submitted in calls:
            while not submitted.outcome.done():
                await cloud.advance(0.1)
            await ended(submitted)
        running.cancel()

    async with cloud.inner.database.system_unit() as unit:
        rows = await unit.fetch(
            "SELECT j.id, j.deployment, (d.manifest -> 'functions' -> 0 ->> 'memory_mb')::int - 1000 AS number"
            " FROM jobs j JOIN deployments d ON d.id = j.deployment"
        )
    accepted = {row["id"]: row for row in rows}
    assert len(calls) == len(accepted) == JOBS
    assert sum(len(runners) > 1 for runners in attempts.values()) > JOBS // 10
    for low, high, submitted in calls:
        row = accepted[submitted.job]
        assert low <= row["number"] <= high + 1
        assert set(attempts[submitted.job]) == {row["deployment"]}
