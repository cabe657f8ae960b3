"""Environments made ready before anybody calls: who is asked, how far it is, and what asking again does."""

from dataclasses import replace

import pytest

from apothic.wire.functions import FunctionSpec
from apothic.wire.images import BUILD_FAILURE_KEPT_S, ImageSpec, Prepared, PrepareImage, environment_id
from apothic.wire.values import RemoteError
from apothic_server.domain.errors import Conflict
from apothic_server.testing.cloud import ScriptedWorker, ended

pytestmark = pytest.mark.anyio

IMAGE = ImageSpec("3.11", ("numpy",))
WORK = FunctionSpec("work", qualname="work", image=IMAGE)
ALSO = FunctionSpec("also", qualname="also", image=replace(IMAGE, variables={"COLOUR": "red"}))
BARE = FunctionSpec("bare", qualname="bare")
FAILED = RemoteError("apothic.AttemptFailed", "no wheel", code="image_build_failed")


async def live_of(cloud):
    return (await cloud.services.apps.get_app(cloud.actor, "shop")).app.active


async def how_far(cloud, key=None):
    """Ask, and return for each entry its functions, its status and who has it or why it waits."""
    found = await cloud.services.environments.prepare(cloud.actor, key or await live_of(cloud))
    return found.status, [
        (one.functions, one.status, one.worker or one.reason or one.error.code) for one in found.environments
    ]


def says(worker, order: PrepareImage, took_ms=7, error=None):
    worker.report({"prepared": [Prepared(order.deployment, order.environment, took_ms, error)]})


def orders(worker):
    return [item for name, item in worker.received if name == "prepare_image"]


async def test_one_worker_is_told_once_without_a_job_and_a_call_finds_it_ready(cloud):
    await cloud.deploy("shop", WORK, ALSO, BARE)
    worker = await ScriptedWorker(cloud).connect()
    first = await how_far(cloud)
    order = await worker.next("prepare_image")
    again = await how_far(cloud)
    says(worker, order)
    await cloud.step()
    ready = await how_far(cloud)
    job = await cloud.spawn()
    worker.succeed(await worker.take())

    assert (order.environment, order.image) == (environment_id(IMAGE), IMAGE)
    assert (
        first == again == ("building", [(("work", "also"), "building", "scripted"), (("bare",), "ready", "scripted")])
    )
    assert ready == ("ready", [(("work", "also"), "ready", "scripted"), (("bare",), "ready", "scripted")])
    assert orders(worker) == []
    assert (await ended(job)).error is None


async def test_without_a_worker_that_could_run_it_the_reason_is_told(cloud):
    await cloud.deploy("shop", WORK)
    alone = await how_far(cloud)
    worker = await ScriptedWorker(cloud).connect()
    await cloud.deploy("shop", replace(WORK, image=ImageSpec("3.99", ("numpy",))))
    unfit = await how_far(cloud)

    assert alone == ("waiting", [(("work",), "waiting", "no worker is connected")])
    assert unfit[1][0][1] == "waiting"
    assert unfit[1][0][2].startswith("no machine has Python 3.99; present: 3.1")
    assert orders(worker) == []


async def test_what_only_an_image_builder_could_make_has_failed_at_once(cloud):
    await cloud.deploy("shop", replace(WORK, image=ImageSpec("3.11", recorded=("apt_install git",))))

    assert await how_far(cloud) == ("failed", [(("work",), "failed", "image_needs_builder")])


async def test_a_failed_build_is_told_and_tried_again_a_minute_later_by_whoever_asks(cloud):
    await cloud.deploy("shop", WORK)
    worker = await ScriptedWorker(cloud).connect()
    await how_far(cloud)
    says(worker, await worker.next("prepare_image"), 0, FAILED)
    await cloud.step()
    failed = await how_far(cloud)
    found = await cloud.services.environments.prepare(cloud.actor, await live_of(cloud))
    meanwhile = orders(worker)
    cloud.inner.board.clock.advance(BUILD_FAILURE_KEPT_S + 1)
    later = await how_far(cloud)
    says(worker, await worker.next("prepare_image"))
    await cloud.step()

    assert failed == ("failed", [(("work",), "failed", "scripted")])
    assert found.environments[0].error == FAILED
    assert meanwhile == []
    assert later[0] == "building"
    assert (await how_far(cloud))[0] == "ready"


async def test_another_worker_is_told_when_the_one_that_builds_goes(cloud):
    await cloud.deploy("shop", WORK)
    worker = await ScriptedWorker(cloud).connect()
    await how_far(cloud)
    await worker.next("prepare_image")
    other = await ScriptedWorker(cloud, name="other").connect()
    both = await how_far(cloud)
    worker.disconnect()
    after = await how_far(cloud)

    assert both == ("building", [(("work",), "building", "scripted")])
    assert after == ("building", [(("work",), "building", "other")])
    assert (await other.next("prepare_image")).environment == environment_id(IMAGE)


async def test_a_new_server_asks_again(cloud, restart):
    await cloud.deploy("shop", WORK)
    worker = await ScriptedWorker(cloud).connect()
    await how_far(cloud)
    order = await worker.next("prepare_image")
    await restart()
    alone = await how_far(cloud)
    await worker.connect()
    asked = await how_far(cloud)

    assert alone[0] == "waiting"
    assert asked[0] == "building"
    assert await worker.next("prepare_image") == order


async def test_nothing_is_made_ready_for_a_stopped_deployment(cloud):
    await cloud.deploy("shop", WORK)
    worker = await ScriptedWorker(cloud).connect()
    key = await live_of(cloud)
    await cloud.services.deployments.stop(cloud.actor, key, cancels=False)

    with pytest.raises(Conflict) as refused:
        await how_far(cloud, key)
    assert refused.value.code == "deployment_stopped"
    assert orders(worker) == []
