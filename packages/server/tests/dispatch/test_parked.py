"""What a runner that waits lends, who is told, and grants that never reached user code (G2.2, G2.7)."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from apothic.wire.attempts import ATTEMPT_HEADER
from apothic.wire.functions import FunctionSpec
from apothic.wire.link import Finished, Lent, RunnerEnded
from apothic.wire.tokens import AttemptName, attempt_token
from apothic.wire.values import RemoteError, Value
from apothic_server.domain.jobs import JobStatus
from apothic_server.testing.asgi import AsgiClient
from apothic_server.testing.cloud import ScriptedWorker, ended
from apothic_server.testing.guarantees import guarantee

pytestmark = pytest.mark.anyio


def function(name, **options):
    return FunctionSpec(name, qualname=name, **{"memory_mb": 256, "max_containers": 4, **options})


def headers_of(cloud, worker, attempt):
    """What the worker adds to the requests of an attempt's code."""
    token = attempt_token(cloud.services.attempts.key_of(worker.incarnation), attempt.job, attempt.fence)
    name = AttemptName(worker.incarnation, attempt.job, attempt.fence)
    return {"authorization": f"Bearer {token}", ATTEMPT_HEADER.lower(): str(name)}


@asynccontextmanager
async def parent(cloud, *, cpus=1):
    """Yield a worker, a running parent, its code as a caller, and a job that the code spawned."""
    await cloud.deploy("shop", function("outer"), function("inner"))
    worker = await ScriptedWorker(cloud, cpus=cpus).connect()
    await cloud.spawn("outer")
    outer = await worker.take()
    headers = headers_of(cloud, worker, outer)
    code = await cloud.services.authenticate(headers["authorization"][7:], headers[ATTEMPT_HEADER.lower()])
    child = await cloud.services.jobs.submit(code, ("shop", "inner"), Value("json", b"[[],{}]"), blocking=False)
    await child.accepted
    yield worker, outer, code, child


@guarantee("G2.7", "nested_calls_no_deadlock")
@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
async def test_a_parent_that_follows_its_child_lends_the_only_processor_and_takes_it_back(cloud, accept):
    async with parent(cloud) as (worker, outer, _, child):
        headers = {**headers_of(cloud, worker, outer), "accept": accept}
        path = f"/v1/jobs/jobs:{child.job}/events?wait_s=60&types=job.end"
        reading = asyncio.ensure_future(AsgiClient(cloud.asgi).request("GET", path, headers=headers))
        inner = await worker.take()
        lent = worker.worker.cpus_free
        worker.succeed(inner)
        await ended(child)
        async with asyncio.timeout(10):
            read = await reading

    assert (inner.job, lent) == (child.job, 0)
    assert (read.status, b"succeeded" in read.body) == (200, True)
    assert worker.worker.cpus_free == 0
    assert not any(kind == "lent" for kind, _ in worker.received), "who follows may compute between two events"


async def test_a_cancel_of_who_follows_leaves_the_job_alone(cloud):
    async with parent(cloud, cpus=2) as (worker, outer, code, child):
        await worker.take()
        cloud.services.jobs.follow(code, child.job)
        await cloud.services.jobs.cancel(cloud.actor, outer.job)
        told = await worker.next("cancel")

    assert told.job == outer.job
    assert cloud.inner.board.jobs[child.job].status is JobStatus.RUNNING


@guarantee("G2.7", "slots_never_exceeded")
async def test_a_worker_is_told_when_processors_are_lent_and_when_no_more(cloud):
    async with parent(cloud) as (worker, outer, code, child):
        leave = cloud.services.jobs.attend(code, child.job)
        lent = await worker.next("lent")
        leave()
        back = await worker.next("lent")
        cloud.services.jobs.attend(code, child.job)
        worker.disconnect()
        inner = cloud.inner.board.jobs[child.job]
        await worker.greet([], [])
        gone = [item for kind, item in worker.received if kind == "lent"]

    assert lent == Lent(outer.runner, is_lent=True)
    assert back == Lent(outer.runner, is_lent=False)
    assert inner.parent == outer.job
    assert gone[-1:] in ([], [Lent(outer.runner, is_lent=True)])


@guarantee("G2.7", "slots_never_exceeded")
async def test_a_new_link_is_told_anew_whose_processors_are_lent(cloud):
    async with parent(cloud) as (worker, outer, code, child):
        cloud.services.jobs.attend(code, child.job)
        inner = await worker.take()
        worker.disconnect()
        worker.received.clear()
        await worker.connect(outer, inner)
        kinds = [kind for kind, _ in worker.received]

    assert (await worker.next("lent")) == Lent(outer.runner, is_lent=True)
    assert kinds.index("welcome") < kinds.index("lent")


@guarantee("G2.7", "nested_calls_no_deadlock")
async def test_over_a_restart_a_caller_waits_on_and_lends_its_processor_again(cloud, restart):
    async with parent(cloud) as (worker, outer, code, child):
        leave = cloud.services.jobs.attend(code, child.job)
        inner = await worker.take()
        leave()
        await cloud.settle()
        await restart()
        headers = headers_of(cloud, worker, outer)
        again = await cloud.services.authenticate(headers["authorization"][7:], headers[ATTEMPT_HEADER.lower()])
        future = await cloud.services.jobs.outcome(again, child.job)
        cloud.services.jobs.attend(again, child.job)
        await worker.connect(outer, inner)
        lent = worker.worker.cpus_free
        nested = await cloud.services.jobs.submit(again, ("shop", "inner"), Value("json", b"[[],{}]"), blocking=True)
        worker.succeed(inner)
        outcome = await asyncio.wait_for(asyncio.shield(future), 10)
        third = await worker.take()

    assert (outcome.status, lent, third.job) == (JobStatus.SUCCEEDED, 0, nested.job)


def never_started(worker, attempt):
    error = RemoteError("apothic.WorkerLost", "the runner ended before the call", code="worker_lost")
    worker.report(
        {
            "finished": [Finished(attempt.job, attempt.fence, "lost", None, error, never_started=True)],
            "runner_ended": [RunnerEnded(attempt.runner, "exited")],
        }
    )


@guarantee("G2.2", "at_most_once_no_second_grant")
@guarantee("G2.3", "budgets_separate")
@pytest.mark.parametrize("options", [{"at_most_once": True}, {"max_retries": 2}])
async def test_a_grant_that_never_reached_user_code_costs_nothing(cloud, options):
    await cloud.deploy("shop", function("work", **options))
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    grants = []
    for _ in range(8):
        grants.append(await worker.next("assign"))
        never_started(worker, grants[-1])
    last = await worker.take()
    losses = cloud.inner.board.jobs[job.job].losses
    worker.succeed(last)
    outcome = await ended(job)

    assert (outcome.status, outcome.attempt, losses) == (JobStatus.SUCCEEDED, 1, 0)
    assert [grant.attempt for grant in grants] == [1] * 8
    assert len({grant.fence for grant in grants} | {last.fence}) == 9
    assert last.runner not in {grant.runner for grant in grants}


@guarantee("G2.2", "at_most_once_no_second_grant")
async def test_workers_that_never_start_a_call_do_not_get_it_for_ever(cloud):
    await cloud.deploy("shop", function("work", at_most_once=True))
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    for _ in range(9):
        never_started(worker, await worker.next("assign"))
    outcome = await ended(job)

    assert (outcome.status, outcome.error.code) == (JobStatus.FAILED, "worker_lost")


@guarantee("G2.2", "at_most_once_no_second_grant")
async def test_a_worker_that_said_started_cannot_say_that_it_never_did(cloud):
    await cloud.deploy("shop", function("work", at_most_once=True))
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    never_started(worker, await worker.take())
    outcome = await ended(job)

    assert (outcome.status, outcome.error.code) == (JobStatus.FAILED, "worker_lost")


async def test_two_grants_of_a_job_never_have_the_same_fence_though_the_store_has_none(cloud):
    """The frame of a blocking call leaves before the store refuses its grant; the row is read, and granted again."""
    await cloud.deploy("shop", function("work"))
    worker = await ScriptedWorker(cloud, cpus=1).connect()
    async with cloud.inner.database.system_unit() as unit:
        await unit.execute("UPDATE dispatcher SET term = term + 1")
    await (await cloud.spawn(blocking=True)).accepted
    first = await worker.next("assign")
    async with asyncio.timeout(10):
        while not cloud.inner.board.to_reload:
            await cloud.settle()
    await cloud.inner.recovery.reload_requested()

    assert first.fence == 1
    assert cloud.inner.board.jobs[first.job].fence == 2
