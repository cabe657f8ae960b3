"""Another org's things and things that do not exist are the same to everybody (G16.1)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from apothic.wire.frames import encode_frame
from apothic.wire.ids import make_key
from apothic.wire.values import CALL_TYPE, OUTCOME_TYPE
from apothic_server.api.runtime.document import read_document
from apothic_server.testing.asgi import Answer, AsgiClient
from apothic_server.testing.contract import Contract
from apothic_server.testing.groups import packed
from apothic_server.testing.guarantees import guarantee
from apothic_server.testing.scenario import ARCHIVE_SHA256, World, make_world, manifest

pytestmark = pytest.mark.anyio

CONTRACT = Contract(json.loads(read_document()))
WITH_THINGS = sorted(name for name in CONTRACT.operations if CONTRACT.parameters(name, "path"))
KEY = make_key(2**47, 7)
NOWHERE: dict[str, str] = {
    "app": "hello-nobody",
    "function": "greet",
    "function_id": f"functions:{KEY}",
    "deployment_id": f"deployments:{KEY}",
    "job_id": f"jobs:{KEY}",
    "group_id": f"groups:{KEY}",
    "sha256": "0" * 64,
    "deployment_key": KEY,
    "schedule_id": f"schedules:{KEY}",
    "worker": "nobody",
    "join_token": f"join_tokens:{KEY}",
}
JSON_BODY = {"content-type": "application/json"}
BODIES: dict[str, list[tuple[dict[str, str], bytes]]] = {
    "create_deployment": [
        (JSON_BODY, json.dumps({"manifest": manifest("greet"), "archive_sha256": ARCHIVE_SHA256}).encode())
    ],
    "put_archive": [({"content-type": "application/octet-stream"}, b"other bytes than the digest says")],
    "put_blob": [({"content-type": "application/octet-stream"}, b"other bytes than the digest says")],
    "call_function": [
        (JSON_BODY, b"{}"),
        (
            {"content-type": CALL_TYPE, "accept": OUTCOME_TYPE},
            encode_frame({"encoding": "json", "python": None}, b"[]"),
        ),
    ],
}
for name, body in (
    ("create_group", b"{}"),
    ("create_app_group", b"{}"),
    ("close_group", b'{"total":0}'),
    ("cancel_group", b"{}"),
):
    BODIES[name] = [(JSON_BODY, body)]
BODIES["call_app_function"] = BODIES["call_function"]
BODIES["add_inputs"] = [({"content-type": "application/octet-stream"}, packed(1))]
QUERIES = {"add_inputs": "?first=0&count=1"}
BODIES["get_outcome"] = [({}, b""), ({"accept": OUTCOME_TYPE}, b"")]


async def picture(client: AsgiClient, world: World) -> list[Any]:
    """Everything its owner can see of a world."""
    paths = ["/v1/apps", f"/v1/apps/{world.app}", f"/v1/deployments/{world.deployment_id}", f"/v1/jobs/{world.job_id}"]
    paths += [
        f"/v1/jobs/{world.job_id}/logs",
        f"/v1/functions/{world.function_id}",
        f"/v1/groups/{world.group_id}",
        f"/v1/schedules/{world.schedule_id}",
    ]
    return [(await client.request("GET", path)).json for path in paths]


async def send(
    client: AsgiClient, operation: str, headers: dict[str, str], body: bytes, params: dict[str, str]
) -> Answer:
    described = CONTRACT.operations[operation]
    target = described.path.format(**params) + QUERIES.get(operation, "")
    answer = await client.request(described.method, target, headers=headers, body=body)
    CONTRACT.check(operation, answer)
    return answer


def essence(answer: Answer, params: dict[str, str]) -> tuple[int, str]:
    """What an answer tells, without its request id and with the asked names blanked out."""
    text = answer.body.decode().replace(answer.headers["x-request-id"], "")
    for value in params.values():
        text = text.replace(value, "")
    return answer.status, text


@guarantee("G16.1", "cross_org_matrix")
@pytest.mark.parametrize("operation", WITH_THINGS)
async def test_foreign_and_unknown_things_answer_the_same(cloud, operation):
    owner, stranger = AsgiClient(cloud.asgi, cloud.key), AsgiClient(cloud.asgi, cloud.other_key)
    world = await make_world(owner)
    before = await picture(owner, world)
    names = CONTRACT.parameters(operation, "path")
    foreign = {name: str(getattr(world, name)) for name in names}
    unknown = {name: NOWHERE[name] for name in names}

    for headers, body in BODIES.get(operation, [({}, b"")]):
        one = await send(stranger, operation, headers, body, foreign)
        other = await send(stranger, operation, headers, body, unknown)
        assert essence(one, foreign) == essence(other, unknown)
        assert one.status in (403, 404, 409, 422)

    assert await picture(owner, world) == before
    assert (await stranger.request("GET", "/v1/apps")).json["items"] == []


@guarantee("G16.1", "cross_org_matrix")
async def test_two_orgs_have_the_same_names_without_meeting(cloud):
    owner, stranger = AsgiClient(cloud.asgi, cloud.key), AsgiClient(cloud.asgi, cloud.other_key)

    one, other = await make_world(owner), await make_world(stranger)

    assert one.app == other.app
    assert {one.function_id, one.deployment_id, one.job_id}.isdisjoint(
        {other.function_id, other.deployment_id, other.job_id}
    )
    for client, world in ((owner, one), (stranger, other)):
        listed = (await client.request("GET", "/v1/apps")).json["items"]
        assert [app["deployment_id"] for app in listed] == [world.deployment_id]


@guarantee("G16.1", "cross_org_matrix")
async def test_names_of_another_org_are_no_near_matches(cloud):
    await make_world(AsgiClient(cloud.asgi, cloud.key))
    stranger = AsgiClient(cloud.asgi, cloud.other_key)

    answer = await stranger.request("GET", "/v1/apps/helo-world/functions/greet")

    assert answer.status == 404
    assert "hello-world" not in answer.json["detail"]
