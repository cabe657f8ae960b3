"""Event streams of apps and deployments: the rules of job streams, written in the commit of the change."""

import json

import pytest

from apothic.wire.ids import DeploymentId
from apothic_server.domain.jobs import StreamEvent
from apothic_server.services import deployment_events
from apothic_server.store.streams import append
from apothic_server.testing.asgi import AsgiClient
from apothic_server.testing.guarantees import guarantee

pytestmark = pytest.mark.anyio
SSE = {"accept": "text/event-stream"}


@pytest.fixture
async def client(cloud):
    return AsgiClient(cloud.asgi, cloud.key)


def parse(body):
    events = []
    for block in body.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        events.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return events


async def page(client, path):
    answer = await client.request("GET", path)
    assert answer.status == 200
    return answer.json


def told(found):
    return [(event["index"], event["event"]) for event in found["events"]]


@guarantee("G5.1", "indexes_dense")
async def test_every_deploy_is_one_event_of_the_app_and_moves_the_deployments(cloud, client):
    one, two = [await cloud.deploy() for _ in range(2)]

    app = await page(client, "/v1/apps/shop/events")
    first = await page(client, f"/v1/deployments/deployments:{one.id}/events")
    second = await page(client, f"/v1/deployments/deployments:{two.id}/events")

    assert told(app) == [(0, "app.deployed"), (1, "app.deployed")]
    assert [event["data"] for event in app["events"]] == [
        {"deployment_id": f"deployments:{one.id}", "version": 1, "previous_deployment_id": None, "time": at(one)},
        {
            "deployment_id": f"deployments:{two.id}",
            "version": 2,
            "previous_deployment_id": f"deployments:{one.id}",
            "time": at(two),
        },
    ]
    assert told(first) == [(0, "deployment.created"), (1, "deployment.active"), (2, "deployment.superseded")]
    assert first["events"][2]["data"] == {
        "status": "superseded",
        "deployment_id": f"deployments:{two.id}",
        "time": at(two),
    }
    assert told(second) == [(0, "deployment.created"), (1, "deployment.active")]
    assert (app["is_final"], first["is_final"], second["is_final"]) == (False, False, False)


async def test_an_app_is_found_by_name_and_by_id(cloud, client):
    deployment = await cloud.deploy()

    assert await page(client, f"/v1/apps/apps:{deployment.app}/events") == await page(client, "/v1/apps/shop/events")


@guarantee("G5.3", "snapshot_then_exactly_next")
async def test_a_snapshot_of_an_app_is_followed_by_exactly_the_next_event(cloud, client):
    one = await cloud.deploy()
    async with client.open("GET", "/v1/apps/shop/events?snapshot=true", headers=SSE) as exchange:
        [(index, kind, data)] = parse(await exchange.piece())
        two = await cloud.deploy()
        [(later, following, deployed)] = parse(await exchange.piece())

    assert (index, kind, data["index"]) == (0, "app.snapshot", 0)
    assert data["app"]["deployment_id"] == f"deployments:{one.id}"
    assert (later, following, deployed["deployment_id"]) == (1, "app.deployed", f"deployments:{two.id}")
    assert cloud.services.streams.watchers == 0


async def test_a_snapshot_of_a_deployment_holds_the_deployment(cloud, client):
    deployment = await cloud.deploy()

    [event] = (await page(client, f"/v1/deployments/deployments:{deployment.id}/events?snapshot=true"))["events"]

    assert (event["index"], event["event"]) == (1, "deployment.snapshot")
    assert (event["data"]["deployment"]["status"], event["data"]["index"]) == ("active", 1)


@guarantee("G5.5", "reset_not_silence")
@pytest.mark.parametrize("after", [5, 2**62])
async def test_an_index_that_an_app_does_not_have_gets_one_reset(cloud, client, after):
    await cloud.deploy()

    [event] = (await page(client, f"/v1/apps/shop/events?after={after}"))["events"]

    assert (event["index"], event["event"]) == (0, "app.reset")
    assert event["data"]["requested_index"] == after
    assert event["data"]["snapshot"]["app"]["version"] == 1


@guarantee("G5.2", "watch_model_check")
async def test_filters_of_deployments_hide_and_never_renumber(cloud, client):
    one = await cloud.deploy()
    await cloud.deploy()

    path = f"/v1/deployments/deployments:{one.id}/events?types=deployment.superseded"

    assert told(await page(client, path)) == [(2, "deployment.superseded")]


@pytest.mark.parametrize("path", ["apps/shop", "deployments/deployments:{}"])
@pytest.mark.parametrize("query", ["types=job.end", "types=", "after=x", "snapshot=2", "odd=1"])
async def test_bad_queries_are_refused(cloud, client, path, query):
    deployment = await cloud.deploy()

    answer = await client.request("GET", f"/v1/{path.format(deployment.id)}/events?{query}")

    assert (answer.status, answer.json["code"]) == (422, "invalid")
    assert cloud.services.streams.watchers == 0


async def test_the_key_of_one_thing_is_no_stream_of_another(cloud, client):
    deployment = await cloud.deploy()
    job = await cloud.spawn()

    paths = [
        f"apps/apps:{deployment.id}",
        f"deployments/deployments:{deployment.app}",
        f"jobs/jobs:{deployment.id}",
        f"apps/apps:{job.job}",
        "apps/nothing",
        "apps/apps:",
    ]

    assert [(await client.request("GET", f"/v1/{path}/events")).status for path in paths] == [404] * len(paths)


@guarantee("G16.1", "cross_org_matrix")
async def test_a_stream_that_its_owner_watches_is_still_unknown_to_others(cloud, client):
    deployment = await cloud.deploy()
    job = await cloud.spawn()
    stranger = client.as_holder_of(cloud.other_key)
    paths = [f"/v1/jobs/jobs:{job.job}/events", f"/v1/deployments/deployments:{deployment.id}/events"]
    paths.append(f"/v1/apps/apps:{deployment.app}/events")

    for path in paths:
        async with client.open("GET", path, headers=SSE) as exchange:
            assert parse(await exchange.piece())
            assert (await stranger.request("GET", path)).status == 404
            assert (await stranger.request("GET", path, headers=SSE)).status == 404
    assert cloud.services.streams.watchers == 0


@guarantee("G5.1", "indexes_dense")
async def test_a_deploy_that_fails_leaves_no_event(cloud, client):
    one = await cloud.deploy()
    stream = deployment_events.app_stream(one.app)

    with pytest.raises(RuntimeError):
        async with cloud.inner.database.request_unit(cloud.inner.org) as unit:
            await deployment_events.tell_deployed(unit, one, DeploymentId("0" * 26))
            raise RuntimeError

    batch = await cloud.services.streams.read(cloud.actor, stream, after=-1)
    assert [event.index for event in batch.events] == [0]


async def test_what_was_deployed_before_streams_has_one_without_a_past(cloud, client):
    deployment = await cloud.deploy()
    async with cloud.inner.database.system_unit() as unit:
        await unit.execute("DELETE FROM events WHERE stream = $1", deployment.app)
        await unit.execute("UPDATE streams SET next_index = 0 WHERE stream = $1", deployment.app)

    snapshot = await page(client, "/v1/apps/shop/events?snapshot=true")
    empty = await page(client, "/v1/apps/shop/events")
    await cloud.deploy()

    assert told(snapshot) == [(-1, "app.snapshot")]
    assert (empty["events"], empty["last_index"]) == ([], -1)
    assert told(await page(client, "/v1/apps/shop/events?after=-1")) == [(0, "app.deployed")]


def at(deployment):
    return deployment.created_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@guarantee("G5.4", "retention_floor")
async def test_an_apps_stream_keeps_its_newest_ten_thousand_events(cloud, client):
    deployment = await cloud.deploy()
    stream = deployment_events.app_stream(deployment.app)
    more = [StreamEvent("app.deployed", cloud.clock.now(), {"version": number}) for number in range(10_049)]
    async with cloud.inner.database.system_unit() as unit:
        await append(unit, cloud.inner.org, stream, more)

    await cloud.inner.retention.step()

    assert [index for index, _ in await cloud.events(deployment.app)] == list(range(50, 10_050))
    [reset] = (await page(client, "/v1/apps/shop/events?after=3"))["events"]
    assert (reset["event"], reset["data"]["oldest_index"]) == ("app.reset", 50)


@guarantee("G5.4", "retention_floor")
async def test_a_deleted_deployments_stream_goes_after_seven_days_but_for_its_end(cloud, client):
    deployment = await cloud.deploy()
    await client.request("DELETE", f"/v1/deployments/deployments:{deployment.id}?now=true")
    cloud.clock.advance(7 * 86_400 - 60)
    await cloud.inner.retention.step()
    before = await cloud.events(deployment.id)
    cloud.clock.advance(120)

    await cloud.inner.retention.step()

    assert len(before) == 4
    assert await cloud.events(deployment.id) == [(3, "deployment.end")]
