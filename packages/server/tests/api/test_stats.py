"""How the calls of an app went: counted and measured in the store."""

import pytest

from apothic.wire.functions import FunctionSpec
from apothic_server.store import stats as rows
from apothic_server.testing.asgi import AsgiClient
from apothic_server.testing.cloud import ScriptedWorker, ended
from apothic_server.testing.guarantees import guarantee

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(cloud):
    return AsgiClient(cloud.asgi, cloud.key)


async def numbers(client, query=""):
    answer = await client.request("GET", f"/v1/apps/shop/stats{query}")
    assert answer.status == 200
    return answer.json


async def test_jobs_are_counted_by_status_and_measured(cloud, client):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work"), FunctionSpec("other", qualname="other"))
    await cloud.deploy("store")
    jobs = [await cloud.spawn() for _ in range(3)]
    await cloud.advance(2)
    worker = await ScriptedWorker(cloud).connect()
    first = await worker.take()
    await cloud.spawn(app="store")
    await cloud.advance(5)
    worker.succeed(first)
    await ended(jobs[0])

    found = await numbers(client, "?since=2001-01-01T00:00:00Z")
    (work,) = found["functions"]

    assert (found["app"], found["since"], found["is_whole"]) == ("shop", "2001-01-01T00:00:00.000Z", True)
    assert (work["function"], work["jobs"]) == ("work", 3)
    assert work["statuses"]["succeeded"] == 1
    assert sum(work["statuses"].values()) == 3
    assert work["run_s"] == {"p50": 5.0, "p90": 5.0, "p99": 5.0, "max": 5.0}
    assert work["queue_s"]["max"] >= 2
    assert (await numbers(client, "?function=other"))["functions"] == []


async def test_what_is_not_looked_at_is_told(cloud, client, monkeypatch):
    monkeypatch.setattr(rows, "LOOKED_AT_MAX", 2)
    await cloud.deploy()
    for _ in range(3):
        await cloud.spawn()
        await cloud.advance(1)

    found = await numbers(client)

    assert (found["is_whole"], found["functions"][0]["jobs"]) == (False, 2)
    assert found["since"] is not None
    assert found["functions"][0]["run_s"] is None


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/apps/shp/stats", "did you mean shop?"),
        ("/v1/apps/shop/stats?function=wrk", "did you mean work?"),
        ("/v1/apps/%2F/stats", "no such app"),
    ],
    ids=["app", "function", "malformed"],
)
async def test_unknown_names_are_refused_with_near_ones(cloud, client, path, said):
    await cloud.deploy()

    answer = await client.request("GET", path)

    assert answer.status == 404
    assert said in answer.json["detail"]


@pytest.mark.parametrize("query", ["since=now", "since=2026-01-01", "since=1960-01-01T00:00:00Z", "x=1"])
async def test_bad_parameters_are_refused(cloud, client, query):
    await cloud.deploy()

    answer = await client.request("GET", f"/v1/apps/shop/stats?{query}")

    assert (answer.status, answer.json["code"]) == (422, "invalid")


@guarantee("G16.1", "cross_org_matrix")
async def test_the_numbers_of_another_org_are_its_own(cloud, client):
    await cloud.deploy()

    answer = await client.as_holder_of(cloud.other_key).request("GET", "/v1/apps/shop/stats")

    assert answer.status == 404
