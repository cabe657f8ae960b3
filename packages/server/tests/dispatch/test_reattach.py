"""A worker comes back to a server that was started again: what both sides have goes on, the rest is repaired."""

import asyncio
import dataclasses

import pytest

from apothic.wire.functions import FunctionSpec
from apothic.wire.ids import new_key
from apothic.wire.link import HeldAttempt, RunnerRef, Started
from apothic_server.bootstrap import Cloud, Sources
from apothic_server.domain.errors import Invalid
from apothic_server.domain.jobs import JobStatus
from apothic_server.services.links import HELD_MAX, RUNNERS_MAX
from apothic_server.testing.cloud import CloudUnderTest, ScriptedWorker, ended
from apothic_server.testing.guarantees import guarantee

pytestmark = pytest.mark.anyio


@pytest.fixture
async def restarted(cloud, postgres, tmp_path):
    """Return a function that stops the cloud and starts another process on its store, before or without a sweep."""
    started: list[Cloud] = []

    async def restart(*, is_swept: bool = True) -> CloudUnderTest:
        await cloud.inner.stop()
        sources = Sources(clock=cloud.clock, random=lambda: 0.0)
        inner = Cloud(postgres, tmp_path, url="http://second.test", sources=sources)
        started.append(inner)
        await inner.start(run_loops=False)
        if not is_swept:  # as when the role is taken while a worker dials in
            inner.board.jobs.clear()
        cloud.inner = inner
        return cloud

    yield restart
    for inner in started:
        await inner.stop()


async def outcome_of(cloud, job):
    found = await cloud.services.jobs.outcome(cloud.actor, job)
    return await asyncio.wait_for(asyncio.shield(found), 10) if isinstance(found, asyncio.Future) else found


@guarantee("G3.5", "no_mass_expiry_after_outage")
@pytest.mark.parametrize("is_swept", [True, False], ids=["swept before the hello", "swept after the hello"])
async def test_running_attempts_go_on_when_their_worker_comes_back(cloud, restarted, is_swept):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", tasks_per_container=2))
    worker = await ScriptedWorker(cloud).connect()
    jobs = [await cloud.spawn() for _ in range(2)]
    attempts = [await worker.take() for _ in jobs]
    await restarted(is_swept=is_swept)
    worker.received.clear()

    await worker.connect(*attempts)
    await cloud.advance(20)
    worker.log(attempts[0], "still here")
    for attempt in attempts:
        worker.succeed(attempt, b"1")
    outcomes = [await outcome_of(cloud, job.job) for job in jobs]

    assert [(outcome.status, outcome.attempt) for outcome in outcomes] == [(JobStatus.SUCCEEDED, 1)] * 2
    assert [kind for _, kind in await cloud.events(attempts[0].job)].count("job.log") == 1
    assert not [name for name, _ in worker.received if name in ("assign", "start_runner", "cancel")]


async def test_a_start_that_was_not_on_disk_is_told_again_and_the_attempt_goes_on(cloud, restarted):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.next("assign")
    await restarted()

    await worker.connect(attempt)
    worker.report({"started": [Started(attempt.job, attempt.fence)]})
    worker.succeed(attempt)

    assert (await outcome_of(cloud, job.job)).attempt == 1


async def test_an_end_that_was_not_settled_is_taken_though_its_runner_is_gone(cloud, restarted):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()
    await restarted()

    await worker.greet([HeldAttempt(attempt.job, attempt.fence, attempt.runner)], [])
    worker.succeed(attempt, b"7")
    outcome = await outcome_of(cloud, job.job)
    settled = await worker.next("settled")

    assert (outcome.status, outcome.attempt, outcome.value.data) == (JobStatus.SUCCEEDED, 1, b"7")
    assert (settled.job, settled.fence) == (attempt.job, attempt.fence)


async def test_an_end_that_never_comes_is_given_back_at_the_first_heartbeat(cloud, restarted):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    await cloud.spawn()
    attempt = await worker.take()
    await restarted()
    await worker.greet([HeldAttempt(attempt.job, attempt.fence, attempt.runner)], [])

    await worker.heartbeat(attempt)
    answer = await worker.next("heartbeat_answer")
    again = await worker.take()

    assert [(ref.job, ref.fence) for ref in answer.unknown] == [(attempt.job, attempt.fence)]
    assert again.attempt == 2


@guarantee("G2.6", "lost_grant_reply")
@pytest.mark.parametrize("is_swept", [True, False], ids=["swept before the hello", "swept after the hello"])
async def test_what_the_worker_no_longer_has_is_given_back_at_once(cloud, restarted, is_swept):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    await cloud.spawn()
    lost = await worker.take()
    await restarted(is_swept=is_swept)
    worker.received.clear()

    await worker.connect()
    await cloud.inner.recovery.sweep()
    if worker.close_code == "unavailable":
        await worker.connect()
    again = await worker.take()

    assert (again.job, again.attempt, again.fence) == (lost.job, 2, lost.fence + 1)
    assert (worker.close_code is None) is is_swept


async def test_attempts_that_are_not_this_workers_are_told_unknown(cloud, restarted):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()
    await restarted()
    refs = [
        HeldAttempt(attempt.job, attempt.fence + 1, attempt.runner),
        HeldAttempt(new_key(), 1, attempt.runner),
        HeldAttempt("../../x", 1, ""),
    ]

    thief = ScriptedWorker(cloud, name="thief")
    thief.started = worker.started
    await thief.greet([*refs, HeldAttempt(attempt.job, attempt.fence, attempt.runner)], [])
    unknown_to_thief = (await thief.next("welcome")).unknown
    await worker.greet(
        [*refs, HeldAttempt(attempt.job, attempt.fence, attempt.runner)], [worker.described(attempt.runner)]
    )
    unknown = (await worker.next("welcome")).unknown
    worker.succeed(attempt)

    assert len(unknown_to_thief) == 4
    assert [(ref.job, ref.fence) for ref in unknown] == [(ref.job, ref.fence) for ref in refs]
    assert (await outcome_of(cloud, job.job)).attempt == 1


async def test_an_idle_runner_stays_warm_for_the_next_call(cloud, restarted):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    first = await worker.take()
    worker.succeed(first)
    await ended(job)
    await restarted()
    worker.received.clear()

    await worker.connect(idle=[first.runner])
    await cloud.spawn()
    second = await worker.take()

    assert second.runner == first.runner
    assert not [name for name, _ in worker.received if name == "start_runner"]


LIES = {
    "of another org": {"org": "other"},
    "of another deployment": {"deployment": "other"},
    "of no function": {"function": "none"},
    "with too few processors": {"cpu": 0},
    "with more memory": {"memory_mb": 1 << 40},
    "with more tasks": {"tasks": 1_000},
    "without a name": {"runner": ""},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
async def test_a_runner_that_cannot_be_ours_is_ended_and_its_attempt_is_given_back(cloud, restarted, lie):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()
    await restarted()
    told = dataclasses.replace(worker.described(attempt.runner), **lie)

    await worker.greet([HeldAttempt(attempt.job, attempt.fence, told.runner)], [told])
    welcome = await worker.next("welcome")
    await worker.heartbeat(attempt)
    again = await worker.take()
    worker.succeed(again)

    assert welcome.unknown_runners == [told.runner]
    assert (await outcome_of(cloud, job.job)).attempt == 2


@guarantee("G2.7", "slots_never_exceeded")
async def test_a_runner_that_executes_what_was_never_recorded_takes_no_place(cloud, restarted):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", max_containers=1))
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()
    await restarted()
    other = ScriptedWorker(cloud, name="other")
    unrecorded = dataclasses.replace(worker.described(attempt.runner), runner=new_key())

    await other.greet([HeldAttempt(new_key(), 1, unrecorded.runner)], [unrecorded])
    welcome = await other.next("welcome")
    await worker.connect(attempt)
    worker.succeed(attempt)

    assert welcome.unknown_runners == [unrecorded.runner]
    assert (await outcome_of(cloud, job.job)).attempt == 1


async def test_an_attempt_in_a_runner_of_another_function_is_given_back(cloud, restarted):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work"), FunctionSpec("rest", qualname="rest"))
    worker = await ScriptedWorker(cloud).connect()
    await cloud.spawn()
    mine = await worker.take()
    other = await cloud.spawn("rest")
    attempt = await worker.take()
    await restarted()

    lying = HeldAttempt(attempt.job, attempt.fence, mine.runner)
    await worker.greet([HeldAttempt(mine.job, mine.fence, mine.runner), lying], [worker.described(mine.runner)])
    welcome = await worker.next("welcome")
    again = await worker.take()

    assert [(ref.job, ref.fence) for ref in welcome.unknown] == [(attempt.job, attempt.fence)]
    assert (again.job, again.attempt) == (other.job, 2)


async def test_a_hello_beyond_all_bounds_is_refused(cloud):
    worker = ScriptedWorker(cloud)
    runner = RunnerRef(new_key(), "o", "d", "f", 1, 256, 1)
    for held, runners in (([HeldAttempt("j", 1, "r")] * (HELD_MAX + 1), []), ([], [runner] * (RUNNERS_MAX + 1))):
        with pytest.raises(Invalid, match="more attempts, runners or starts"):
            await worker.greet(held, runners)

    assert cloud.inner.board.fleet.workers == {}


async def test_a_cancel_that_did_not_arrive_is_said_again(cloud, restarted):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()
    await cloud.services.jobs.cancel(cloud.actor, job.job)
    await restarted()
    worker.received.clear()

    await worker.connect(attempt)
    order = await worker.next("cancel")
    worker.fail(attempt, outcome="cancelled")

    assert (order.job, order.fence) == (attempt.job, attempt.fence)
    assert (await outcome_of(cloud, job.job)).status is JobStatus.CANCELLED
