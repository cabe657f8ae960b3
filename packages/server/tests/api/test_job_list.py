"""The list of jobs: newest first, filtered, page by page, by an index."""

import pytest

from apothic.wire.functions import FunctionSpec
from apothic_server.store import jobs as rows
from apothic_server.testing.asgi import AsgiClient
from apothic_server.testing.cloud import ScriptedWorker, ended
from apothic_server.testing.guarantees import guarantee

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(cloud):
    return AsgiClient(cloud.asgi, cloud.key)


async def listed(client, query=""):
    answer = await client.request("GET", f"/v1/jobs{query}")
    assert answer.status == 200
    return answer.json


def ids(found):
    return [item["job_id"] for item in found["items"]]


async def test_jobs_are_listed_newest_first_page_by_page(cloud, client):
    await cloud.deploy()
    made = [f"jobs:{(await cloud.spawn()).job}" for _ in range(5)]
    newest_first = sorted(made, reverse=True)

    first = await listed(client, "?limit=2")
    second = await listed(client, f"?limit=2&cursor={first['next_cursor']}")
    third = await listed(client, f"?limit=2&cursor={second['next_cursor']}")

    assert ids(await listed(client)) == newest_first
    assert ids(first) + ids(second) + ids(third) == newest_first
    assert third["next_cursor"] is None
    assert (first["items"][0]["app"], first["items"][0]["function"], first["items"][0]["status"]) == (
        "shop",
        "work",
        "queued",
    )


async def test_filters_leave_what_they_name(cloud, client):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work"), FunctionSpec("other", qualname="other"))
    await cloud.deploy("store")
    worker = await ScriptedWorker(cloud).connect()
    done = await cloud.spawn()
    worker.succeed(await worker.take())
    await ended(done)
    worker.disconnect()
    other, store = await cloud.spawn("other"), await cloud.spawn(app="store")

    assert ids(await listed(client, "?function=other")) == [f"jobs:{other.job}"]
    assert ids(await listed(client, "?app=store")) == [f"jobs:{store.job}"]
    assert ids(await listed(client, "?status=succeeded")) == [f"jobs:{done.job}"]
    assert ids(await listed(client, "?app=nothing")) == []
    assert len(ids(await listed(client, "?since=2001-01-01T00:00:00Z"))) == 3
    assert ids(await listed(client, "?since=2100-01-01T00:00:00%2B02:00")) == []


async def test_unfinished_jobs_of_a_deployment_say_why_they_wait(cloud, client):
    await cloud.deploy()
    await cloud.deploy("big", FunctionSpec("work", qualname="work", cpu=1000))
    worker = await ScriptedWorker(cloud).connect()
    done = await cloud.spawn()
    worker.succeed(await worker.take())
    await ended(done)
    running, waiting, never = await cloud.spawn(), await cloud.spawn(), await cloud.spawn(app="big")
    await worker.take()

    found = await listed(client, "?unfinished=true")
    reasons = {item["job_id"]: item["waiting_reason"] for item in found["items"]}
    deployment = found["items"][0]["deployment_id"]

    assert ids(found) == [f"jobs:{one.job}" for one in (never, waiting, running)]
    assert reasons[f"jobs:{running.job}"] is None
    assert "all 1 of max_containers=1 runners are busy" in reasons[f"jobs:{waiting.job}"]
    assert "needs 1000 cpu" in reasons[f"jobs:{never.job}"]
    assert ids(await listed(client, f"?deployment={deployment}")) == [f"jobs:{never.job}"]
    assert len(ids(await listed(client, "?unfinished=false"))) == 4


async def test_pages_of_unfinished_jobs_look_past_those_that_ended(cloud, client, monkeypatch):
    monkeypatch.setattr(rows, "LOOKED_AT_MAX", 2)
    await cloud.deploy("shop", FunctionSpec("work", qualname="work"), FunctionSpec("rare", qualname="rare"))
    rare = await cloud.spawn("rare")
    for _ in range(3):
        await cloud.spawn()

    first = await listed(client, "?unfinished=true&function=rare")
    second = await listed(client, f"?unfinished=true&function=rare&cursor={first['next_cursor']}")

    assert (ids(first), ids(second)) == ([], [f"jobs:{rare.job}"])


async def test_a_page_looks_at_a_bounded_number_of_jobs_and_goes_on(cloud, client, monkeypatch):
    monkeypatch.setattr(rows, "LOOKED_AT_MAX", 2)
    await cloud.deploy("shop", FunctionSpec("work", qualname="work"), FunctionSpec("rare", qualname="rare"))
    rare = await cloud.spawn("rare")
    for _ in range(4):
        await cloud.spawn()

    found, pages, cursor = [], 0, ""
    while cursor is not None:
        page = await listed(client, f"?function=rare{cursor and f'&cursor={cursor}'}")
        found, pages, cursor = found + ids(page), pages + 1, page["next_cursor"]

    assert (found, pages) == ([f"jobs:{rare.job}"], 3)


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=201",
        "cursor=x",
        "cursor=apps:00000000000000000000000000",
        "status=gone",
        "since=now",
        "since=2026-01-01",
        "app=%00",
        "unfinished=yes",
        "x=1",
    ],
)  # fmt: skip
async def test_bad_filters_and_cursors_are_refused(cloud, client, query):
    answer = await client.request("GET", f"/v1/jobs?{query}")

    assert (answer.status, answer.json["code"]) == (422, "invalid")


@guarantee("G16.1", "cross_org_matrix")
async def test_another_org_lists_its_own_jobs_only(cloud, client):
    await cloud.deploy()
    await cloud.spawn()

    assert await listed(client.as_holder_of(cloud.other_key)) == {"items": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("query", "index", "status", "path"),
    [
        ("list_jobs", "jobs_by_org", "succeeded", "nqsrS"),
        ("list_unfinished", "jobs_unfinished_by_org", "queued", "nq"),
    ],
    ids=["all", "unfinished"],
)
async def test_the_list_is_read_by_an_index(cloud, query, index, status, path):
    await cloud.deploy()
    async with cloud.inner.database.system_unit() as unit:
        await unit.execute(
            "INSERT INTO jobs (id, org, app, deployment, function, status, path, run_at, arguments_encoding,"
            " next_index, created_by, created_at, finished_at)"
            " SELECT '0' || lpad(number::text, 25, '0'), CASE WHEN number % 50 = 0 THEN $1 ELSE 'other' END, 'a', 'd',"
            " 'f', $2, $3, now(), 'json', 0, 'k', now(), CASE WHEN $2 = 'queued' THEN NULL ELSE now() END"
            " FROM generate_series(1, 30000) AS number",
            cloud.inner.org,
            status,
            path,
        )
        await unit.execute("ANALYZE jobs")
        explained = await unit.fetch(
            "EXPLAIN " + rows.SQL[query], cloud.inner.org, "~", "", 50, 10_000, "shop", None, None, None
        )
    plan = "\n".join(row[0] for row in explained)
    assert f"Index Scan Backward using {index} on jobs" in plan
    assert "Seq Scan on jobs" not in plan
