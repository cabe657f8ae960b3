"""Ends of jobs share a commit while others wait for their turn, and only then."""

import pytest

from apothic.wire.functions import FunctionSpec
from apothic_server.domain.decide import company
from apothic_server.domain.jobs import JobStatus
from apothic_server.testing.cloud import ScriptedWorker, ended

pytestmark = pytest.mark.anyio
ONE_AT_A_TIME = FunctionSpec("work", qualname="work", max_containers=1)


async def test_an_end_waits_for_others_only_while_jobs_wait_and_its_slot_does_not(cloud, monkeypatch):
    monkeypatch.setattr(company, "PATIENCE_S", 3600.0)
    monkeypatch.setattr(company, "PATIENCE_MAX_S", 3600.0)
    await cloud.deploy("shop", ONE_AT_A_TIME)
    worker = await ScriptedWorker(cloud).connect()
    calls = [await cloud.spawn(blocking=True) for _ in range(3)]
    for call in calls:
        await call.accepted
    worker.succeed(await worker.take())
    worker.succeed(await worker.take())
    last = await worker.take()
    before = [call.outcome.done() for call in calls]
    commits = cloud.inner.writer.counters.commits

    worker.succeed(last)
    found = [await ended(call) for call in calls]

    assert before == [False] * 3
    assert [outcome.status for outcome in found] == [JobStatus.SUCCEEDED] * 3
    assert cloud.inner.writer.counters.commits == commits + 1


async def test_a_blocking_call_that_waits_for_its_turn_is_written_once(cloud, monkeypatch):
    monkeypatch.setattr(company, "TURN_S", 3600.0)
    monkeypatch.setattr(company, "TURN_MAX_S", 3600.0)
    await cloud.deploy("shop", ONE_AT_A_TIME)
    worker = await ScriptedWorker(cloud).connect()
    first, second = [await cloud.spawn(blocking=True) for _ in range(2)]
    attempt = await worker.take()
    await first.accepted
    await cloud.spawn()
    before = second.accepted.done()

    worker.succeed(attempt)
    worker.succeed(await worker.take())
    outcome = await ended(second)

    assert (before, second.accepted.done(), outcome.status) == (False, True, JobStatus.SUCCEEDED)
    async with cloud.inner.database.system_unit() as unit:
        assert await unit.fetchval("SELECT path FROM jobs WHERE id = $1", second.job) == "nqsrS"
