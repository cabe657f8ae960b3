"""Environments that workers make ready: who is asked, what its log becomes, and when runners may start."""

import pytest

from apothic.wire.functions import FunctionSpec
from apothic.wire.images import (
    BUILD_LINE_MAX,
    BUILD_LINES_MAX,
    BuildLines,
    ImageSpec,
    Prepared,
    PrepareImage,
    environment_id,
)
from apothic.wire.link import RunnerEnded
from apothic.wire.values import RemoteError
from apothic_server.testing.cloud import ScriptedWorker, ended

pytestmark = pytest.mark.anyio

IMAGE = ImageSpec("3.11", ("numpy", "rich>=13 ; os_name == 'posix'"))
SPEC = FunctionSpec("work", qualname="work", image=IMAGE)


@pytest.fixture
async def asked(cloud):
    """A worker that was asked for an environment, the job that waits for it, and the order."""
    await cloud.deploy("shop", SPEC)
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    return worker, job, await worker.next("prepare_image")


def says(worker: ScriptedWorker, order: PrepareImage, first: int, *lines: str) -> None:
    worker.report({"build_lines": [BuildLines(order.deployment, order.environment, first, list(lines))]})


def is_ready(worker: ScriptedWorker, order: PrepareImage, took_ms: int = 7, error: RemoteError | None = None) -> None:
    worker.report({"prepared": [Prepared(order.deployment, order.environment, took_ms, error)]})


async def told(cloud, deployment) -> list[tuple[str, str]]:
    """What the stream of a deployment says of builds: kind, and line, duration or message."""
    async with cloud.inner.database.system_unit() as unit:
        rows = await unit.fetch(
            "SELECT kind, coalesce(data->>'line', data->>'took_ms', data->>'message') AS said FROM events "
            "WHERE stream = $1 AND kind LIKE 'deployment.buil%' ORDER BY index",
            deployment,
        )
    return [(row["kind"].removeprefix("deployment."), row["said"]) for row in rows]


def sent(worker: ScriptedWorker) -> list[str]:
    return [name for name, _ in worker.received if name in {"start_runner", "assign", "prepare_image"}]


async def test_a_job_waits_until_its_environment_is_ready_and_its_log_is_stored_first(cloud, asked):
    worker, job, order = asked
    record = await cloud.services.jobs.get(cloud.actor, job.job)
    says(worker, order, 0, "one", "two")
    is_ready(worker, order)
    before = sent(worker)
    await cloud.step()
    attempt = await worker.take()
    worker.succeed(attempt)

    assert order == PrepareImage(cloud.actor.org, order.deployment, environment_id(IMAGE), IMAGE)
    assert record.waiting_reason.startswith("image_building: worker scripted makes the environment ready: numpy, rich")
    assert before == []
    assert await told(cloud, order.deployment) == [("build_log", "one"), ("build_log", "two"), ("built", "7")]
    assert (await ended(job)).error is None


async def test_an_environment_that_was_there_is_no_event_and_is_asked_for_once(cloud, asked):
    worker, _, order = asked
    is_ready(worker, order, took_ms=0)
    await worker.take()
    await cloud.spawn()
    is_ready(worker, order)  # nobody asked again
    await cloud.step()

    assert await told(cloud, order.deployment) == []
    assert "prepare_image" not in sent(worker)


async def test_what_is_answered_twice_before_it_is_written_is_told_once(cloud, asked):
    worker, _, order = asked
    is_ready(worker, order)
    is_ready(worker, order)
    await cloud.step()
    await worker.take()

    assert await told(cloud, order.deployment) == [("built", "7")]


async def test_a_build_that_failed_is_told_and_jobs_learn_it_from_the_runner(cloud, asked):
    worker, job, order = asked
    is_ready(worker, order, 0, RemoteError("builtins.RuntimeError", "no wheel\0 here", None, "image_build_failed"))
    await cloud.step()
    worker.fail(await worker.take(), code="image_build_failed")

    assert await told(cloud, order.deployment) == [("build_failed", "no wheel\N{REPLACEMENT CHARACTER} here")]
    assert (await ended(job)).error.code == "image_build_failed"


async def test_one_worker_at_a_time_builds_and_another_is_asked_when_it_goes(cloud, asked):
    worker, _, order = asked
    other = await ScriptedWorker(cloud, name="other").connect()
    await cloud.spawn()
    await cloud.step()
    meanwhile = sent(other)
    worker.disconnect()
    await cloud.step()
    again = await other.next("prepare_image")

    assert meanwhile == []
    assert again == order


async def test_lines_that_are_said_again_after_a_new_link_are_stored_once(cloud, asked):
    worker, _, order = asked
    says(worker, order, 0, "one", "two")
    await cloud.step()
    worker.disconnect()
    await worker.connect()
    again = await worker.next("prepare_image")
    says(worker, again, 0, "one", "two", "three")
    is_ready(worker, again)
    await cloud.step()
    await worker.take()

    assert again == order
    assert [said for _, said in await told(cloud, order.deployment)] == ["one", "two", "three", "7"]


async def test_an_environment_that_was_removed_is_made_ready_again_before_a_runner_starts(cloud, asked):
    worker, job, order = asked
    is_ready(worker, order)
    await cloud.step()
    attempt = await worker.take()
    worker.succeed(attempt)
    await ended(job)
    worker.report({"runner_ended": [RunnerEnded(attempt.runner, "idle")]})
    worker.report({"prepared": [Prepared(order.deployment, order.environment, is_gone=True)]})
    await cloud.spawn()
    again = await worker.next("prepare_image")
    meanwhile = sent(worker)
    is_ready(worker, again)
    await cloud.step()
    await worker.take()

    assert again == order
    assert meanwhile == []


async def test_lines_that_are_said_again_to_a_new_server_are_stored_once(cloud, asked, restart):
    worker, _, order = asked
    says(worker, order, 0, "failed", "before")
    is_ready(worker, order, 0, RemoteError("builtins.RuntimeError", "no", None, "image_build_failed"))
    await cloud.step()
    await worker.take()
    worker.disconnect()
    await worker.connect()
    second = await worker.next("prepare_image")
    says(worker, second, 0, "one", "two")
    await cloud.step()
    await restart()
    await worker.connect()
    again = await worker.next("prepare_image")
    says(worker, again, 0, "one", "two", "three")
    says(worker, again, 3, "four")
    is_ready(worker, again)
    await cloud.step()
    said = [said for _, said in await told(cloud, order.deployment)]

    assert said == ["failed", "before", "no", "one", "two", "three", "four", "7"]


async def test_a_new_server_asks_again_and_lets_the_job_run(cloud, asked, restart):
    worker, job, order = asked
    await restart()
    await worker.connect()
    again = await worker.next("prepare_image")
    is_ready(worker, again)
    await cloud.step()
    worker.succeed(await worker.take())
    await cloud.settle()

    assert again == order
    assert await cloud.status(job.job) == "succeeded"


async def test_what_a_worker_says_of_builds_is_bounded_and_only_of_what_it_was_asked(cloud, asked):
    worker, _, order = asked
    stranger = PrepareImage(order.org, "d" * 26, order.environment, IMAGE)
    says(worker, stranger, 0, "of nobody")
    is_ready(worker, stranger)
    says(worker, order, -1, "before the first")
    says(worker, order, BUILD_LINES_MAX + 1, "beyond the last")
    says(worker, order, 0, "x" * (BUILD_LINE_MAX + 1), "a\0b", *["more"] * BUILD_LINES_MAX)
    await cloud.step()
    said = [text for _, text in await told(cloud, order.deployment)]

    assert [len(said[0]), said[1], len(said)] == [BUILD_LINE_MAX, "a\N{REPLACEMENT CHARACTER}b", BUILD_LINES_MAX + 1]
    assert sent(worker) == []


async def test_the_log_of_a_deleted_deployment_is_dropped(cloud, asked):
    worker, job, order = asked
    await cloud.services.jobs.cancel(cloud.actor, job.job)
    await cloud.deploy("shop", FunctionSpec("work", qualname="work"))
    await cloud.services.deployments.delete(cloud.actor, order.deployment, cancels=False)
    says(worker, order, 0, "late")
    is_ready(worker, order)
    await cloud.step()

    assert await told(cloud, order.deployment) == []
