"""What clients are told is on disk, and what a restart server does not see yet still has its place."""

import asyncio
from dataclasses import replace

import pytest

from apothic.wire.functions import FunctionSpec
from apothic.wire.link import Started
from apothic_server import failpoints
from apothic_server.domain.errors import Unavailable
from apothic_server.domain.jobs import JobEvent, JobStatus
from apothic_server.services.dispatch.hints import Hints
from apothic_server.services.dispatch.records import move
from apothic_server.testing.cloud import ScriptedWorker, ended
from apothic_server.testing.guarantees import guarantee
from apothic_server.testing.maps import start_map

pytestmark = pytest.mark.anyio


@pytest.fixture
def disk():
    """A disk that is held before a flush, and let go or found broken."""
    go, held, is_holding, is_broken = asyncio.Event(), asyncio.Event(), False, False

    async def handler(name):
        if is_holding and name == "writer.taken":
            held.set()
            await go.wait()
        if is_broken and name == "writer.taken":
            raise OverflowError("a failure of the test")

    class Disk:
        wait_held = held.wait

        def hold(self):
            nonlocal is_holding
            is_holding = True

        def let_go(self):
            nonlocal is_holding
            is_holding = False
            go.set()

        def fail(self, *, fails=True):
            nonlocal is_broken
            is_broken = fails
            self.let_go()

    take_away = failpoints.install(handler)
    yield Disk()
    take_away()


async def both_wait(*asked):
    """Return whether none of these is answered although the loop had every chance."""
    for _ in range(20):
        await asyncio.sleep(0)
    return not any(task.done() for task in asked)


@guarantee("G4.1", "cancel_linearizable")
async def test_a_second_cancel_is_answered_no_sooner_than_the_first_is_on_disk(cloud, disk):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    await worker.take()
    disk.hold()

    first, second = (asyncio.ensure_future(cloud.services.jobs.cancel(cloud.actor, job.job)) for _ in range(2))
    await disk.wait_held()
    waited = await both_wait(first, second)
    disk.let_go()

    assert waited
    assert await asyncio.gather(first, second) == [JobStatus.CANCELLING] * 2


async def test_news_of_a_commit_reach_all_listeners_although_one_of_them_fails():
    told = []

    def changed(stream):
        told.append(stream)
        assert stream != "second", "a failure of the test"

    hints = Hints(changed=changed)
    for stream in ("first", "second", "first", "third"):
        hints.committed(stream)
    await asyncio.sleep(0)

    assert told == ["first", "second", "third"]


async def test_a_worker_keeps_an_end_until_it_is_on_disk(cloud, disk):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", at_most_once=True))
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()
    disk.hold()

    worker.succeed(attempt, b"42")
    await disk.wait_held()
    await worker.heartbeat(attempt)
    beaten = await worker.next("heartbeat_answer")
    await worker.connect(attempt)
    greeted = await worker.next("welcome")
    worker.succeed(attempt, b"42")
    told = [name for name, _ in worker.received]
    disk.fail()
    await asyncio.wait([cloud.inner.board.jobs[job.job].written])
    disk.fail(fails=False)
    await cloud.step()
    closed = worker.close_code
    await worker.connect(attempt)
    worker.report({"started": [Started(attempt.job, attempt.fence)]})
    worker.succeed(attempt, b"42")
    outcome = await ended(job)

    assert (beaten.unknown, greeted.unknown) == ([], [])
    assert "settled" not in told
    assert closed == "unavailable"
    assert (outcome.status, outcome.value.data, outcome.attempt) == (JobStatus.SUCCEEDED, b"42", 1)


async def test_an_end_that_is_on_disk_is_forgotten_by_its_worker(cloud):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()
    worker.fail(attempt)
    await ended(job)

    await worker.heartbeat(attempt)

    answer = await worker.next("heartbeat_answer")
    assert [(ref.job, ref.fence) for ref in answer.unknown] == [(job.job, attempt.fence)]


@guarantee("G4.1", "cancel_linearizable")
async def test_a_cancel_during_the_end_waits_for_the_end_and_answers_it(cloud, disk):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()
    disk.hold()

    worker.succeed(attempt)
    await disk.wait_held()
    cancel = asyncio.ensure_future(cloud.services.jobs.cancel(cloud.actor, job.job))
    waited = await both_wait(cancel)
    disk.let_go()

    assert waited
    assert await cancel is JobStatus.SUCCEEDED
    assert (await ended(job)).status is JobStatus.SUCCEEDED


async def test_a_second_cancel_of_a_queued_job_answers_cancelled(cloud, disk):
    await cloud.deploy()
    job = await cloud.spawn()
    disk.hold()

    asked = [asyncio.ensure_future(cloud.services.jobs.cancel(cloud.actor, job.job)) for _ in range(2)]
    await disk.wait_held()
    waited = await both_wait(*asked)
    disk.let_go()

    assert waited
    assert await asyncio.gather(*asked) == [JobStatus.CANCELLED] * 2


@guarantee("G2.7", "slots_never_exceeded")
async def test_a_runner_whose_worker_is_still_away_after_a_restart_counts(cloud, restart):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", max_containers=1))
    away = await ScriptedWorker(cloud, name="away").connect()
    running = await cloud.spawn()
    attempt = await away.take()
    await restart()

    other = await ScriptedWorker(cloud, name="other").connect()
    waiting = await cloud.spawn()
    granted_early = [name for name, _ in other.received if name == "assign"]
    await away.connect(attempt)
    away.succeed(attempt)
    outcome = await cloud.services.jobs.outcome(cloud.actor, running.job)
    next_one = await away.take()

    assert granted_early == []
    assert (await _end_of(outcome)).status is JobStatus.SUCCEEDED
    assert next_one.job == waiting.job


@guarantee("G2.7", "slots_never_exceeded")
async def test_an_idle_runner_that_lost_its_place_while_its_worker_was_away_is_ended(cloud, restart):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", max_containers=1))
    away = await ScriptedWorker(cloud, name="away").connect()
    first = await cloud.spawn()
    attempt = await away.take()
    away.succeed(attempt)
    await ended(first)
    await restart()

    other = await ScriptedWorker(cloud, name="other").connect()
    await cloud.spawn()
    taken = await other.take()
    await away.connect(idle=[attempt.runner])
    welcome = await away.next("welcome")
    third = await cloud.spawn()

    assert welcome.unknown_runners == [attempt.runner]
    assert await cloud.status(third.job) == "queued"
    other.succeed(taken)
    assert (await other.take()).job == third.job


async def test_who_waits_for_a_row_that_cannot_be_read_is_answered(cloud):
    await cloud.deploy()
    broken, sound = await cloud.spawn(), await cloud.spawn()
    await cloud.settle()
    board = cloud.inner.board
    async with cloud.inner.database.system_unit() as unit:
        await unit.execute(
            "UPDATE jobs SET status = 'cancelled', path = 'qC', error = '[]', finished_at = now() WHERE id = $1",
            broken.job,
        )
    waiters = []
    for job in (broken.job, sound.job):
        board.reload(job)
        waiters.append(board.reloaded(job))

    with pytest.raises(AttributeError):
        await cloud.inner.upkeep.reload()
    await cloud.inner.upkeep.reload()

    assert isinstance(waiters[0].exception(), Unavailable)
    assert waiters[1].result() is board.jobs[sound.job].outcome
    assert not board.to_reload


async def test_a_job_whose_move_could_not_be_queued_is_read_again(cloud):
    await cloud.deploy()
    await ScriptedWorker(cloud).connect()
    call = await cloud.spawn()
    await cloud.settle()
    board = cloud.inner.board
    job = board.jobs[call.job]
    change = move(job, JobEvent.STARTED, cloud.clock.now())

    with pytest.raises(AttributeError):
        board.write_quietly(replace(change, fields=None), job)
    await cloud.inner.upkeep.reload()

    assert job.told == job.moves
    assert board.jobs[call.job].status is JobStatus.STARTING
    assert not board.to_reload


async def _end_of(found):
    return await asyncio.wait_for(asyncio.shield(found), 10) if asyncio.isfuture(found) else found


@guarantee("G2.1", "overlap_only_when_frozen")
async def test_an_item_of_a_map_leaves_only_after_its_grant_is_on_disk(cloud, disk):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    disk.hold()
    await start_map(cloud, 1)
    await disk.wait_held()
    for _ in range(20):
        await asyncio.sleep(0)
    left_early = [name for name, _ in worker.received if name == "assign"]
    disk.let_go()
    assign = await worker.take()

    assert left_early == []
    assert assign.attempt == 1
