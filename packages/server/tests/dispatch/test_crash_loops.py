"""Functions whose runners crash wait longer and longer, and their jobs say why."""

from itertools import pairwise

import pytest

from apothic.wire.functions import FunctionSpec
from apothic.wire.link import Finished, RunnerEnded, Started
from apothic.wire.values import RemoteError
from apothic_server.domain.jobs import JobStatus
from apothic_server.testing.cloud import ScriptedWorker, ended

pytestmark = pytest.mark.anyio

SPEC = FunctionSpec("work", qualname="work", memory_mb=32, max_containers=50)
NOT_LOADED = RemoteError("builtins.ModuleNotFoundError", "No module named 'numpy'", code="load_failed")


def crash(worker, attempt, error=NOT_LOADED, outcome="failed"):
    """Report that a runner could not be started, as a worker does: its attempts, then itself."""
    worker.report({"finished": [Finished(attempt.job, attempt.fence, outcome, None, error)]})
    worker.report({"runner_ended": [RunnerEnded(attempt.runner, error.code)]})


async def crash_often(cloud, worker, times):
    for _ in range(times):
        job = await cloud.spawn()
        crash(worker, await worker.next("assign"))
        assert (await ended(job)).error == NOT_LOADED
    await cloud.settle()


async def assigned(cloud, worker):
    """Return what was assigned by now."""
    await cloud.inner.upkeep.retries()
    await cloud.settle()
    found = [item for kind, item in worker.received if kind == "assign"]
    worker.received.clear()
    return found


async def reason_of(cloud, job):
    return (await cloud.services.jobs.get(cloud.actor, job.job)).waiting_reason


async def test_after_five_crashes_the_next_start_waits_and_the_job_says_why(cloud):
    await cloud.deploy("shop", SPEC)
    worker = await ScriptedWorker(cloud).connect()
    await crash_often(cloud, worker, 5)

    job = await cloud.spawn()
    reason = await reason_of(cloud, job)
    obstacle = cloud.services.jobs.obstacle(cloud.actor, job.job)
    wait_s = await cloud.inner.upkeep.retries()
    cloud.clock.advance(9.9)
    early = await assigned(cloud, worker)
    cloud.clock.advance(0.2)
    late = await assigned(cloud, worker)

    assert reason == (
        "5 runners in a row ended before a call in them did, the last one with load_failed: No module named 'numpy'; "
        "the next one is started in 10 s"
    )
    assert obstacle == reason.replace("in 10 s", "after a pause")
    assert wait_s == pytest.approx(10)
    assert early == []
    assert [attempt.job for attempt in late] == [job.job]


async def test_the_next_crash_doubles_the_pause_and_a_call_that_ends_begins_anew(cloud):
    await cloud.deploy("shop", SPEC)
    worker = await ScriptedWorker(cloud).connect()
    await crash_often(cloud, worker, 5)
    jobs = [await cloud.spawn() for _ in range(3)]
    cloud.clock.advance(10.1)
    first = await assigned(cloud, worker)
    crash(worker, first[0])
    cloud.clock.advance(19.8)
    early = await assigned(cloud, worker)
    cloud.clock.advance(0.3)
    second = await assigned(cloud, worker)
    reason = await reason_of(cloud, jobs[2])
    worker.report({"started": [Started(second[0].job, second[0].fence)]})
    worker.fail(second[0])
    third = await assigned(cloud, worker)

    assert (len(first), early, len(second)) == (1, [], 1)
    assert reason.endswith("No module named 'numpy'; one more is being tried")
    assert [attempt.job for attempt in third] == [jobs[2].job]
    assert cloud.inner.board.fleet.streaks == {}


async def test_jobs_that_wait_use_none_of_their_retries(cloud):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", memory_mb=32, max_retries=6))
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    times = []
    while not job.outcome.done():
        for attempt in await assigned(cloud, worker):
            times.append(cloud.clock.monotonic())
            crash(worker, attempt)
            await cloud.settle()
        cloud.clock.advance(1)
    pauses = [round(after - before) for before, after in pairwise(times)]
    outcome = await ended(job)

    assert (outcome.status, outcome.attempt, outcome.error) == (JobStatus.FAILED, 7, NOT_LOADED)
    assert pauses == [1, 2, 4, 8, 16, 32]


async def test_a_new_deployment_starts_at_once(cloud):
    await cloud.deploy("shop", SPEC)
    worker = await ScriptedWorker(cloud).connect()
    await crash_often(cloud, worker, 5)
    await cloud.deploy("shop", SPEC, archive=b"repaired")

    job = await cloud.spawn()

    assert [attempt.job for attempt in await assigned(cloud, worker)] == [job.job]


async def test_what_is_stopped_from_outside_is_no_crash(cloud):
    await cloud.deploy("shop", SPEC)
    worker = await ScriptedWorker(cloud).connect()
    for code in ("timeout", "deadline_exceeded", "timeout", "deadline_exceeded", "timeout"):
        job = await cloud.spawn()
        crash(worker, await worker.take(), RemoteError("x", "stopped", code=code), "timed_out")
        await ended(job)

    assert cloud.inner.board.fleet.streaks == {}


async def test_a_runner_that_served_and_dies_later_is_no_crash(cloud):
    await cloud.deploy("shop", SPEC)
    worker = await ScriptedWorker(cloud).connect()
    for _ in range(6):
        await cloud.spawn()
        worker.succeed(await worker.take())
        job = await cloud.spawn()
        crash(worker, await worker.take(), RemoteError("x", "exit code 1", code="exited"))
        await ended(job)

    assert cloud.inner.board.fleet.streaks == {}


async def test_a_runner_that_crashed_takes_no_other_job(cloud):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", memory_mb=32))
    worker = await ScriptedWorker(cloud).connect()
    first, second = await cloud.spawn(), await cloud.spawn()
    attempt = await worker.next("assign")

    crash(worker, attempt)
    following = await worker.take()
    worker.succeed(following)

    assert (await ended(first)).error == NOT_LOADED
    assert (following.job, following.attempt) == (second.job, 1)
    assert following.runner != attempt.runner


async def test_a_streak_is_forgotten_after_an_hour(cloud):
    await cloud.deploy("shop", SPEC)
    worker = await ScriptedWorker(cloud).connect()
    await crash_often(cloud, worker, 3)

    cloud.clock.advance(3_601)
    await cloud.inner.upkeep.retries()

    assert cloud.inner.board.fleet.streaks == {}
