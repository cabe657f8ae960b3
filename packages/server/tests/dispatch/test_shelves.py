"""Which environments workers have, and the removal of those that no live deployment needs."""

import asyncio
from dataclasses import replace

import pytest

from apothic.wire.functions import FunctionSpec
from apothic.wire.images import HeldImage, ImageSpec, ImagesTidied, Prepared, environment_id
from apothic_server.testing.cloud import ScriptedWorker

pytestmark = pytest.mark.anyio

OLD, BUSY, NEW = (ImageSpec("3.11", (name,)) for name in ("old", "busy", "new"))
WORK = FunctionSpec("work", qualname="work", image=OLD)


def held(image, **more):
    return HeldImage(environment_id(image), 1_000, 60.0, 120.0, **more)


async def answered(cloud, worker, ask, *items, freed_bytes=0):
    """Ask, let the worker answer, and return its order and what came of it."""
    asking = asyncio.ensure_future(ask(cloud.actor))
    order = await worker.next("tidy_images")
    worker.report({"images_tidied": [ImagesTidied(order.number, list(items), freed_bytes)]})
    return order, await asking


async def test_a_prune_keeps_what_live_deployments_and_unfinished_jobs_need(cloud):
    environments = cloud.services.environments
    for image in (OLD, BUSY):
        await cloud.deploy("shop", replace(WORK, image=image))
    worker = await ScriptedWorker(cloud).connect()
    await cloud.spawn()
    await cloud.deploy("shop", replace(WORK, image=NEW))
    items = (held(OLD), held(BUSY, is_in_use=True), held(NEW))
    asked, listed = await answered(cloud, worker, environments.list_held, *items)
    gone = (held(OLD, is_removed=True), held(BUSY), held(NEW))
    order, pruned = await answered(cloud, worker, environments.prune, *gone, freed_bytes=900)

    assert (asked.org, asked.keep) == (cloud.actor.org, None)
    assert [(one.worker, one.is_needed) for one in listed.items] == [
        ("scripted", False),
        ("scripted", True),
        ("scripted", True),
    ]
    assert order.keep == sorted(environment_id(image) for image in (BUSY, NEW))
    assert [one.held.environment for one in pruned.items] == [environment_id(OLD)]
    assert (pruned.freed_bytes, pruned.unanswered, pruned.is_known) == (900, (), True)


async def test_what_was_removed_is_made_ready_again_when_somebody_needs_it(cloud):
    await cloud.deploy("shop", WORK)
    worker = await ScriptedWorker(cloud).connect()
    key = (await cloud.services.apps.get_app(cloud.actor, "shop")).app.active
    environments = cloud.services.environments
    await environments.prepare(cloud.actor, key)
    order = await worker.next("prepare_image")
    worker.report({"prepared": [Prepared(order.deployment, order.environment, 0)]})
    before = await environments.prepare(cloud.actor, key)
    await answered(cloud, worker, environments.prune, held(OLD, is_removed=True))
    after = await environments.prepare(cloud.actor, key)

    assert (before.status, after.status) == ("ready", "building")
    assert await worker.next("prepare_image") == order


async def test_a_worker_that_does_not_answer_or_lies_is_named(cloud):
    await cloud.deploy("shop", WORK)
    first = await ScriptedWorker(cloud, name="first").connect()
    other = await ScriptedWorker(cloud, name="other").connect()
    shelves = cloud.inner.links.shelves
    asking = asyncio.ensure_future(shelves.ask(cloud.actor.org, keep=None, timeout_s=0.2))
    order, foreign = await first.next("tidy_images"), await other.next("tidy_images")
    impossible = (
        held(OLD, is_removed=True),
        replace(held(OLD), environment="../x"),
        replace(held(OLD), size_bytes=-1),
        replace(held(OLD), used_at=float("nan")),
        replace(held(OLD), built_at=1e30),
    )
    first.report({"images_tidied": [ImagesTidied(foreign.number, [held(OLD)]), ImagesTidied(99, [])]})
    first.report({"images_tidied": [ImagesTidied(order.number, [one]) for one in impossible[1:]]})
    first.report({"images_tidied": [ImagesTidied(order.number, [], -5)]})
    told, silent = await asking

    assert (told, silent) == ([], ["first", "other"])


async def test_without_a_worker_there_is_nothing(cloud):
    found = await cloud.services.environments.prune(cloud.actor)

    assert (found.items, found.freed_bytes, found.unanswered, found.is_known) == ((), 0, (), True)
