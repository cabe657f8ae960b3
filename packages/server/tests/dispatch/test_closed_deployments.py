"""Deployments that are stopped or deleted: what their app answers, and what becomes of their jobs."""

import asyncio

import pytest

from apothic.wire.functions import FunctionSpec
from apothic_server.bootstrap import Cloud, Sources
from apothic_server.domain.errors import Conflict, NotFound
from apothic_server.domain.jobs import JobStatus
from apothic_server.testing.asgi import AsgiClient
from apothic_server.testing.cloud import ScriptedWorker, ended
from apothic_server.testing.guarantees import guarantee

pytestmark = pytest.mark.anyio
ONE = FunctionSpec("work", qualname="work", max_retries=3)


@pytest.fixture
async def client(cloud):
    return AsgiClient(cloud.asgi, cloud.key)


async def stop(client, deployment, *, now=False):
    answer = await client.request("POST", path(deployment) + "/stop" + ("?now=true" if now else ""))
    assert answer.status == 200
    return answer.json


async def delete(client, deployment, *, now=False):
    return await client.request("DELETE", path(deployment) + ("?now=true" if now else ""))


def path(deployment):
    return f"/v1/deployments/deployments:{deployment.id}"


async def told(client, where):
    return [event["event"] for event in (await client.request("GET", f"{where}/events")).json["events"]]


async def test_a_stopped_app_refuses_calls_until_it_is_deployed_again(cloud, client):
    one = await cloud.deploy()
    function = one.functions["work"]

    after = await stop(client, one)
    refused = [
        await client.request("POST", "/v1/apps/shop/functions/work/calls", json={}),
        await client.request("POST", f"/v1/functions/functions:{function}/calls", json={}),
        await client.request("GET", "/v1/apps/shop/functions/work"),
        await client.request("GET", f"/v1/functions/functions:{function}"),
    ]
    app = (await client.request("GET", "/v1/apps/shop")).json
    two = await cloud.deploy()
    again = await cloud.spawn()

    assert (after["deployment"]["status"], after["unfinished_jobs"]) == ("stopped", 0)
    assert [(answer.status, answer.json["code"]) for answer in refused] == [(409, "app_stopped")] * 4
    assert "Deploy it again" in refused[0].json["detail"]
    assert (app["deployment_id"], app["version"], app["functions"]) == (None, None, [])
    assert (await client.request("GET", f"/v1/jobs/jobs:{again.job}")).json["deployment_id"] == f"deployments:{two.id}"
    assert await told(client, "/v1/apps/shop") == ["app.deployed", "app.stopped", "app.deployed"]
    assert await told(client, path(one)) == ["deployment.created", "deployment.active", "deployment.stopped"]


async def test_waiting_jobs_of_a_stopped_deployment_fail_and_running_ones_finish(cloud, client):
    one = await cloud.deploy("shop", FunctionSpec("work", qualname="work", max_containers=1))
    worker = await ScriptedWorker(cloud).connect()
    running = await cloud.spawn()
    attempt = await worker.take()
    waiting = await cloud.spawn()

    after = await stop(client, one)
    failed = await ended(waiting)
    worker.succeed(attempt)
    done = await ended(running)

    assert after["unfinished_jobs"] == 1
    assert (failed.status, failed.error.code) == (JobStatus.FAILED, "deployment_stopped")
    assert done.status is JobStatus.SUCCEEDED
    assert [kind for _, kind in await cloud.events(waiting.job)] == ["job.queued", "job.error", "job.end"]


async def test_an_attempt_that_fails_after_the_stop_is_the_last(cloud, client):
    one = await cloud.deploy("shop", ONE)
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()
    await stop(client, one)

    worker.fail(attempt)
    outcome = await ended(job)

    assert (outcome.status, outcome.error.code, outcome.attempt) == (JobStatus.FAILED, "deployment_stopped", 1)
    assert await cloud.status(job.job) == "failed"


async def test_a_retry_that_is_due_later_ends_with_the_stop(cloud, client):
    one = await cloud.deploy("shop", ONE)
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    worker.fail(await worker.take())

    await stop(client, one)

    assert (await ended(job)).error.code == "deployment_stopped"
    await cloud.advance(60)
    assert await cloud.status(job.job) == "failed"


@pytest.mark.parametrize("operation", ["stop", "delete"])
async def test_now_cancels_what_runs(cloud, client, operation):
    one = await cloud.deploy("shop", FunctionSpec("work", qualname="work", max_containers=1))
    worker = await ScriptedWorker(cloud).connect()
    running = await cloud.spawn()
    attempt = await worker.take()
    waiting = await cloud.spawn()

    if operation == "stop":
        await stop(client, one, now=True)
    else:
        assert (await delete(client, one, now=True)).status == 200
    assert await cloud.status(running.job) == "cancelling"
    assert (await worker.next("cancel")).job == running.job
    worker.fail(attempt, outcome="cancelled")

    assert (await ended(running)).status is JobStatus.CANCELLED
    assert (await ended(waiting)).error.code == {"stop": "deployment_stopped", "delete": "deployment_deleted"}[
        operation
    ]


async def test_only_what_nothing_uses_is_deleted_without_now(cloud, client):
    one = await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()

    active = await delete(client, one)
    await cloud.deploy()
    busy = await delete(client, one)
    worker.succeed(attempt)
    await ended(job)
    done = await delete(client, one)
    again = await delete(client, one)

    assert [(found.status, found.json.get("code")) for found in (active, busy)] == [
        (409, "deployment_active"),
        (409, "deployment_busy"),
    ]
    assert "1 jobs" in busy.json["detail"]
    assert done.status == again.status == 200
    assert done.json == again.json
    assert done.json["deployment"]["status"] == "deleted"
    assert await told(client, path(one)) == [
        "deployment.created",
        "deployment.active",
        "deployment.superseded",
        "deployment.deleted",
        "deployment.end",
    ]
    assert (await client.request("GET", f"{path(one)}/events")).json["is_final"]
    assert await told(client, "/v1/apps/shop") == ["app.deployed", "app.deployed", "app.deployment_deleted"]


async def test_records_of_jobs_outlive_their_deployment(cloud, client):
    one = await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    worker.succeed(await worker.take(), b"7")
    await ended(job)
    await stop(client, one)
    assert (await delete(client, one)).status == 200

    record = (await client.request("GET", f"/v1/jobs/jobs:{job.job}")).json
    outcome = (await client.request("GET", f"/v1/jobs/jobs:{job.job}/outcome")).json

    assert (record["status"], record["function"], record["app"]) == ("succeeded", "work", "shop")
    assert outcome["result"] == 7
    assert (await client.request("GET", path(one))).json["status"] == "deleted"
    assert (await client.request("GET", "/v1/deployments")).json["items"] == []


async def test_a_stop_and_a_delete_that_are_repeated_change_nothing(cloud, client):
    one = await cloud.deploy()

    answers = [await stop(client, one) for _ in range(3)]
    deleted = [(await delete(client, one)).json for _ in range(3)]
    after = await stop(client, one)

    assert answers[0] == answers[1] == answers[2]
    assert deleted[0] == deleted[1] == deleted[2] == after
    assert await told(client, "/v1/apps/shop") == ["app.deployed", "app.stopped", "app.deployment_deleted"]


async def test_a_deployment_that_was_superseded_is_stopped_without_its_app(cloud, client):
    one = await cloud.deploy()
    waiting = await cloud.spawn()
    two = await cloud.deploy()

    await stop(client, one)

    assert (await ended(waiting)).error.code == "deployment_stopped"
    assert (await client.request("GET", "/v1/apps/shop")).json["deployment_id"] == f"deployments:{two.id}"
    assert await told(client, "/v1/apps/shop") == ["app.deployed", "app.deployed"]


@pytest.mark.parametrize("drain", ["finish", "cancel"])
async def test_a_stop_whose_process_died_is_carried_out_by_the_next(cloud, postgres, tmp_path, drain):
    one = await cloud.deploy("shop", FunctionSpec("work", qualname="work", max_containers=1))
    worker = await ScriptedWorker(cloud).connect()
    running = await cloud.spawn()
    await worker.take()
    waiting = await cloud.spawn()
    async with cloud.inner.database.system_unit() as unit:
        await unit.execute("UPDATE apps SET active_deployment = NULL")
        await unit.execute("UPDATE deployments SET status = 'stopped', drain = $1", drain)
    worker.disconnect()
    await cloud.inner.stop()

    inner = Cloud(postgres, tmp_path, url="http://cloud.test", sources=Sources(clock=cloud.clock, random=lambda: 0.0))
    await inner.start(run_loops=False)
    try:
        with pytest.raises(Conflict):
            await inner.services.apps.get_function(cloud.actor, "shop", "work")
        found = await inner.services.jobs.outcome(cloud.actor, waiting.job)
        outcome = await found if isinstance(found, asyncio.Future) else found
        assert outcome.error.code == "deployment_stopped"
        assert inner.board.closed[one.id].drain.value == drain
        assert inner.board.jobs[running.job].status.value == {"finish": "running", "cancel": "cancelling"}[drain]
    finally:
        await inner.stop()


async def test_the_dispatcher_forgets_a_drain_once_all_jobs_ended(cloud, client):
    one = await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()
    await stop(client, one)

    async def drain():
        async with cloud.inner.database.system_unit() as unit:
            return await unit.fetchval("SELECT drain FROM deployments WHERE id = $1", one.id)

    await cloud.step()
    during = await drain()
    worker.succeed(attempt)
    await ended(job)
    await cloud.step()

    assert (during, await drain()) == ("finish", None)


async def test_a_call_that_met_the_stop_on_its_way_is_refused(cloud, client):
    one = await cloud.deploy()
    function = await cloud.services.apps.get_function(cloud.actor, "shop", "work")
    await stop(client, one)
    cloud.services.apps._by_name[cloud.inner.org, "shop", "work"] = function

    with pytest.raises(Conflict) as refused:
        await cloud.spawn()

    assert refused.value.code == "app_stopped"


async def test_idle_runners_of_a_stopped_deployment_are_ended_at_once(cloud, client):
    one = await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    worker.succeed(await worker.take())
    await ended(job)

    await stop(client, one)

    assert (await worker.next("stop_runner")).runner
    assert not cloud.inner.board.fleet.runners


async def test_deployments_are_listed_newest_first_page_by_page(cloud, client):
    made = [await cloud.deploy(app) for app in ("shop", "shop", "other")]
    await stop(client, made[0])

    async def listed(query=""):
        return (await client.request("GET", f"/v1/deployments{query}")).json

    whole = await listed()
    first = await listed("?limit=2")
    rest = await listed(f"?limit=2&cursor={first['next_cursor']}")
    shop = await listed("?app=shop")

    assert [item["deployment_id"] for item in whole["items"]] == [f"deployments:{one.id}" for one in reversed(made)]
    assert first["items"] + rest["items"] == whole["items"]
    assert rest["next_cursor"] is None
    assert [(item["version"], item["status"]) for item in shop["items"]] == [(2, "active"), (1, "stopped")]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("?cursor=x", 422),
        ("?cursor=apps:" + "0" * 26, 422),
        ("?limit=0", 422),
        ("?app=nothing", 404),
        ("?app=a/b", 404),
    ],
)
async def test_bad_lists_are_refused(cloud, client, query, status):
    await cloud.deploy()

    assert (await client.request("GET", f"/v1/deployments{query}")).status == status


@guarantee("G16.1", "cross_org_matrix")
async def test_another_org_stops_lists_and_deletes_nothing(cloud, client):
    one = await cloud.deploy()
    stranger = client.as_holder_of(cloud.other_key)

    assert (await stranger.request("POST", path(one) + "/stop?now=true")).status == 404
    assert (await stranger.request("DELETE", path(one) + "?now=true")).status == 404
    assert (await stranger.request("GET", "/v1/deployments")).json["items"] == []
    assert (await client.request("GET", path(one))).json["status"] == "active"
    with pytest.raises(NotFound):
        await cloud.services.deployments.stop(cloud.other_actor, one.id, cancels=False)
