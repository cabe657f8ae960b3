"""Jobs through the whole control plane: real store, scripted worker, virtual time."""

import asyncio

import pytest

from apothic.wire.functions import FunctionSpec
from apothic.wire.limits import VALUE_INLINE_MAX
from apothic.wire.link import Finished, Started
from apothic.wire.values import Value
from apothic_server.domain.errors import Fenced, TooMany
from apothic_server.domain.jobs import JobStatus
from apothic_server.services.links import GRACE_S
from apothic_server.testing.cloud import ScriptedWorker, ended
from apothic_server.testing.guarantees import guarantee

pytestmark = pytest.mark.anyio


async def test_a_spawned_job_runs_and_its_result_is_stored(cloud):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()

    job = await cloud.spawn()
    attempt = await worker.take()
    worker.succeed(attempt, b'"done"')
    outcome = await ended(job)

    assert outcome.value == Value("json", b'"done"')
    assert await cloud.status(job.job) == "succeeded"
    kinds = ["job.queued", "job.status", "job.running", "job.result", "job.end"]
    assert await cloud.events(job.job) == list(enumerate(kinds))


@guarantee("G5.1", "indexes_dense")
async def test_logs_and_moves_share_one_dense_index(cloud):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()

    worker.log(attempt, "one", "two")
    worker.log(attempt, "three")
    worker.succeed(attempt)
    await ended(job)

    kinds = ["job.queued", "job.status", "job.running", "job.log", "job.log", "job.log", "job.result", "job.end"]
    assert await cloud.events(job.job) == list(enumerate(kinds))
    page = await cloud.services.jobs.logs(cloud.actor, job.job, -1, 100)
    assert [line.line for line in page.lines] == ["one", "two", "three"]
    assert page.is_final


async def test_a_blocking_call_on_a_warm_runner_is_one_commit(cloud):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    first = await cloud.spawn()
    worker.succeed(await worker.take())
    await ended(first)
    commits = cloud.inner.writer.counters.commits

    call = await cloud.spawn(blocking=True)
    worker.succeed(await worker.take())
    await ended(call)

    assert cloud.inner.writer.counters.commits == commits + 1


async def test_a_job_waits_with_a_reason_until_a_worker_comes(cloud):
    await cloud.deploy()

    job = await cloud.spawn()
    waiting = await cloud.services.jobs.get(cloud.actor, job.job)
    worker = await ScriptedWorker(cloud).connect()
    worker.succeed(await worker.take())

    assert (waiting.job.status, waiting.waiting_reason) == (JobStatus.QUEUED, "no worker is connected")
    assert (await ended(job)).status is JobStatus.SUCCEEDED


@guarantee("G1.3", "stale_attempt_rejected")
async def test_a_report_with_an_old_fence_changes_nothing_and_is_counted(cloud):
    await cloud.deploy()
    frozen = await ScriptedWorker(cloud, name="frozen").connect()
    job = await cloud.spawn()
    old = await frozen.take()
    await cloud.advance(GRACE_S + 1)
    other = await ScriptedWorker(cloud, name="other").connect()
    new = await other.take()

    frozen.report({"finished": [Finished(old.job, old.fence, "succeeded", Value("json", b'"old"'))]})
    other.succeed(new, b'"new"')
    outcome = await ended(job)

    assert new.fence > old.fence
    assert outcome.value == Value("json", b'"new"')
    assert cloud.inner.board.fenced_reports == 1
    assert frozen.close_code == "fenced"


@guarantee("G1.3", "stale_attempt_rejected")
async def test_a_worker_that_has_the_next_attempt_cannot_end_it_with_the_fence_of_the_last(cloud):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", max_retries=1))
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    first = await worker.take()
    worker.fail(first)
    await cloud.advance(2)
    second = await worker.take()

    worker.succeed(first, b'"of the first"')
    worker.succeed(second, b'"of the second"')
    outcome = await ended(job)

    assert (outcome.attempt, outcome.value) == (2, Value("json", b'"of the second"'))
    assert cloud.inner.board.fenced_reports == 1


@guarantee("G3.6", "same_name_new_incarnation")
async def test_a_lease_that_ended_is_not_revived_by_the_same_incarnation(cloud):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    await cloud.advance(GRACE_S + 1)

    with pytest.raises(Fenced):
        await worker.connect()
    again = await ScriptedWorker(cloud, name=worker.name).connect()

    assert again.worker is not None


@guarantee("G1.2", "no_stuck_jobs")
@guarantee("G3.3", "lost_worker_latency")
@pytest.mark.parametrize("step_s", [-7200, 7200])
async def test_a_lost_worker_is_noticed_in_time_although_the_wall_clock_was_set(cloud, step_s):
    await cloud.deploy()
    gone = await ScriptedWorker(cloud, name="gone").connect()
    job = await cloud.spawn()
    await gone.take()
    cloud.clock.step(step_s)
    await cloud.step()  # a grace begins here (G3.5)
    await cloud.advance(GRACE_S - 1)
    early = await cloud.status(job.job)
    await cloud.advance(2)
    other = await ScriptedWorker(cloud, name="other").connect()

    assert early == "running"
    assert (await other.take()).job == job.job


async def test_heartbeats_keep_a_worker_alive(cloud):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()

    for _ in range(10):
        await cloud.advance(GRACE_S / 2)
        await worker.heartbeat(attempt)

    assert await cloud.status(job.job) == "running"
    assert worker.close_code is None


async def test_a_failure_is_tried_again_after_its_delay(cloud):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", max_retries=1, retry_initial_delay_s=5))
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    worker.fail(await worker.take())
    await cloud.advance(4)
    early = (await cloud.services.jobs.get(cloud.actor, job.job)).job.status

    await cloud.advance(1.1)
    attempt = await worker.take()
    worker.succeed(attempt)

    assert early is JobStatus.RETRYING
    assert attempt.attempt == 2
    assert (await ended(job)).status is JobStatus.SUCCEEDED


@guarantee("G4.1", "cancel_linearizable")
async def test_cancelling_a_running_job_wins_over_a_result_that_comes_later(cloud):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()

    answered = await cloud.services.jobs.cancel(cloud.actor, job.job)
    await worker.next("cancel")
    worker.succeed(attempt)
    again = await ended(job)

    assert answered is JobStatus.CANCELLING
    assert again.status is JobStatus.CANCELLED
    assert await cloud.services.jobs.cancel(cloud.actor, job.job) is JobStatus.CANCELLED


async def test_cancelling_a_waiting_job_ends_it_at_once_and_spares_the_next(cloud):
    await cloud.deploy()
    first, second = await cloud.spawn(), await cloud.spawn()

    assert await cloud.services.jobs.cancel(cloud.actor, first.job) is JobStatus.CANCELLED
    worker = await ScriptedWorker(cloud).connect()
    attempt = await worker.take()

    assert attempt.job == second.job
    assert (await ended(first)).status is JobStatus.CANCELLED


async def test_calls_beyond_max_pending_tasks_are_refused_and_leave_nothing(cloud):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", max_pending_tasks=2))
    for _ in range(2):
        await cloud.spawn()

    with pytest.raises(TooMany):
        await cloud.spawn()

    async with cloud.inner.database.system_unit() as unit:
        assert await unit.fetchval("SELECT count(*) FROM jobs") == 2


@guarantee("G15.4", "fair_between_orgs")
async def test_an_org_whose_job_fits_nowhere_holds_no_other_org_up(cloud):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", cpu=64))
    await cloud.deploy("shop", actor=cloud.other_actor)
    await cloud.spawn()
    theirs = await cloud.services.jobs.submit(
        cloud.other_actor, ("shop", "work"), Value("json", b"[[],{}]"), blocking=False
    )
    await theirs.accepted

    worker = await ScriptedWorker(cloud, cpus=1).connect()

    assert (await worker.take()).job == theirs.job


@guarantee("G2.6", "lost_grant_reply")
async def test_a_grant_that_never_arrived_is_given_again_when_the_worker_comes_back(cloud):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    await cloud.spawn()
    lost = await worker.next("assign")
    worker.disconnect()

    await worker.connect()
    again = await worker.take()

    assert (again.job, again.attempt, again.fence) == (lost.job, 2, lost.fence + 1)


@guarantee("G2.1", "overlap_only_when_frozen")
async def test_an_attempt_survives_a_broken_link_when_the_worker_still_holds_it(cloud):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()
    worker.disconnect()

    await worker.connect(attempt)
    worker.succeed(attempt, b"1")

    assert (await ended(job)).attempt == 1


@guarantee("G1.2", "no_stuck_jobs")
async def test_a_row_that_no_memory_holds_is_found_by_the_sweep(cloud):
    await cloud.deploy()
    job = await cloud.spawn()
    board = cloud.inner.board
    forgotten = board.jobs.pop(job.job)
    board.dequeue(forgotten)
    worker = await ScriptedWorker(cloud).connect()

    await cloud.step()
    attempt = await worker.take()
    worker.succeed(attempt)

    assert attempt.job == job.job


@guarantee("G3.3", "lost_worker_latency")
async def test_jobs_of_a_worker_whose_death_is_proven_are_granted_at_once(cloud):
    await cloud.deploy()
    await ScriptedWorker(cloud, name="dead").connect()
    job = await cloud.spawn()
    other = await ScriptedWorker(cloud, name="other").connect()

    await cloud.inner.links.declare_dead("dead", "its process ended")
    attempt = await other.take()
    other.succeed(attempt)

    assert attempt.attempt == 2
    assert (await ended(job)).status is JobStatus.SUCCEEDED


async def test_large_values_travel_by_the_blob_store(cloud):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    big = b'"' + b"x" * (2 * VALUE_INLINE_MAX) + b'"'
    arguments = Value("json", b"[[" + big + b"],{}]")

    cloud.start_loop("values")
    job = await cloud.services.jobs.submit(cloud.actor, ("shop", "work"), arguments, blocking=False)
    attempt = await worker.take()
    worker.succeed(attempt, big)
    outcome = await ended(job)
    stored = await cloud.services.jobs.outcome(cloud.actor, job.job)

    assert attempt.arguments == arguments
    assert outcome.value == Value("json", big)
    assert stored.value == Value("json", big)


async def test_a_redeploy_leaves_running_jobs_to_the_old_code_and_new_calls_to_the_new(cloud):
    first = await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    await cloud.spawn()
    old = await worker.next("start_runner")
    second = await cloud.deploy(archive=b"other files")
    await cloud.spawn()
    new = await worker.next("start_runner")

    assert (old.deployment, new.deployment) == (first.id, second.id)
    assert first.functions == second.functions
    assert second.version == 2


async def test_a_report_with_a_nul_character_is_stored_without_it(cloud):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()

    worker.log(attempt, "a\0b")
    worker.succeed(attempt)
    await ended(job)

    page = await cloud.services.jobs.logs(cloud.actor, job.job, -1, 10)
    assert [line.line for line in page.lines] == ["a\N{REPLACEMENT CHARACTER}b"]


async def test_many_jobs_at_once_all_end(cloud):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", max_containers=4, max_pending_tasks=1000))
    worker = await ScriptedWorker(cloud, cpus=8).connect()
    jobs = [await cloud.spawn() for _ in range(200)]
    for _ in jobs:
        worker.succeed(await worker.take())

    outcomes = await asyncio.gather(*(ended(job) for job in jobs))

    assert {outcome.status for outcome in outcomes} == {JobStatus.SUCCEEDED}
    assert not cloud.inner.board.jobs


async def test_started_twice_and_unknown_jobs_in_reports_are_harmless(cloud):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()

    worker.report({"started": [Started(attempt.job, attempt.fence), Started("no such job", 1)]})
    worker.report({"finished": [Finished("no such job", 1, "succeeded"), Finished(attempt.job, attempt.fence, "odd")]})
    worker.succeed(attempt)

    assert (await ended(job)).status is JobStatus.SUCCEEDED


async def test_a_queued_blocking_call_starts_without_waiting_for_a_commit(cloud):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    first, second = [await cloud.spawn(blocking=True) for _ in range(2)]
    attempt = await worker.take()

    worker.succeed(attempt)
    names = [name for name, _ in worker.received]
    following = await worker.take()
    worker.succeed(following)

    assert (attempt.job, following.job) == (first.job, second.job)
    assert names == ["assign"]
    assert {(await ended(first)).status, (await ended(second)).status} == {JobStatus.SUCCEEDED}


async def test_a_spawned_job_is_sent_only_after_its_grant_is_on_disk(cloud):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    await cloud.spawn()
    second = await cloud.spawn()
    attempt = await worker.take()

    worker.succeed(attempt)
    sent_at_once = [name for name, _ in worker.received if name == "assign"]
    following = await worker.next("assign")

    assert sent_at_once == []
    assert following.job == second.job
    assert await cloud.status(second.job) == "starting"
