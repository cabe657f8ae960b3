"""A retry by hand: a new job with the old one's function and arguments, which never opens the old one again."""

from __future__ import annotations

import pytest

from apothic.wire.functions import FunctionSpec
from apothic.wire.limits import VALUE_INLINE_MAX
from apothic.wire.values import Value
from apothic_server.domain.errors import Conflict, NotFound
from apothic_server.testing.asgi import AsgiClient
from apothic_server.testing.cloud import ScriptedWorker, ended
from apothic_server.testing.guarantees import guarantee

pytestmark = pytest.mark.anyio


@guarantee("G1.4", "manual_retry_new_id")
@pytest.mark.parametrize("size", [10, VALUE_INLINE_MAX + 1])
async def test_a_retry_is_a_new_job_of_the_live_version_with_the_same_arguments(cloud, size):
    await cloud.deploy()
    cloud.start_loop("values")
    worker = await ScriptedWorker(cloud).connect()
    arguments = Value("json", b"[[],{}]".ljust(size))
    first = await cloud.services.jobs.submit(cloud.actor, ("shop", "work"), arguments, blocking=False)
    worker.fail(await worker.take())
    await ended(first)
    live = await cloud.deploy(archive=b"the next version")
    before = await cloud.events(first.job)

    second = await cloud.services.jobs.retry(cloud.actor, first.job)
    await second.accepted
    attempt = await worker.take()
    worker.succeed(attempt, b"1")
    await ended(second)

    old, new = [(await cloud.services.jobs.get(cloud.actor, job)).job for job in (first.job, second.job)]
    assert attempt.job == second.job != first.job
    assert attempt.arguments == arguments
    assert (new.retry_of, new.deployment, new.function) == (first.job, live.id, old.function)
    assert (old.status.value, old.retry_of, new.status.value) == ("failed", None, "succeeded")
    assert await cloud.events(first.job) == before
    client = AsgiClient(cloud.asgi, cloud.key)
    shown = await client.request("GET", f"/v1/jobs/jobs:{second.job}")
    assert shown.json["retry_of"] == f"jobs:{first.job}"


@guarantee("G1.4", "manual_retry_new_id")
async def test_a_job_that_has_not_ended_is_not_retried(cloud):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    waiting = await cloud.spawn()
    states = []
    for _ in range(2):
        with pytest.raises(Conflict) as refused:
            await cloud.services.jobs.retry(cloud.actor, waiting.job)
        states.append((refused.value.code, await cloud.status(waiting.job)))
        if len(states) == 1:
            await worker.take()
            await cloud.step()

    assert {code for code, _ in states} == {"job_not_ended"}
    async with cloud.inner.database.system_unit() as unit:
        assert await unit.fetchval("SELECT count(*) FROM jobs") == 1


async def test_a_job_whose_function_is_gone_is_not_retried(cloud):
    await cloud.deploy()
    job = await cloud.spawn()
    await cloud.services.jobs.cancel(cloud.actor, job.job)
    await cloud.deploy("shop", FunctionSpec("other", qualname="other"))

    with pytest.raises(NotFound):
        await cloud.services.jobs.retry(cloud.actor, job.job)
