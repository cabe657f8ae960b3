"""Memory comes back from the store: restart, takeover, fence of the role."""

import pytest

from apothic.wire.functions import FunctionSpec
from apothic_server.bootstrap import Cloud, Sources
from apothic_server.domain.jobs import JobStatus
from apothic_server.testing.cloud import ScriptedWorker
from apothic_server.testing.guarantees import guarantee

pytestmark = pytest.mark.anyio


@pytest.fixture
async def second(cloud, postgres, tmp_path):
    """A second process on the same store; it takes the role when the first has let go."""
    other = Cloud(postgres, tmp_path, url="http://second.test", sources=Sources(clock=cloud.clock, random=lambda: 0.0))
    try:
        yield other
    finally:
        await other.stop()


@guarantee("G1.1", "job_terminal_once")
async def test_waiting_jobs_are_granted_after_a_restart(cloud, second):
    await cloud.deploy()
    jobs = [await cloud.spawn() for _ in range(3)]
    await cloud.inner.stop()

    await second.start(run_loops=False)
    cloud.inner = second
    worker = await ScriptedWorker(cloud).connect()
    for _ in jobs:
        worker.succeed(await worker.take())
    outcomes = [await cloud.services.jobs.outcome(cloud.actor, job.job) for job in jobs[:-1]]

    assert {outcome.status for outcome in outcomes} <= {JobStatus.SUCCEEDED}


@guarantee("G3.5", "no_mass_expiry_after_outage")
async def test_running_jobs_keep_a_full_grace_after_a_restart_and_are_then_given_again(cloud, second):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud, name="gone").connect()
    job = await cloud.spawn()
    await worker.take()
    cloud.clock.advance(3600)
    await cloud.inner.stop()

    await second.start(run_loops=False)
    cloud.inner = second
    await cloud.advance(29)
    early = await cloud.status(job.job)
    await cloud.advance(2)
    other = await ScriptedWorker(cloud, name="other").connect()
    attempt = await other.take()
    other.succeed(attempt)
    waiting = await cloud.services.jobs.outcome(cloud.actor, job.job)

    assert early == "running"
    assert attempt.attempt == 2
    assert (await ended_of(waiting)).status is JobStatus.SUCCEEDED


@guarantee("G1.2", "no_stuck_jobs")
async def test_a_queued_job_runs_at_once_when_the_clock_was_set_back_before_a_restart(cloud, second):
    await cloud.deploy()
    job = await cloud.spawn()
    cloud.clock.step(-7200)
    await cloud.inner.stop()

    await second.start(run_loops=False)
    cloud.inner = second
    worker = await ScriptedWorker(cloud).connect()

    assert (await worker.take()).job == job.job


@guarantee("G2.4", "retry_survives_restart")
@pytest.mark.parametrize(("step_s", "early_s", "late_s"), [(0, 19, 2), (-7200, 39, 6)])
async def test_a_retry_keeps_its_delay_over_a_restart_and_a_clock_set_back_makes_it_no_longer_than_the_longest(
    cloud, second, step_s, early_s, late_s
):
    spec = FunctionSpec("work", qualname="work", max_retries=1, retry_initial_delay_s=20, retry_max_delay_s=40)
    await cloud.deploy("shop", spec)
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    worker.fail(await worker.take())
    await cloud.inner.stop()
    cloud.clock.step(step_s)

    await second.start(run_loops=False)
    cloud.inner = second
    other = await ScriptedWorker(cloud).connect()
    for _ in range(early_s):
        await cloud.advance(1)
        await other.heartbeat()
    early = await cloud.status(job.job)
    await cloud.advance(late_s)
    again = await other.take()

    assert (early, again.job, again.attempt) == ("retrying", job.job, 2)


async def test_a_grant_of_an_old_term_is_refused_by_the_store(cloud, second):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    async with cloud.inner.database.system_unit() as unit:
        await unit.execute("UPDATE dispatcher SET term = term + 1, holder = 'another'")

    job = await cloud.spawn()
    await cloud.inner.recovery.reload_requested()

    assert await cloud.status(job.job) == "queued"
    assert not [name for name, _ in worker.received if name == "assign"]


async def ended_of(found):
    from asyncio import shield, wait_for

    return found if not hasattr(found, "add_done_callback") else await wait_for(shield(found), 10)
