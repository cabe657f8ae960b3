"""Jobs called by jobs: who waits, what is lent meanwhile, what ends together (G2.7)."""

import pytest

from apothic.wire.functions import FunctionSpec
from apothic.wire.link import RunnerEnded
from apothic.wire.tokens import AttemptName, attempt_token
from apothic.wire.values import Value
from apothic_server.bootstrap import Cloud, Sources
from apothic_server.domain.decide import company
from apothic_server.domain.errors import Conflict, Fenced, Invalid, Unavailable
from apothic_server.domain.jobs import JobStatus
from apothic_server.services.links import GRACE_S
from apothic_server.testing.cloud import ScriptedWorker, ended
from apothic_server.testing.guarantees import guarantee

pytestmark = pytest.mark.anyio

NOTHING = Value("json", b"[[],{}]")


def function(name, **options):
    return FunctionSpec(name, qualname=name, **{"memory_mb": 256, "max_containers": 4, **options})


async def calling(cloud, worker, attempt):
    """Return the actor that the code of an attempt is."""
    key = cloud.services.attempts.key_of(worker.incarnation)
    name = AttemptName(worker.incarnation, attempt.job, attempt.fence)
    return await cloud.services.authenticate(attempt_token(key, attempt.job, attempt.fence), str(name))


async def call(cloud, actor, name, *, blocking=True):
    return await cloud.services.jobs.submit(actor, ("shop", name), NOTHING, blocking=blocking)


async def parent_and_child(cloud, worker, *, blocking=True):
    """Return a running parent with its attempt, its code, and a child of it with its attempt."""
    parent = await cloud.spawn("outer")
    outer = await worker.take()
    code = await calling(cloud, worker, outer)
    child = await call(cloud, code, "inner", blocking=blocking)
    inner = await worker.take()
    return parent, outer, code, child, inner


@guarantee("G2.7", "nested_calls_no_deadlock")
async def test_a_parent_that_waits_lends_its_processor_and_no_other_does(cloud):
    await cloud.deploy("shop", function("outer"), function("inner"))
    worker = await ScriptedWorker(cloud, cpus=1).connect()
    await cloud.spawn("outer")
    outer = await worker.take()
    code = await calling(cloud, worker, outer)

    spawned = await call(cloud, code, "inner", blocking=False)
    await spawned.accepted
    assert await cloud.status(spawned.job) == "queued"
    waited = await call(cloud, code, "inner")
    first = await worker.take()
    worker.succeed(first)
    await ended(spawned)
    worker.succeed(await worker.take())
    await ended(waited)
    later = await cloud.spawn("inner")

    assert first.job == spawned.job
    assert await cloud.status(later.job) == "queued"
    worker.succeed(outer)
    assert (await worker.take()).job == later.job


@guarantee("G2.7", "nested_calls_no_deadlock")
async def test_a_parent_goes_on_beside_the_work_that_borrowed_its_processor(cloud):
    await cloud.deploy("shop", function("outer"), function("inner"), function("other"))
    worker = await ScriptedWorker(cloud, cpus=1).connect()
    _, outer, _, child, inner = await parent_and_child(cloud, worker)
    borrower = await cloud.spawn("other")

    worker.succeed(inner)
    await ended(child)
    taken = await worker.take()
    free = worker.worker.cpus_free
    worker.succeed(outer)
    worker.succeed(taken)
    await ended(borrower)

    assert taken.job == borrower.job
    assert free == -1
    assert worker.worker.cpus_free == 1


async def test_a_wait_for_a_spawned_job_parks_until_it_is_left(cloud):
    await cloud.deploy("shop", function("outer"), function("inner"))
    worker = await ScriptedWorker(cloud, cpus=1).connect()
    await cloud.spawn("outer")
    code = await calling(cloud, worker, await worker.take())
    child = await call(cloud, code, "inner", blocking=False)
    await child.accepted

    leave = cloud.services.jobs.attend(code, child.job)
    inner = await worker.take()
    parked = worker.worker.cpus_free
    leave()
    leave()

    assert (inner.job, parked, worker.worker.cpus_free) == (child.job, 0, -1)


async def test_only_a_runner_whose_calls_all_wait_is_parked(cloud):
    await cloud.deploy("shop", function("outer", tasks_per_container=2), function("inner"))
    worker = await ScriptedWorker(cloud, cpus=1).connect()
    await cloud.spawn("outer")
    await cloud.spawn("outer")
    first, second = await worker.take(), await worker.take()
    code = await calling(cloud, worker, first)

    child = await call(cloud, code, "inner")
    busy = worker.worker.cpus_free
    worker.succeed(second)
    inner = await worker.take()

    assert first.runner == second.runner
    assert (busy, inner.job) == (0, child.job)


@guarantee("G2.7", "slots_never_leak")
@pytest.mark.parametrize("end", ["succeeded", "failed", "lost worker", "cancelled", "ended runner"])
async def test_however_a_parked_parent_ends_nothing_of_it_is_counted_any_more(cloud, end):
    await cloud.deploy("shop", function("outer"), function("inner"))
    worker = await ScriptedWorker(cloud, cpus=2).connect()
    parent, outer, _, child, inner = await parent_and_child(cloud, worker)

    if end == "lost worker":
        worker.disconnect()
        await cloud.advance(GRACE_S + 3)
        worker = await ScriptedWorker(cloud, name="other", cpus=2).connect()
    elif end == "cancelled":
        await cloud.services.jobs.cancel(cloud.actor, parent.job)
        worker.fail(outer, outcome="cancelled")
        worker.fail(inner, outcome="cancelled")
    elif end == "ended runner":
        worker.fail(outer, outcome="lost")
        worker.report({"runner_ended": [RunnerEnded(outer.runner, "died")]})
        worker.fail(inner, outcome="cancelled")
    else:
        (worker.succeed if end == "succeeded" else worker.fail)(outer)
        worker.fail(inner, outcome="cancelled")
    await cloud.advance(2)
    if end in ("lost worker", "ended runner"):
        worker.succeed(await worker.take())
    await ended(parent)
    await ended(child)

    assert await cloud.status(child.job) == "cancelled"
    assert worker.worker.cpus_free == 2
    assert all(runner.is_idle and not runner.waiting for runner in worker.worker.runners.values())


async def test_cancelling_a_parent_cancels_what_it_waits_for_down_to_the_last_and_nothing_it_spawned(cloud):
    await cloud.deploy("shop", function("outer"), function("inner"), function("innermost"))
    worker = await ScriptedWorker(cloud).connect()
    parent, _, code, child, inner = await parent_and_child(cloud, worker)
    spawned = await call(cloud, code, "inner", blocking=False)
    await worker.take()
    grandchild = await call(cloud, await calling(cloud, worker, inner), "innermost")
    await worker.take()

    await cloud.services.jobs.cancel(cloud.actor, parent.job)
    told = {(await worker.next("cancel")).job for _ in range(3)}

    assert told == {parent.job, child.job, grandchild.job}
    assert cloud.inner.board.jobs[spawned.job].status is JobStatus.RUNNING


async def test_cancelling_a_parent_cancels_a_spawned_job_only_while_it_waits_for_it(cloud):
    await cloud.deploy("shop", function("outer"), function("inner"))
    worker = await ScriptedWorker(cloud).connect()
    parent, _, code, child, _ = await parent_and_child(cloud, worker, blocking=False)
    other = await cloud.spawn("inner")
    await worker.take()
    cloud.services.jobs.attend(code, child.job)
    cloud.services.jobs.attend(code, other.job)

    await cloud.services.jobs.cancel(cloud.actor, parent.job)
    told = {(await worker.next("cancel")).job for _ in range(2)}

    assert told == {parent.job, child.job}
    assert cloud.inner.board.jobs[other.job].status is JobStatus.RUNNING


async def test_a_call_that_was_given_up_goes_on_when_its_caller_succeeds_and_not_when_it_fails(cloud):
    await cloud.deploy("shop", function("outer"), function("inner"))
    worker = await ScriptedWorker(cloud).connect()
    ends = {}
    for end in ("succeed", "fail"):
        parent, outer, _, child, inner = await parent_and_child(cloud, worker)
        child.leave()
        getattr(worker, end)(outer)
        await ended(parent)
        ends[end] = cloud.inner.board.jobs[child.job].status
        worker.succeed(inner)
        await ended(child)

    assert ends == {"succeed": JobStatus.RUNNING, "fail": JobStatus.CANCELLING}


async def test_a_spawned_job_outlives_its_caller(cloud):
    await cloud.deploy("shop", function("outer"), function("inner"))
    worker = await ScriptedWorker(cloud).connect()
    parent, outer, _, child, inner = await parent_and_child(cloud, worker, blocking=False)

    worker.fail(outer)
    await ended(parent)
    worker.succeed(inner)

    assert (await ended(child)).status is JobStatus.SUCCEEDED


async def test_a_call_whose_caller_ended_while_no_server_ran_is_cancelled_by_the_next_one(cloud, postgres, tmp_path):
    await cloud.deploy("shop", function("outer", max_retries=3), function("inner"))
    worker = await ScriptedWorker(cloud).connect()
    parent, _, _, child, _ = await parent_and_child(cloud, worker)
    await child.accepted
    cloud.inner.board.jobs[parent.job].children = None
    second = Cloud(postgres, tmp_path, url="http://second.test", sources=Sources(clock=cloud.clock, random=lambda: 0.0))
    await cloud.inner.writer.stop()
    async with cloud.inner.database.system_unit() as unit:
        await unit.execute("UPDATE jobs SET status = 'retrying', path = 'ry' WHERE id = $1", parent.job)
    await cloud.inner.stop()

    try:
        await second.start(run_loops=False)

        assert second.board.jobs[child.job].status is JobStatus.CANCELLING
    finally:
        await second.stop()


async def test_a_call_whose_callers_grant_is_not_on_disk_yet_is_no_orphan(cloud, monkeypatch):
    await cloud.deploy("shop", function("outer", max_containers=1), function("inner"))
    worker = await ScriptedWorker(cloud).connect()
    calls = [await cloud.spawn("outer", blocking=True) for _ in range(3)]
    for one in calls:
        await one.accepted
    monkeypatch.setattr(company, "PATIENCE_S", 3600.0)
    monkeypatch.setattr(company, "PATIENCE_MAX_S", 3600.0)
    worker.succeed(await worker.take())
    outer = await worker.take()
    child = await call(cloud, await calling(cloud, worker, outer), "inner")
    inner = await worker.take()
    await child.accepted
    before = await cloud.status(outer.job)

    await cloud.step()
    worker.succeed(inner)
    worker.succeed(outer)
    worker.succeed(await worker.take())

    assert before == "queued"
    assert [(await ended(one)).status for one in (child, *calls)] == [JobStatus.SUCCEEDED] * 4


@guarantee("G2.7", "slots_never_leak")
async def test_a_caller_whose_call_the_writer_does_not_take_waits_for_nothing(cloud):
    await cloud.deploy("shop", function("outer"), function("inner"))
    worker = await ScriptedWorker(cloud, cpus=1).connect()
    await cloud.spawn("outer")
    code = await calling(cloud, worker, await worker.take())
    await cloud.inner.writer.stop()

    with pytest.raises(Unavailable):
        await call(cloud, code, "inner")

    assert worker.worker.cpus_free == 0


@guarantee("G2.7", "nested_calls_no_deadlock")
async def test_a_call_of_the_only_place_of_its_caller_fails_at_once_and_leaves_nothing(cloud):
    await cloud.deploy("shop", function("outer", max_containers=1))
    worker = await ScriptedWorker(cloud).connect()
    parent = await cloud.spawn("outer")
    code = await calling(cloud, worker, await worker.take())

    with pytest.raises(Conflict) as caught:
        await call(cloud, code, "outer")
    spawned = await call(cloud, code, "outer", blocking=False)
    with pytest.raises(Conflict) as waited:
        cloud.services.jobs.attend(code, spawned.job)

    assert {caught.value.code, waited.value.code} == {"call_cycle_deadlock"}
    assert cloud.inner.board.jobs.keys() == {parent.job, spawned.job}
    assert worker.worker.cpus_free == 3


@guarantee("G2.7", "nested_calls_no_deadlock")
async def test_a_circle_over_two_functions_is_found_and_one_with_a_free_place_runs(cloud):
    await cloud.deploy("shop", function("outer", max_containers=2), function("inner", max_containers=1))
    worker = await ScriptedWorker(cloud).connect()
    _, _, _, _, inner = await parent_and_child(cloud, worker)

    second = await call(cloud, await calling(cloud, worker, inner), "outer")
    attempt = await worker.take()
    with pytest.raises(Conflict) as caught:
        await call(cloud, await calling(cloud, worker, attempt), "inner")

    assert attempt.job == second.job
    assert caught.value.code == "call_cycle_deadlock"


async def test_a_job_that_waits_for_the_job_that_waits_for_it_is_told(cloud):
    await cloud.deploy("shop", function("outer"), function("inner"))
    worker = await ScriptedWorker(cloud).connect()
    parent, _, _, _, inner = await parent_and_child(cloud, worker)
    code = await calling(cloud, worker, inner)

    with pytest.raises(Conflict) as caught:
        cloud.services.jobs.attend(code, parent.job)

    assert caught.value.code == "call_cycle_deadlock"


async def test_the_row_of_a_call_names_its_caller_and_calls_go_thirty_two_deep(cloud):
    await cloud.deploy("shop", function("outer", max_containers=40))
    worker = await ScriptedWorker(cloud, cpus=64, memory_mb=65536).connect()
    jobs = [await cloud.spawn("outer")]
    for _ in range(32):
        code = await calling(cloud, worker, await worker.take())
        jobs.append(await call(cloud, code, "outer"))
    deepest = await calling(cloud, worker, await worker.take())
    await jobs[-1].accepted
    row = (await cloud.services.jobs.get(cloud.actor, jobs[-1].job)).job

    with pytest.raises(Invalid) as caught:
        await call(cloud, deepest, "outer", blocking=False)

    assert (row.parent, row.depth) == (jobs[-2].job, 32)
    assert caught.value.code == "call_depth_exceeded"
    assert row.created_by == cloud.actor.key


@guarantee("G1.3", "stale_attempt_rejected")
async def test_a_call_of_an_attempt_that_ended_between_the_token_and_the_call_changes_nothing(cloud):
    await cloud.deploy("shop", function("outer"), function("inner"))
    worker = await ScriptedWorker(cloud).connect()
    parent = await cloud.spawn("outer")
    outer = await worker.take()
    code = await calling(cloud, worker, outer)
    worker.fail(outer, outcome="lost")
    again = await worker.take()

    with pytest.raises(Fenced):
        await call(cloud, code, "inner")
    with pytest.raises(Fenced):
        await calling(cloud, worker, outer)

    assert again.fence == outer.fence + 1
    assert cloud.inner.board.jobs.keys() == {parent.job}
    assert cloud.inner.board.fenced_reports >= 1
