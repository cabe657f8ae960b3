"""Deploys that change nothing, and rollbacks: a new record that points at an old artifact (G11.2, G11.4)."""

import asyncio
import hashlib

import pytest

from apothic.wire.functions import FunctionSpec
from apothic_server.domain.jobs import JobStatus
from apothic_server.testing.asgi import AsgiClient
from apothic_server.testing.cloud import ScriptedWorker, ended
from apothic_server.testing.guarantees import guarantee
from apothic_server.testing.scenario import ARCHIVE, manifest, upload

pytestmark = pytest.mark.anyio
ROLLBACK = "/v1/apps/shop/rollback"


@pytest.fixture
async def client(cloud):
    return AsgiClient(cloud.asgi, cloud.key)


async def deploy(client, data=ARCHIVE, names=("work",), query="?if_changed=true", files=None, **options):
    await upload(client, data)
    digest = hashlib.sha256(data).hexdigest()
    told = {"files": files} if files else {}
    body = {"manifest": {**manifest(*names, **options), **told}, "archive_sha256": digest}
    return await client.request("POST", f"/v1/apps/shop/deployments{query}", json=body)


async def versions(client):
    listed = (await client.request("GET", "/v1/deployments?app=shop")).json["items"]
    return [(one["version"], one["status"], one["restored_from"]) for one in listed]


async def test_a_deploy_of_what_is_live_makes_no_version(client):
    first = await deploy(client)
    again = await deploy(client)
    spelled = await deploy(client, cpu=1, placement={})
    events = await client.request("GET", "/v1/apps/shop/events")

    assert [first.status, again.status, spelled.status] == [201, 200, 200]
    assert first.json == again.json == spelled.json
    assert await versions(client) == [(1, "active", None)]
    assert [event["event"] for event in events.json["events"]] == ["app.deployed"]


@pytest.mark.parametrize(("query", "made"), [("?if_changed=true", [1, 1, 1]), ("", [1, 2, 3])])
async def test_of_first_deploys_at_once_each_gets_a_version_of_its_own(client, query, made):
    await upload(client, ARCHIVE)

    found = await asyncio.gather(*(deploy(client, query=query) for _ in range(3)))

    assert sorted(one.json["version"] for one in found) == made
    assert sorted(version for version, _, _ in await versions(client)) == sorted(set(made))


@pytest.mark.parametrize(
    "other", [{"data": b"other files"}, {"cpu": 2}, {"names": ("work", "more")}, {"query": ""}], ids=str
)
async def test_a_deploy_of_anything_else_makes_one(client, other):
    await deploy(client)
    second = await deploy(client, **other)

    assert (second.status, second.json["version"]) == (201, 2)


async def test_a_stopped_app_is_started_by_a_deploy_of_the_same(client):
    first = await deploy(client)
    await client.request("POST", f"/v1/deployments/{first.json['deployment_id']}/stop")

    again = await deploy(client)

    assert (again.status, again.json["version"], again.json["status"]) == (201, 2, "active")


async def test_ten_equal_deploys_at_once_make_one_version(client):
    await deploy(client, b"before")
    answers = await asyncio.gather(*(deploy(client) for _ in range(10)))

    assert sorted(answer.status for answer in answers) == [200] * 9 + [201]
    assert {answer.json["version"] for answer in answers} == {2}


@guarantee("G11.4", "revert_exact_artifact")
async def test_a_rollback_is_a_new_record_of_the_old_artifact(client):
    old = (await deploy(client, b"good", cpu=2, files={"shop.py": "ab" * 32})).json
    bad = (await deploy(client, b"bad", ("work", "more"))).json
    kept = await client.request("HEAD", f"/v1/archives/{old['archive_sha256']}")

    back = await client.request("POST", ROLLBACK)
    live = (await client.request("GET", "/v1/apps/shop")).json

    assert (kept.status, back.status, back.json["version"], back.json["restored_from"]) == (200, 201, 3, 1)
    same = ("archive_sha256", "manifest", "python", "client_version")
    assert [back.json[name] for name in same] == [old[name] for name in same]
    assert back.json["functions"] == [{**old["functions"][0], "deployment_id": back.json["deployment_id"]}]
    assert live["deployment_id"] == back.json["deployment_id"] not in (old["deployment_id"], bad["deployment_id"])
    assert await versions(client) == [(3, "active", 1), (2, "superseded", None), (1, "superseded", None)]
    assert (await client.request("GET", "/v1/apps/shop/functions/more")).status == 404


async def test_a_second_rollback_goes_back_one_further(client):
    for data in (b"one", b"two", b"three"):
        await deploy(client, data)

    answers = [await client.request("POST", ROLLBACK) for _ in range(3)]

    assert [answer.json.get("restored_from") for answer in answers] == [2, 1, None]
    assert (answers[2].status, answers[2].json["code"]) == (409, "no_earlier_version")


async def test_a_rollback_to_what_runs_changes_nothing(client):
    for data in (b"one", b"two"):
        await deploy(client, data)
    await client.request("POST", ROLLBACK)

    again = await client.request("POST", f"{ROLLBACK}?version=1")
    forward = await client.request("POST", f"{ROLLBACK}?version=2")
    copy = await client.request("POST", f"{ROLLBACK}?version=3")

    assert (again.status, again.json["version"]) == (200, 3)
    assert (forward.status, forward.json["version"], forward.json["restored_from"]) == (201, 4, 2)
    assert (copy.status, copy.json["restored_from"]) == (201, 1)


async def test_what_cannot_be_gone_back_to_is_refused_and_nothing_changes(client, cloud):
    await deploy(client, b"one")
    two = (await deploy(client, b"two")).json["deployment_id"]
    await deploy(client, b"three")
    await client.request("DELETE", f"/v1/deployments/{two}")
    before = await versions(client)

    refused = [
        await client.request("POST", f"{ROLLBACK}?version={version}") for version in ("2", "9", "0", "-1", "x", "")
    ]
    nobody = await client.request("POST", "/v1/apps/shopp/rollback")

    assert [answer.status for answer in refused] == [404, 404, 422, 422, 422, 422]
    assert nobody.status == 404
    assert "did you mean shop" in nobody.json["detail"]
    assert await versions(client) == before
    assert (await client.request("POST", ROLLBACK)).json["restored_from"] == 1


async def test_a_stopped_app_goes_back_to_a_version_that_is_named(client):
    one = (await deploy(client)).json["deployment_id"]
    await client.request("POST", f"/v1/deployments/{one}/stop")

    unnamed = await client.request("POST", ROLLBACK)
    named = await client.request("POST", f"{ROLLBACK}?version=1")

    assert (unnamed.status, unnamed.json["code"]) == (409, "app_stopped")
    assert (named.status, named.json["status"], named.json["restored_from"]) == (201, "active", 1)


@guarantee("G11.2", "inflight_keeps_code")
async def test_jobs_keep_the_archive_they_were_submitted_to_over_deploys_and_rollbacks(client, cloud):
    one = await cloud.deploy("shop", FunctionSpec("work", qualname="work", max_retries=1), archive=b"one")
    worker = await ScriptedWorker(cloud).connect()
    running, waiting = await cloud.spawn(), await cloud.spawn()
    attempt = await worker.take()
    await cloud.deploy(archive=b"two")
    await client.request("POST", ROLLBACK)

    worker.fail(attempt)
    await cloud.advance(2.0)
    seen = [attempt]
    for _ in range(2):
        seen.append(await worker.take())
        worker.succeed(seen[-1])
    ends = [await ended(running), await ended(waiting)]

    assert [end.status for end in ends] == [JobStatus.SUCCEEDED] * 2
    assert {worker.started[assign.runner].deployment for assign in seen} == {one.id}


@pytest.mark.parametrize(
    "files",
    [{"a.py": "no digest"}, {"": "ab" * 32}, {"x" * 1025: "ab" * 32}, {f"{n}": "ab" * 32 for n in range(2001)}, ["a"]],
    ids=["digest", "empty", "long", "many", "list"],
)
async def test_files_that_are_not_told_rightly_are_refused(client, files):
    await upload(client)
    body = {"manifest": {**manifest("work"), "files": files}, "archive_sha256": hashlib.sha256(ARCHIVE).hexdigest()}

    refused = await client.request("POST", "/v1/apps/shop/deployments", json=body)

    assert refused.status == 422
    assert (await client.request("GET", "/v1/apps/shop")).status == 404
