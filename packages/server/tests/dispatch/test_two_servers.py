"""Two control-plane processes on one database: one dispatches, both serve; the role moves, clients notice nothing."""

import asyncio

import pytest

from apothic.wire.functions import FunctionSpec
from apothic.wire.link import Finished
from apothic.wire.values import Value
from apothic_server import failpoints
from apothic_server.bootstrap import Cloud, Sources
from apothic_server.domain.errors import Moved, TooMany, Unavailable
from apothic_server.domain.jobs import JobStatus
from apothic_server.domain.streams import StreamKind, StreamRef
from apothic_server.services.outcomes import REREAD_S
from apothic_server.testing.cloud import ScriptedWorker, ended, start_beside
from apothic_server.testing.guarantees import guarantee

pytestmark = pytest.mark.anyio


@pytest.fixture
async def standby(cloud, postgres, tmp_path):
    """A second process beside `cloud` that does not dispatch; loops that wait for notifications run by themselves."""
    sources = Sources(clock=cloud.clock, random=lambda: 0.0)
    beside = await start_beside(cloud, Cloud(postgres, tmp_path, url="http://standby.test", sources=sources))
    for one in (cloud, beside):
        for name in ("peers", "outcomes", "reload"):
            one.start_loop(name)
    yield beside
    await beside.stop_loops()
    await beside.inner.stop()


async def deaf(cloud):
    """Lose every notification from now on."""
    cloud.inner.peers.listeners.heard = lambda _: None


async def on_disk(cloud, *attempts):
    """Wait until the starts of attempts are written."""
    async with asyncio.timeout(10):
        while {await cloud.status(attempt.job) for attempt in attempts} != {"running"}:
            pass


async def take_over(old, new):
    """The old dispatcher's term runs out, and the other process looks at it."""
    async with new.inner.database.system_unit() as unit:
        await unit.execute("UPDATE dispatcher SET expires_at = clock_timestamp()")
    await new.inner.upkeep.role()
    await new.inner.recovery.sweep()
    assert new.inner.board.dispatches


async def outcome_of(cloud, job):
    found = await cloud.services.jobs.outcome(cloud.actor, job)
    return await asyncio.wait_for(asyncio.shield(found), 10) if isinstance(found, asyncio.Future) else found


async def test_a_worker_that_dials_the_standby_is_sent_to_the_dispatcher_and_told_of_all_servers(cloud, standby):
    with pytest.raises(Moved) as moved:
        await ScriptedWorker(standby).connect()
    worker = await ScriptedWorker(cloud).connect()
    welcome = await worker.next("welcome")
    await worker.heartbeat()
    answer = await worker.next("heartbeat_answer")

    assert moved.value.url == "http://cloud.test"
    assert set(welcome.servers) == set(answer.servers) == {"http://cloud.test", "http://standby.test"}


async def test_a_worker_that_dials_while_nobody_dispatches_is_told_to_try_again(cloud, standby):
    await cloud.inner.drain()

    with pytest.raises(Unavailable) as told:
        await ScriptedWorker(standby).connect()

    assert told.value.code == "unavailable"


async def test_one_process_dispatches_and_both_know_it(cloud, standby):
    assert cloud.inner.board.dispatches
    assert not standby.inner.board.dispatches
    assert set(cloud.inner.peers.urls) == {"http://cloud.test", "http://standby.test"}
    assert set(standby.inner.peers.urls) == set(cloud.inner.peers.urls)


async def test_a_call_on_the_standby_runs_and_its_caller_gets_the_result(cloud, standby):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()

    call = await standby.spawn(blocking=True)
    await call.accepted
    worker.succeed(await worker.take(), b'"done"')
    outcome = await ended(call)

    assert outcome.value == Value("json", b'"done"')
    assert await outcome_of(cloud, call.job) == outcome


async def test_a_result_in_the_blob_store_reaches_a_caller_of_the_standby(cloud, standby):
    await cloud.deploy()
    cloud.start_loop("values")
    worker = await ScriptedWorker(cloud).connect()
    big = b'"' + b"x" * 100_000 + b'"'

    call = await standby.spawn(blocking=True)
    worker.succeed(await worker.take(), big)

    assert (await ended(call)).value == Value("json", big)


@guarantee("G5.6", "lost_notify_still_delivers")
async def test_without_any_notification_a_call_on_the_standby_ends_by_the_timers(cloud, standby):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    await deaf(cloud)
    await deaf(standby)

    call = await standby.spawn()
    await cloud.inner.recovery.sweep()
    worker.succeed(await worker.take())
    while await cloud.status(call.job) != "succeeded":
        pass
    assert not call.outcome.done()
    await standby.advance(REREAD_S)

    assert (await ended(call)).status is JobStatus.SUCCEEDED


async def test_a_waiting_job_is_cancelled_by_the_standby_and_the_dispatcher_forgets_it(cloud, standby):
    await cloud.deploy()
    job = await cloud.spawn()

    status = await standby.services.jobs.cancel(standby.actor, job.job)
    outcome = await ended(job)

    assert status is JobStatus.CANCELLED
    assert outcome.status is JobStatus.CANCELLED
    assert job.job not in cloud.inner.board.jobs
    assert not list(cloud.inner.board.ready)


@guarantee("G4.1", "cancel_linearizable")
async def test_a_running_job_is_cancelled_by_the_standby_and_its_worker_is_told(cloud, standby):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()
    await on_disk(cloud, attempt)

    status = await standby.services.jobs.cancel(standby.actor, job.job)
    again = await standby.services.jobs.cancel(standby.actor, job.job)
    told = await worker.next("cancel")
    worker.report({"finished": [Finished(attempt.job, attempt.fence, "cancelled")]})
    outcome = await ended(job)

    assert (status, again) == (JobStatus.CANCELLING, JobStatus.CANCELLING)
    assert (told.job, told.fence) == (attempt.job, attempt.fence)
    assert outcome.status is JobStatus.CANCELLED
    assert await standby.services.jobs.cancel(standby.actor, job.job) is JobStatus.CANCELLED


async def test_a_result_that_comes_after_a_cancellation_by_the_standby_does_not_count(cloud, standby):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()
    await on_disk(cloud, attempt)
    await deaf(cloud)

    await standby.services.jobs.cancel(standby.actor, job.job)
    worker.succeed(attempt, b'"too late"')
    outcome = await ended(job)

    assert outcome.status is JobStatus.CANCELLED
    assert await cloud.status(job.job) == "cancelled"


async def test_lost_notifications_of_cancellations_are_made_up_for_by_the_sweep(cloud, standby):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    running = await cloud.spawn()
    attempt = await worker.take()
    await on_disk(cloud, attempt)
    await cloud.deploy("other", FunctionSpec("work", qualname="work", cpu=4))
    waiting = await cloud.spawn(app="other")
    await deaf(cloud)

    for job in (running, waiting):
        await standby.services.jobs.cancel(standby.actor, job.job)
    await cloud.inner.upkeep.role()
    await cloud.inner.recovery.sweep()
    told = await worker.next("cancel")

    assert told.job == running.job
    assert (await ended(waiting)).status is JobStatus.CANCELLED


async def test_the_bound_of_waiting_calls_holds_on_the_standby(cloud, standby):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", max_pending_tasks=2))

    await standby.spawn()
    await cloud.spawn()
    cloud.clock.advance(1)

    with pytest.raises(TooMany):
        await standby.spawn()


async def test_a_watch_on_the_standby_sees_every_event_of_a_job_that_runs(cloud, standby):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await standby.spawn()
    seen = asyncio.create_task(_watched(standby, job.job))
    attempt = await worker.take()
    worker.log(attempt, "one", "two")
    worker.succeed(attempt)

    assert await asyncio.wait_for(seen, 20) == await cloud.events(job.job)


@guarantee("G11.1", "switch_atomic")
@pytest.mark.parametrize("deploys_on_standby", [True, False], ids=["deployed on the standby", "on the dispatcher"])
async def test_a_deploy_answered_by_one_process_is_what_the_next_call_on_the_other_runs(
    cloud, standby, deploys_on_standby
):
    here, there = (standby, cloud) if deploys_on_standby else (cloud, standby)
    await deaf(cloud)
    await deaf(standby)
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    for one in (cloud, standby):
        call = await one.spawn()
        await cloud.inner.recovery.sweep()
        worker.succeed(await worker.take())
        await outcome_of(cloud, call.job)

    new = await here.deploy()
    job = await there.spawn()
    row = await there.services.jobs.get(there.actor, job.job)

    assert row.job.deployment == new.id


async def test_what_was_remembered_is_forgotten_when_the_other_process_is_gone(cloud, standby):
    await cloud.deploy()
    await cloud.spawn()
    await deaf(cloud)
    new = await standby.deploy()
    await standby.stop_loops()
    await standby.inner.stop()
    await cloud.inner.upkeep.role()
    assert cloud.inner.peers.is_alone

    job = await cloud.spawn()

    assert (await cloud.services.jobs.get(cloud.actor, job.job)).job.deployment == new.id


async def test_a_process_that_is_alone_sends_no_notification_and_asks_for_no_deployment(cloud):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    cloud.start_loop("peers")
    for _ in range(3):
        call = await cloud.spawn(blocking=True)
        worker.succeed(await worker.take())
        await ended(call)
    before = cloud.inner.peers.notifications
    commits = cloud.inner.writer.counters.commits
    call = await cloud.spawn(blocking=True)
    worker.succeed(await worker.take())
    await ended(call)

    assert cloud.inner.writer.counters.commits == commits + 1
    assert cloud.inner.peers.notifications == before


async def test_many_changes_at_once_are_told_in_few_notifications(cloud, standby):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", max_pending_tasks=1_000))
    before = cloud.inner.peers.notifications

    for job in [await cloud.spawn() for _ in range(100)]:
        cloud.inner.board.hints.changed(job.job)
    await cloud.inner.upkeep.tell()

    assert 1 <= cloud.inner.peers.notifications - before <= 3


@guarantee("G3.5", "no_mass_expiry_after_outage")
async def test_when_the_dispatcher_changes_running_attempts_go_on_and_everybody_is_answered(cloud, standby):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", tasks_per_container=2))
    worker = await ScriptedWorker(cloud).connect()
    on_old, on_new = await cloud.spawn(), await standby.spawn()
    attempts = [await worker.take() for _ in range(2)]
    await on_disk(cloud, *attempts)
    cloud.clock.advance(25)

    await take_over(cloud, standby)
    await standby.step()
    await cloud.inner.upkeep.role()
    await worker.connect(*attempts, on=standby)
    await standby.advance(25)
    for attempt in attempts:
        worker.succeed(attempt, b"1")

    assert (await ended(on_new)).status is JobStatus.SUCCEEDED
    assert (await ended(on_old)).status is JobStatus.SUCCEEDED
    assert [attempt.attempt for attempt in attempts] == [1, 1]
    assert not cloud.inner.board.jobs
    assert not cloud.inner.board.fleet.workers


@guarantee("G3.5", "no_mass_expiry_after_outage")
async def test_workers_keep_a_full_grace_when_nobody_dispatched_for_long(cloud, standby):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()
    await on_disk(cloud, attempt)
    cloud.clock.advance(3600)

    await take_over(cloud, standby)
    await standby.advance(29)
    await worker.connect(attempt, on=standby)
    worker.succeed(attempt, b"1")

    assert (await outcome_of(standby, job.job)).status is JobStatus.SUCCEEDED


async def test_a_dispatcher_that_was_frozen_writes_no_grant_and_serves_on_as_a_standby(cloud, standby):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    cloud.is_frozen = True
    cloud.clock.advance(6)
    async with standby.inner.database.system_unit() as unit:
        await unit.execute("UPDATE dispatcher SET expires_at = clock_timestamp()")
    await standby.inner.upkeep.role()

    call = await cloud.spawn(blocking=True)
    await call.accepted
    await cloud.inner.upkeep.role()
    other = await ScriptedWorker(standby, name="other").connect()
    await standby.inner.recovery.sweep()
    other.succeed(await other.take(), b"1")

    assert not [name for name, _ in worker.received if name == "assign"]
    assert worker.close_code == "unavailable"
    assert cloud.inner.board.term is None
    assert (await ended(call)).status is JobStatus.SUCCEEDED


async def test_a_grant_under_an_old_term_is_refused_and_the_job_runs_once(cloud, standby):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    async with standby.inner.database.system_unit() as unit:
        await unit.execute("UPDATE dispatcher SET expires_at = clock_timestamp()")
    await standby.inner.upkeep.role()
    await standby.inner.recovery.sweep()

    job = await cloud.spawn()  # this process still takes itself for the dispatcher
    await cloud.inner.upkeep.role()
    other = await ScriptedWorker(standby, name="other").connect()
    await standby.inner.recovery.sweep()
    other.succeed(await other.take(), b"1")

    assert (await ended(job)).status is JobStatus.SUCCEEDED
    assert not [name for name, _ in worker.received if name == "assign"]


async def test_a_stop_in_good_order_hands_the_role_over_at_once(cloud, standby):
    await cloud.deploy()
    job = await cloud.spawn()

    await cloud.inner.drain()
    await standby.inner.upkeep.role()
    await standby.inner.recovery.sweep()
    worker = await ScriptedWorker(standby).connect()
    worker.succeed(await worker.take())

    assert (await ended(job)).status is JobStatus.SUCCEEDED
    with pytest.raises(Unavailable):
        await cloud.spawn()


async def _watched(cloud, job):
    watch = await cloud.services.streams.watch(cloud.actor, StreamRef(StreamKind.JOB, job))
    seen, after = [], -1
    try:
        while True:
            batch = await watch.next(after, timeout_s=10)
            seen += [(event.index, event.kind) for event in batch.events]
            after = batch.last_index
            if batch.is_final:
                return seen
    finally:
        watch.close()


@guarantee("G1.4", "manual_retry_new_id")
async def test_a_job_is_retried_through_the_standby(cloud, standby):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    first = await cloud.spawn()
    worker.fail(await worker.take())
    await ended(first)

    second = await standby.services.jobs.retry(cloud.actor, first.job)
    await second.accepted
    attempt = await worker.take()
    worker.succeed(attempt)
    await ended(second)

    assert attempt.job == second.job != first.job
    assert (await cloud.services.jobs.get(cloud.actor, second.job)).job.retry_of == first.job


@guarantee("G1.2", "no_stuck_jobs")
async def test_a_row_that_is_older_than_what_memory_has_begun_to_write_replaces_nothing(cloud, standby):
    await cloud.deploy()
    await deaf(cloud)
    worker = await ScriptedWorker(cloud).connect()
    call = await standby.spawn()
    await call.accepted
    granting, go_on = asyncio.Event(), asyncio.Event()

    async def hold(point):
        if point == "writer.taken":
            granting.set()
            await go_on.wait()

    remove = failpoints.install(hold)
    cloud.inner.board.look_at(call.job)  # adopted and granted; the grant is not committed
    await granting.wait()
    cloud.inner.board.reload(call.job)  # as a request does that looked for the job just before
    await cloud.inner.upkeep.reload()
    remove()
    go_on.set()
    assignment = await worker.take()
    worker.succeed(assignment)
    outcome = await ended(call)

    assert (assignment.job, assignment.fence) == (call.job, 1)
    assert (outcome.status, outcome.attempt) == (JobStatus.SUCCEEDED, 1)
    assert worker.close_code is None


@guarantee("G2.7", "slots_never_exceeded")
async def test_an_end_that_is_written_after_the_role_was_lost_and_taken_again_leaves_no_slot(cloud):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    await cloud.spawn()
    assignment = await worker.take()
    await on_disk(cloud, assignment)
    ending, go_on = asyncio.Event(), asyncio.Event()

    async def hold(point):
        if point == "writer.taken":
            ending.set()
            await go_on.wait()

    remove = failpoints.install(hold)
    worker.succeed(assignment)
    await ending.wait()
    async with cloud.inner.database.system_unit() as unit:
        await unit.execute("UPDATE dispatcher SET term = term + 1, expires_at = clock_timestamp()")
    await cloud.inner.upkeep.role()
    await cloud.inner.recovery.sweep()
    await worker.connect(assignment)
    remove()
    go_on.set()
    await cloud.settle()

    assert cloud.inner.board.dispatches
    assert cloud.inner.board.jobs == {}
    assert all(runner.is_idle for runner in cloud.inner.board.fleet.runners.values())


async def test_a_cancel_of_a_job_that_has_ended_elsewhere_answers_its_end(cloud, standby):
    await cloud.deploy()
    await deaf(cloud)
    call = await cloud.spawn()
    await standby.services.jobs.cancel(cloud.actor, call.job)

    answer = await cloud.services.jobs.cancel(cloud.actor, call.job)

    assert answer is JobStatus.CANCELLED
    assert (await ended(call)).status is JobStatus.CANCELLED


async def test_the_outcome_of_a_job_that_ends_while_it_is_read_is_its_end(cloud, standby):
    await cloud.deploy()
    await cloud.stop_loops()
    call = await standby.spawn()
    await call.accepted
    asked = asyncio.ensure_future(cloud.services.jobs.outcome(cloud.actor, call.job))
    async with asyncio.timeout(10):
        while call.job not in cloud.inner.board.to_reload:
            await cloud.settle()
    await standby.services.jobs.cancel(cloud.actor, call.job)
    await cloud.inner.upkeep.reload()

    assert (await asked).status is JobStatus.CANCELLED
