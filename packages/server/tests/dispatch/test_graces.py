"""Functions with a grace of their own: one attempt outlives a silence that ends its neighbour (G3.2)."""

import asyncio

import pytest

from apothic.wire.functions import FunctionSpec
from apothic_server.bootstrap import Cloud, Sources
from apothic_server.domain.errors import Invalid
from apothic_server.domain.jobs import JobStatus
from apothic_server.services.dispatch.board import NOTICED_S
from apothic_server.services.dispatch.leases import PASS_S
from apothic_server.services.links import GRACE_S
from apothic_server.testing.cloud import ScriptedWorker, ended
from apothic_server.testing.guarantees import guarantee

pytestmark = pytest.mark.anyio

LONG_S = 600
LONG = FunctionSpec("long", disconnect_grace_s=LONG_S, timeout_s=3_600, qualname="long")
USUAL = FunctionSpec("work", qualname="work", timeout_s=3_600)


async def executing(cloud, worker, *functions):
    """Return jobs of these functions, and their attempts that the worker executes."""
    jobs, attempts = [], []
    for function in functions:
        jobs.append(await cloud.spawn(function))
        attempts.append(await worker.take())
    await cloud.step()
    return jobs, attempts


async def statuses(cloud, jobs):
    """Statuses in the store, once what was decided until now is written there."""
    await cloud.settle()
    return [await cloud.status(job.job) for job in jobs]


async def is_ended(cloud, worker):
    async with cloud.inner.database.system_unit() as unit:
        return await unit.fetchval("SELECT ended_at IS NOT NULL FROM workers WHERE id = $1", worker.incarnation)


@guarantee("G3.2", "self_fence_on_partition")
@pytest.mark.parametrize("says_so", [True, False], ids=["link broken", "link silent"])
async def test_a_long_grace_outlives_a_partition_that_ends_its_neighbour_on_the_same_worker(cloud, says_so):
    await cloud.deploy("shop", LONG, USUAL)
    cut = await ScriptedWorker(cloud, name="cut").connect()
    (long, usual), (kept, lost) = await executing(cloud, cut, "long", "work")
    other = await ScriptedWorker(cloud, name="other").connect()
    if says_so:
        cut.disconnect()
    for _ in range(2):
        await cloud.advance(GRACE_S / 2 + 1)
        await other.heartbeat()
    again = await other.take()
    other.succeed(again)
    for _ in range(26):
        await cloud.advance(10)
        await other.heartbeat()
    during = await statuses(cloud, [long])

    await cut.connect(kept, lost)
    welcome = await cut.next("welcome")
    cut.succeed(lost)
    cut.succeed(kept)
    outcomes = [await ended(job) for job in (long, usual)]

    assert cut.started[kept.runner].disconnect_grace_s == LONG_S
    assert (again.job, again.attempt) == (usual.job, 2)
    assert during == ["running"]
    assert [(ref.job, ref.fence) for ref in welcome.unknown] == [(lost.job, lost.fence)]
    assert welcome.unknown_runners == [lost.runner]
    assert [(outcome.status, outcome.attempt) for outcome in outcomes] == [
        (JobStatus.SUCCEEDED, 1),
        (JobStatus.SUCCEEDED, 2),
    ]
    assert cut.close_code == (None if says_so else "unavailable")


@guarantee("G3.3", "lost_worker_latency")
async def test_the_loss_of_an_attempt_is_noticed_after_its_own_grace_and_the_worker_goes_with_its_last_one(cloud):
    await cloud.deploy("shop", LONG, USUAL)
    worker = await ScriptedWorker(cloud).connect()
    jobs, _ = await executing(cloud, worker, "long", "work")
    worker.disconnect()
    found = []
    for seconds in (GRACE_S - 1, 1 + PASS_S, LONG_S - GRACE_S - PASS_S - 1, 1 + PASS_S):
        await cloud.advance(seconds)
        found.append((await statuses(cloud, jobs), await is_ended(cloud, worker)))

    assert found == [
        (["running", "running"], False),
        (["running", "retrying"], False),
        (["running", "retrying"], False),
        (["retrying", "retrying"], True),
    ]
    assert cloud.inner.board.fleet.workers == {}


@guarantee("G3.5", "no_mass_expiry_after_outage")
async def test_after_a_restart_each_attempt_of_a_worker_that_is_not_back_has_its_own_grace(cloud, restart):
    await cloud.deploy("shop", LONG, USUAL)
    worker = await ScriptedWorker(cloud).connect()
    (long, usual), (kept, _) = await executing(cloud, worker, "long", "work")
    cloud.clock.advance(3_000)
    await restart()
    await cloud.advance(GRACE_S - 1)
    early = await statuses(cloud, [long, usual])
    await cloud.advance(1 + PASS_S)
    after = await statuses(cloud, [long, usual])
    await cloud.advance(LONG_S - GRACE_S - PASS_S - 1)
    await worker.connect(kept, on=cloud)
    worker.succeed(kept)

    assert early == ["running", "running"]
    assert after == ["running", "retrying"]
    assert (await waiting(cloud, long)).attempt == 1


async def test_after_a_restart_the_loss_of_a_long_attempt_is_noticed_too(cloud, restart):
    await cloud.deploy("shop", LONG)
    worker = await ScriptedWorker(cloud).connect()
    jobs, _ = await executing(cloud, worker, "long")
    await restart()
    await cloud.advance(LONG_S - 1)
    early = await statuses(cloud, jobs)
    await cloud.advance(1 + PASS_S)

    assert early == ["running"]
    assert await statuses(cloud, jobs) == ["retrying"]
    assert await is_ended(cloud, worker)


async def test_a_worker_that_is_proven_dead_loses_what_had_a_long_grace_at_once(cloud):
    await cloud.deploy("shop", LONG)
    worker = await ScriptedWorker(cloud).connect()
    jobs, _ = await executing(cloud, worker, "long")
    worker.disconnect()
    await cloud.advance(GRACE_S + PASS_S)
    before = await statuses(cloud, jobs)
    await cloud.inner.links.declare_dead(worker.name, "its process is gone")
    await cloud.settle()

    assert before == ["running"]
    assert await statuses(cloud, jobs) == ["retrying"]
    assert await is_ended(cloud, worker)


async def test_idle_runners_of_a_silent_worker_leave_their_places_to_others(cloud):
    await cloud.deploy("shop", LONG, USUAL)
    worker = await ScriptedWorker(cloud).connect()
    (_, usual), (_, short) = await executing(cloud, worker, "long", "work")
    worker.succeed(short)
    await ended(usual)
    worker.disconnect()
    await cloud.advance(GRACE_S + PASS_S)
    other = await ScriptedWorker(cloud, name="other").connect()
    following = await cloud.spawn()

    assert (await other.take()).job == following.job


@guarantee("G4.3", "timeouts_both_sides")
async def test_the_server_ends_an_overdue_attempt_only_after_its_own_grace(cloud):
    spec = FunctionSpec("long", disconnect_grace_s=LONG_S, timeout_s=60, qualname="long")
    await cloud.deploy("shop", spec)
    worker = await ScriptedWorker(cloud).connect()
    (job,), (attempt,) = await executing(cloud, worker, "long")
    found = []
    for until in (60 + LONG_S + NOTICED_S - 1, 60 + LONG_S + NOTICED_S + 1):
        while cloud.clock.monotonic() - cloud.inner.board.jobs[job.job].started_at < until - 10:
            await cloud.advance(10)
            await worker.heartbeat(attempt)
        await cloud.advance(until - (cloud.clock.monotonic() - cloud.inner.board.jobs[job.job].started_at))
        await cloud.settle()
        found.append(await cloud.status(job.job))

    assert found == ["running", "timed_out"]


async def test_a_grace_below_three_heartbeats_is_refused_when_it_is_deployed(cloud):
    with pytest.raises(Invalid, match=r"disconnect_grace_s of work is 29; .* at least 30"):
        await cloud.deploy("shop", FunctionSpec("work", disconnect_grace_s=29, qualname="work"))
    await cloud.deploy("shop", FunctionSpec("work", disconnect_grace_s=30, qualname="work"))


async def test_a_grace_may_be_shorter_than_the_clouds(postgres, tmp_path, cloud):
    await cloud.inner.stop()
    sources = Sources(clock=cloud.clock, random=lambda: 0.0)
    patient = Cloud(postgres, tmp_path, url="http://patient.test", sources=sources, grace_s=120)
    await patient.start(run_loops=False)
    try:
        cloud.inner = patient
        await cloud.deploy("shop", FunctionSpec("short", disconnect_grace_s=45, qualname="short"), USUAL)
        worker = await ScriptedWorker(cloud).connect()
        jobs, attempts = await executing(cloud, worker, "short", "work")
        await cloud.advance(44)
        early = await statuses(cloud, jobs)
        await cloud.advance(1 + PASS_S)
        after = await statuses(cloud, jobs)
        closed = worker.close_code
        await worker.connect(*attempts)
        worker.succeed(attempts[1])

        assert early == ["running", "running"]
        assert after == ["retrying", "running"]
        assert closed == "unavailable"
        assert (await ended(jobs[1])).attempt == 1
    finally:
        await patient.stop()


async def waiting(cloud, job):
    """Wait for the end of a job that another process took."""
    return await asyncio.wait_for(await cloud.services.jobs.outcome(cloud.actor, job.job), 10)
