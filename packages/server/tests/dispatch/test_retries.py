"""Retries through the whole control plane: delays over restarts, two budgets, jobs that can never run."""

from datetime import timedelta

import pytest

from apothic.wire.functions import FunctionSpec
from apothic.wire.limits import INFRASTRUCTURE_LOSSES_MAX
from apothic.wire.link import Finished, Started
from apothic.wire.values import RemoteError
from apothic_server.domain.jobs import JobEvent, JobStatus
from apothic_server.testing.cloud import ScriptedWorker, ended
from apothic_server.testing.guarantees import guarantee

pytestmark = pytest.mark.anyio

LONGEST_DELAY_S = 35
DELETED = RemoteError("apothic.DeploymentDeleted", "its deployment was deleted", code="deployment_deleted")


async def deploy(cloud, **more):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", memory_mb=32, **more))


async def run_at(cloud, job):
    async with cloud.inner.database.system_unit() as unit:
        return await unit.fetchval("SELECT run_at FROM jobs WHERE id = $1", job)


async def row_of(cloud, job):
    async with cloud.inner.database.system_unit() as unit:
        return await unit.fetchrow(
            "SELECT status, attempt, losses, error ->> 'code' AS code FROM jobs WHERE id = $1", job
        )


@guarantee("G2.4", "retry_survives_restart")
async def test_a_restart_neither_loses_nor_repeats_nor_hastens_a_delayed_retry(cloud, restart):
    await deploy(cloud, max_retries=1, retry_initial_delay_s=100, retry_max_delay_s=100, max_containers=20)
    began = cloud.clock.now()
    worker = await ScriptedWorker(cloud, cpus=20).connect()
    jobs = [(await cloud.spawn()).job for _ in range(12)]
    for number in range(len(jobs)):
        attempt = await worker.take()
        worker.fail(attempt)
        await cloud.settle()
        await cloud.advance(number % 3)
    due = {job: await run_at(cloud, job) for job in jobs}

    granted = {}
    for _ in range(16):
        await restart()
        worker = await ScriptedWorker(cloud, name=f"of {cloud.clock.now()}", cpus=20).connect()
        await cloud.advance(10)
        await cloud.settle()
        while worker.received:
            kind, item = worker.received.popleft()
            if kind == "assign":
                assert item.job not in granted
                granted[item.job] = (item.attempt, cloud.clock.now())
                worker.report({"started": [Started(item.job, item.fence)]})
                worker.succeed(item)
        await cloud.settle()

    assert set(granted) == set(jobs)
    for job, (attempt, at) in granted.items():
        assert attempt == 2
        assert began + timedelta(seconds=100) <= due[job] <= at <= due[job] + timedelta(seconds=10)
        assert (await row_of(cloud, job))["status"] == "succeeded"


@guarantee("G2.3", "budgets_separate")
async def test_losses_and_failures_are_counted_apart_until_the_last_retry(cloud):
    await deploy(cloud, max_retries=2)
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    for number, fate in enumerate(("die", "fail", "drain", "fail", "die", "fail")):
        attempt = await worker.take()
        if fate == "die":
            await cloud.inner.links.declare_dead(worker.name, "its process ended")
            worker = await ScriptedWorker(cloud, name=f"worker {number}").connect()
        elif fate == "drain":
            lost = RemoteError("apothic.AttemptFailed", "the worker stops", code="worker_lost")
            worker.report({"finished": [Finished(attempt.job, attempt.fence, "lost", None, lost)]})
        else:
            worker.fail(attempt)
        await cloud.settle()
        await cloud.advance(LONGEST_DELAY_S - 10)
        await worker.heartbeat()
    outcome = await ended(job)

    assert (outcome.status, outcome.attempt) == (JobStatus.FAILED, 6)
    assert outcome.error.code == "exception"
    assert tuple(await row_of(cloud, job.job)) == ("failed", 6, 3, "exception")


@guarantee("G2.3", "poison_job_bounded")
async def test_a_job_that_kills_every_worker_ends_within_nine_grants_and_spares_the_next(cloud):
    await deploy(cloud, max_retries=100)
    poison = await cloud.spawn()
    grants = 0
    while not poison.outcome.done():
        worker = await ScriptedWorker(cloud, name=f"victim {grants}").connect()
        attempt = await worker.take()
        grants += 1
        await cloud.inner.links.declare_dead(worker.name, "its process ended")
        await cloud.settle()
        await cloud.advance(LONGEST_DELAY_S)
    outcome = await ended(poison)
    following = await cloud.spawn()
    survivor = await ScriptedWorker(cloud, name="survivor").connect()
    survivor.succeed(await survivor.take())

    assert (grants, attempt.attempt) == (INFRASTRUCTURE_LOSSES_MAX + 1, INFRASTRUCTURE_LOSSES_MAX + 1)
    assert (outcome.status, outcome.error.code) == (JobStatus.FAILED, "worker_lost")
    assert (await ended(following)).status is JobStatus.SUCCEEDED


async def test_a_queued_job_that_can_never_run_ends_failed(cloud):
    await deploy(cloud)
    worker = await ScriptedWorker(cloud, cpus=1).connect()
    first, second = await cloud.spawn(), await cloud.spawn()
    attempt = await worker.take()

    live = cloud.inner.board.jobs[second.job]
    cloud.inner.endings.fail_waiting(live, JobEvent.FAILED, DELETED)
    outcome = await ended(second)
    worker.succeed(attempt)
    await ended(first)
    await cloud.settle()

    assert (outcome.status, outcome.attempt, outcome.error) == (JobStatus.FAILED, 0, DELETED)
    assert await cloud.events(second.job) == [(0, "job.queued"), (1, "job.error"), (2, "job.end")]
    assert cloud.inner.board.pending(live.need.group) == 0
    assert [name for name, _ in worker.received if name == "assign"] == []


async def test_a_job_in_its_delay_that_can_never_run_ends_failed_and_is_not_tried_again(cloud):
    await deploy(cloud, max_retries=1, retry_initial_delay_s=10)
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    worker.fail(await worker.take())
    await cloud.settle()

    live = cloud.inner.board.jobs[job.job]
    cloud.inner.endings.fail_waiting(live, JobEvent.FAILED, DELETED)
    outcome = await ended(job)
    await cloud.advance(11)
    await cloud.settle()

    assert (outcome.status, outcome.attempt, outcome.error) == (JobStatus.FAILED, 1, DELETED)
    assert [kind for _, kind in await cloud.events(job.job)][-3:] == ["job.status", "job.error", "job.end"]
    assert [name for name, _ in worker.received if name == "assign"] == []


async def test_a_job_that_does_not_wait_any_more_is_not_ended_as_one_that_waits(cloud):
    await deploy(cloud)
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()

    cloud.inner.endings.fail_waiting(cloud.inner.board.jobs[job.job], JobEvent.FAILED, DELETED)
    worker.succeed(attempt)

    assert (await ended(job)).status is JobStatus.SUCCEEDED
