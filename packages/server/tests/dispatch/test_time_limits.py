"""Time limits as the server enforces them, on the virtual clock."""

import pytest

from apothic.wire.functions import FunctionSpec
from apothic.wire.link import RunnerEnded, Started
from apothic_server.domain.jobs import JobStatus
from apothic_server.services.dispatch.board import NOTICED_S
from apothic_server.services.links import GRACE_S
from apothic_server.testing.cloud import ScriptedWorker, ended
from apothic_server.testing.guarantees import guarantee

pytestmark = pytest.mark.anyio

LATE_S = GRACE_S + NOTICED_S


async def deploy(cloud, **limits):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", **limits))


async def live_for(cloud, worker, seconds, *held):
    """Let time pass while a worker says that it lives and holds these attempts."""
    while seconds > 0:
        cloud.clock.advance(min(seconds, 10))
        await worker.heartbeat(*held)
        await cloud.inner.upkeep.limits()
        seconds -= 10
    await cloud.settle()


async def code_of(submitted):
    outcome = await ended(submitted)
    assert outcome.status is JobStatus.TIMED_OUT
    return outcome.error.code


async def test_a_job_that_waits_too_long_ends_on_time(cloud):
    await deploy(cloud, queue_timeout_s=60)
    job = await cloud.spawn()

    wait_s = await cloud.inner.upkeep.limits()
    await cloud.advance(59.9)
    early = await cloud.status(job.job)
    await cloud.advance(0.2)

    assert wait_s == pytest.approx(60)
    assert early == "queued"
    assert await code_of(job) == "queue_timeout"
    assert await cloud.events(job.job) == [(0, "job.queued"), (1, "job.error"), (2, "job.end")]


async def test_the_time_of_a_retry_in_the_queue_begins_after_its_delay(cloud):
    await deploy(cloud, queue_timeout_s=20, max_retries=1, retry_initial_delay_s=30, timeout_s=600)
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()
    await live_for(cloud, worker, 100, attempt)
    worker.fail(attempt)
    await cloud.inner.links.declare_dead("scripted", "its process ended")

    await cloud.advance(49.9)
    early = await cloud.status(job.job)
    await cloud.advance(0.2)

    assert early == "retrying"
    assert await code_of(job) == "queue_timeout"


async def test_the_deadline_ends_a_job_that_waits_for_its_retry(cloud):
    await deploy(cloud, deadline_s=100, max_retries=5, retry_initial_delay_s=600, retry_max_delay_s=600)
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()
    await live_for(cloud, worker, 40, attempt)
    worker.fail(attempt)

    await cloud.advance(59.9)
    early = await cloud.status(job.job)
    await cloud.advance(0.2)
    outcome = await ended(job)

    assert early == "retrying"
    assert (outcome.status, outcome.attempt) == (JobStatus.TIMED_OUT, 1)
    assert outcome.error.code == "deadline_exceeded"


async def test_an_attempt_is_told_what_is_left_of_the_deadline(cloud):
    await deploy(cloud, deadline_s=100, max_retries=1)
    worker = await ScriptedWorker(cloud).connect()
    await cloud.spawn()
    first = await worker.take()
    await live_for(cloud, worker, 30, first)
    worker.fail(first)
    await cloud.settle()
    await cloud.advance(1.1)
    second = await worker.take()

    assert first.deadline_left_s == pytest.approx(100)
    assert second.deadline_left_s == pytest.approx(68.9)


async def test_a_passed_deadline_is_never_tried_again(cloud):
    await deploy(cloud, deadline_s=100, max_retries=5)
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    worker.fail(await worker.take(), outcome="timed_out", code="deadline_exceeded")

    assert await code_of(job) == "deadline_exceeded"


@pytest.mark.parametrize("by_worker", [True, False])
async def test_a_deadline_is_told_alike_whoever_enforces_it(cloud, by_worker):
    await deploy(cloud, timeout_s=600, deadline_s=60)
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()
    if by_worker:
        worker.fail(attempt, outcome="timed_out", code="deadline_exceeded")
    else:
        await live_for(cloud, worker, 60 + LATE_S + 1, attempt)
    error = (await ended(job)).error

    assert (error.type, error.code) == ("apothic.JobTimedOut", "deadline_exceeded")
    assert error.message == "the job did not end within 60 s of its call (deadline_s)"


@guarantee("G4.3", "timeouts_both_sides")
@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"timeout_s": 60, "startup_timeout_s": 600}, "timeout"),
        ({"timeout_s": 600, "deadline_s": 60}, "deadline_exceeded"),
    ],
)
async def test_the_server_ends_an_attempt_that_its_worker_does_not_end(cloud, limits, code):
    await deploy(cloud, **limits)
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()

    await live_for(cloud, worker, 60 + LATE_S - 1, attempt)
    early = await cloud.status(job.job)
    await live_for(cloud, worker, 2, attempt)
    outcome = await ended(job)
    worker.succeed(attempt)
    cancelled = await worker.next("cancel")
    await cloud.settle()
    await cloud.spawn()
    following = await worker.take()

    assert early == "running"
    assert (outcome.status, outcome.error.code) == (JobStatus.TIMED_OUT, code)
    assert (cancelled.job, cancelled.fence) == (attempt.job, attempt.fence)
    assert await cloud.status(job.job) == "timed_out"
    assert cloud.inner.board.fenced_reports == 1
    assert following.runner != attempt.runner


@guarantee("G4.3", "timeouts_both_sides")
async def test_an_attempt_whose_start_took_longer_than_it_may_run_is_ended_on_time(cloud):
    await deploy(cloud, timeout_s=10, startup_timeout_s=600)
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.next("assign")
    await live_for(cloud, worker, 20, attempt)
    worker.report({"started": [Started(attempt.job, attempt.fence)]})

    await live_for(cloud, worker, 10 + LATE_S - 1, attempt)
    is_early = job.outcome.done()
    await live_for(cloud, worker, 2, attempt)

    assert not is_early
    assert await code_of(job) == "timeout"


async def test_a_timeout_uses_the_retries_of_the_function(cloud):
    await deploy(cloud, timeout_s=60, max_retries=1)
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    first = await worker.take()
    await live_for(cloud, worker, 60 + LATE_S + 1, first)
    retrying = await cloud.status(job.job)
    await live_for(cloud, worker, 10)
    await cloud.inner.upkeep.retries()
    second = await worker.take()
    worker.succeed(first)
    await live_for(cloud, worker, 60 + LATE_S + 1, second)

    assert retrying == "retrying"
    assert await code_of(job) == "timeout"
    assert (await ended(job)).attempt == 2


@guarantee("G4.3", "timeouts_both_sides")
async def test_a_start_that_takes_too_long_uses_the_retries_of_the_function(cloud):
    await deploy(cloud, startup_timeout_s=20, max_retries=1)
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    order = await worker.next("start_runner")
    first = await worker.next("assign")
    worker.fail(first, outcome="timed_out", code="startup_timeout")
    worker.report({"runner_ended": [RunnerEnded(first.runner, "startup_timeout")]})
    await cloud.settle()
    await cloud.advance(2)
    second = await worker.next("assign")
    await live_for(cloud, worker, 20 + LATE_S - 1, second)
    early = await cloud.status(job.job)
    await live_for(cloud, worker, 2, second)

    assert order.startup_timeout_s == 20
    assert early == "starting"
    assert await code_of(job) == "startup_timeout"
    assert (await ended(job)).attempt == 2


async def test_the_time_in_the_queue_goes_on_while_the_server_is_down(cloud, restart):
    await deploy(cloud, queue_timeout_s=60)
    job = await cloud.spawn()
    cloud.clock.advance(50)
    await restart()

    wait_s = await cloud.inner.upkeep.limits()
    await cloud.advance(10.1)
    await cloud.settle()

    assert wait_s == pytest.approx(10)
    assert await cloud.status(job.job) == "timed_out"


async def test_a_delay_before_a_retry_and_the_deadline_go_on_while_the_server_is_down(cloud, restart):
    await deploy(cloud, deadline_s=100, max_retries=5, retry_initial_delay_s=600, retry_max_delay_s=600)
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    worker.fail(await worker.take())
    await cloud.settle()
    cloud.clock.advance(50)
    await restart()

    await cloud.advance(49.9)
    early = await cloud.status(job.job)
    await cloud.advance(0.2)
    await cloud.settle()

    assert early == "retrying"
    assert await cloud.status(job.job) == "timed_out"


@guarantee("G3.5", "no_mass_expiry_after_outage")
async def test_no_attempt_times_out_because_the_server_stood_still(cloud):
    await deploy(cloud, timeout_s=60)
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()

    cloud.clock.advance(3600)
    await cloud.inner.upkeep.limits()
    worker.succeed(attempt)

    assert (await ended(job)).status is JobStatus.SUCCEEDED


@guarantee("G3.5", "no_mass_expiry_after_outage")
async def test_no_attempt_times_out_because_the_server_was_down(cloud, restart):
    await deploy(cloud, timeout_s=60)
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    await worker.take()
    await cloud.settle()
    cloud.clock.advance(3600)
    await restart()
    await cloud.inner.upkeep.limits()
    at_once = await cloud.status(job.job)
    await cloud.advance(29)
    status = await cloud.status(job.job)
    await cloud.advance(3)
    await cloud.settle()

    assert (at_once, status) == ("running", "running")
    assert await cloud.status(job.job) == "retrying"


async def test_after_a_restart_the_server_still_ends_what_its_worker_does_not_end(cloud, restart):
    await deploy(cloud, timeout_s=600)
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()
    await live_for(cloud, worker, 500, attempt)
    await restart()
    await worker.connect(attempt)

    await live_for(cloud, worker, 100 + LATE_S - 1, attempt)
    early = await cloud.status(job.job)
    await live_for(cloud, worker, 2, attempt)

    assert early == "running"
    assert await cloud.status(job.job) == "timed_out"


async def test_ended_jobs_leave_the_alarms_soon(cloud):
    await deploy(cloud, max_pending_tasks=5_000)
    worker = await ScriptedWorker(cloud).connect()
    for _ in range(1_200):
        job = await cloud.spawn(blocking=True)
        worker.succeed(await worker.take())
        await ended(job)

    assert len(cloud.inner.board.alarms) <= 1_024 + 2 * 2


async def test_the_waiting_of_a_caller_never_ends_the_job(cloud):
    await deploy(cloud)
    job = await cloud.spawn(blocking=True)
    await job.accepted
    await cloud.advance(3600)

    assert await cloud.status(job.job) == "queued"
