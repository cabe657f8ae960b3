"""Leases end by silence that the server could hear, and by nothing else."""

import pytest

from apothic_server.domain.jobs import JobStatus
from apothic_server.services.dispatch.leases import PASS_S, STEP_S
from apothic_server.services.links import GRACE_S
from apothic_server.testing.cloud import ScriptedWorker, ended
from apothic_server.testing.guarantees import guarantee

pytestmark = pytest.mark.anyio


@pytest.fixture
async def running(cloud):
    """Return a worker that executes an attempt of a job, and both."""
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()
    await cloud.step()
    return worker, job, attempt


async def is_lost(cloud, job):
    await cloud.step()
    return await cloud.status(job.job) == "retrying"


async def asleep(cloud):
    cloud.clock.advance(8 * 3600)


async def wall_ahead(cloud):
    cloud.clock.step(8 * 3600)


async def wall_back(cloud):
    cloud.clock.step(-8 * 3600)


async def wall_ahead_twice(cloud):
    await wall_ahead(cloud)
    await cloud.advance(GRACE_S - PASS_S)
    await wall_ahead(cloud)


STEPS = {"asleep": asleep, "wall ahead": wall_ahead, "wall back": wall_back, "wall ahead twice": wall_ahead_twice}


@guarantee("G3.5", "suspend_is_not_loss")
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
@pytest.mark.parametrize("is_linked", [True, False], ids=["linked", "away"])
async def test_no_clock_ends_a_lease_and_a_full_grace_begins(cloud, running, step, is_linked):
    worker, job, attempt = running
    if not is_linked:
        worker.disconnect()
    await step(cloud)
    lost_at_once = await is_lost(cloud, job)
    await cloud.advance(GRACE_S - 1)
    lost_early = await is_lost(cloud, job)
    await worker.connect(attempt)
    worker.succeed(attempt)

    assert (lost_at_once, lost_early) == (False, False)
    assert (await ended(job)).attempt == 1


@guarantee("G3.3", "lost_worker_latency")
@pytest.mark.parametrize("step", [None, *STEPS.values()], ids=["no step", *STEPS.keys()])
async def test_a_silent_worker_is_lost_within_grace_and_one_pass_whatever_the_clocks_did(cloud, running, step):
    worker, job, _ = running
    worker.disconnect()
    if step is not None:
        await step(cloud)
        await cloud.step()
    await cloud.advance(GRACE_S + PASS_S)

    assert await is_lost(cloud, job)
    assert cloud.inner.board.fleet.workers == {}


@guarantee("G3.3", "lost_worker_latency")
async def test_the_grace_counts_from_the_last_heartbeat(cloud, running):
    worker, job, attempt = running
    await cloud.advance(GRACE_S - 1)
    await worker.heartbeat(attempt)
    worker.disconnect()
    await cloud.advance(GRACE_S - 1)
    lost_early = await is_lost(cloud, job)
    await cloud.advance(1 + PASS_S)

    assert not lost_early
    assert await is_lost(cloud, job)


async def test_a_worker_that_this_process_never_met_is_lost_one_grace_after_it_was_found(cloud):
    worker = await ScriptedWorker(cloud).connect()
    cloud.inner.board.fleet.remove_worker(worker.worker)
    await cloud.step()
    await cloud.advance(GRACE_S - 1)
    early = await _live(cloud)
    await cloud.advance(2)

    assert early == 1
    assert await _live(cloud) == 0


@guarantee("G3.5", "no_mass_expiry_after_outage")
async def test_an_outage_of_the_store_ends_no_lease(cloud, running):
    worker, job, attempt = running
    worker.disconnect()
    for _ in range(30):  # looks that never come to an end
        cloud.clock.advance(PASS_S)
        cloud.inner.leases.begin_look()
    lost_at_once = await is_lost(cloud, job)
    await worker.connect(attempt)
    worker.succeed(attempt)

    assert not lost_at_once
    assert (await ended(job)).status is JobStatus.SUCCEEDED


async def test_looks_that_come_a_little_late_put_nothing_off(cloud, running):
    worker, job, _ = running
    worker.disconnect()
    for _ in range(int(GRACE_S // (PASS_S + STEP_S)) + 1):
        cloud.clock.advance(PASS_S + STEP_S)
        await cloud.step()

    assert await is_lost(cloud, job)


async def _live(cloud):
    async with cloud.inner.database.system_unit() as unit:
        return await unit.fetchval("SELECT count(*) FROM workers WHERE ended_at IS NULL")
