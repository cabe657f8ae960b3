"""Who gets a free slot: orgs take turns, and so do a map and single calls of one org (G15.4)."""

import pytest

from apothic.wire.functions import FunctionSpec
from apothic.wire.values import Value
from apothic_server.testing.cloud import ScriptedWorker
from apothic_server.testing.guarantees import guarantee
from apothic_server.testing.maps import finish, start_map

pytestmark = pytest.mark.anyio

MANY = 10_000
WORK = FunctionSpec("work", qualname="work", max_pending_tasks=MANY)
OTHER = FunctionSpec("other", qualname="other")


async def submit(cloud, actor, *, blocking=True):
    arguments = Value("json", b"[[],{}]")
    return await cloud.services.jobs.submit(actor, ("shop", "work"), arguments, blocking=blocking)


async def next_job(cloud, worker, running):
    """End what runs after a while, and take what comes into its place."""
    cloud.clock.advance(0.1)
    if running.items is None:
        worker.succeed(running)
    else:
        finish(worker, running)
    return await worker.take()


@guarantee("G15.4", "fair_between_orgs")
async def test_the_first_job_of_an_org_gets_the_next_slot_before_ten_thousand_of_another(cloud):
    await cloud.deploy("shop", WORK)
    await cloud.deploy("shop", WORK, actor=cloud.other_actor)
    worker = await ScriptedWorker(cloud, cpus=1).connect()
    await submit(cloud, cloud.actor)
    running = await worker.take()
    for _ in range(MANY):
        await submit(cloud, cloud.actor)
    first = await submit(cloud, cloud.other_actor, blocking=False)
    second = await submit(cloud, cloud.other_actor, blocking=False)
    await second.accepted

    taken = [running := await next_job(cloud, worker, running) for _ in range(3)]

    assert taken[0].job == first.job
    assert taken[2].job == second.job


@guarantee("G15.4", "fair_between_orgs")
async def test_the_first_job_of_an_org_gets_the_next_slot_before_a_map_of_another(cloud):
    await cloud.deploy("shop", WORK)
    await cloud.deploy("shop", WORK, actor=cloud.other_actor)
    worker = await ScriptedWorker(cloud, cpus=1).connect()
    await start_map(cloud, MANY)
    running = await next_job(cloud, worker, await worker.take())
    theirs = await submit(cloud, cloud.other_actor)

    assert (await next_job(cloud, worker, running)).job == theirs.job


@guarantee("G15.4", "fair_between_orgs")
@pytest.mark.parametrize("function", ["work", "other"])
async def test_a_single_call_waits_for_one_turn_of_a_map_of_its_org(cloud, function):
    await cloud.deploy("shop", WORK, OTHER)
    worker = await ScriptedWorker(cloud, cpus=1).connect()
    await start_map(cloud, MANY)
    running = await next_job(cloud, worker, await worker.take())
    cloud.clock.advance(0.1)
    single = await cloud.spawn(function)

    taken = [running := await next_job(cloud, worker, running) for _ in range(2)]

    assert taken[1].job == single.job


async def test_all_places_of_a_runner_that_follows_a_drained_one_are_given_at_once(cloud):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", tasks_per_container=2))
    drained = await ScriptedWorker(cloud, cpus=1).connect()
    for _ in range(4):
        await cloud.spawn()
    running = [await drained.take(), await drained.take()]
    other = await ScriptedWorker(cloud, cpus=1, name="other").connect()
    drained.worker.is_cordoned = True

    for attempt in running:
        drained.succeed(attempt)
    taken = [await other.take(), await other.take()]

    assert len({attempt.job for attempt in [*running, *taken]}) == 4
