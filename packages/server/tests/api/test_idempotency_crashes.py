"""A server killed at any point of a request with a key: the effect and its key are on disk together or not at all."""

from __future__ import annotations

import json

import pytest

from apothic_server.bootstrap import Cloud, Sources
from apothic_server.testing.asgi import AsgiClient
from apothic_server.testing.guarantees import guarantee
from apothic_server.testing.scenario import ARCHIVE_SHA256, make_world, manifest

from .doomed import HOLDER, Ask, doomed_servers

pytestmark = pytest.mark.anyio

WRITER = ("writer.taken", "writer.committed")
"""One statement writes the effect and its key and commits by itself, so there is nothing between these two."""

POINTS = [
    *(("call", point) for point in (*WRITER, "call.accepted")),
    *(("deploy", point) for point in ("deploy.before", "deploy.after")),
    *(("cancel", point) for point in (*WRITER, "cancel.committed")),
]
EFFECTS = {
    "call": "SELECT count(*) - 1 FROM jobs",
    "deploy": "SELECT count(*) - 1 FROM deployments",
    "cancel": "SELECT count(*) FROM events WHERE kind = 'job.end'",
}


async def effects(cloud: Cloud, kind: str) -> tuple[int, int]:
    """How often the effect is on disk, and how often its key is."""
    async with cloud.database.system_unit() as unit:
        return await unit.fetchval(EFFECTS[kind]), await unit.fetchval("SELECT count(*) FROM idempotency_keys")


@pytest.fixture(scope="module")
def doomed():
    with doomed_servers() as servers:
        yield servers


@guarantee("G6.1", "idem_crash_every_point")
@pytest.mark.parametrize(("kind", "point"), POINTS)
async def test_a_server_killed_at_any_point_leaves_one_effect_and_the_repeat_gets_it(
    cloud, postgres, tmp_path, doomed, kind, point
):
    world = await make_world(AsgiClient(cloud.asgi, cloud.key))
    target, body = {
        "call": (f"/v1/functions/{world.function_id}/calls?wait_s=0", {"args": [1]}),
        "deploy": (f"/v1/apps/{world.app}/deployments", {"manifest": manifest("x"), "archive_sha256": ARCHIVE_SHA256}),
        "cancel": (f"/v1/jobs/{world.job_id}/cancel", None),
    }[kind]
    await cloud.inner.stop()
    told = b"" if body is None else json.dumps(body).encode()

    doomed.kill(point, [Ask("POST", target, told, key="k")], postgres, tmp_path, cloud.key)
    second = Cloud(postgres, tmp_path, url="http://second.test", sources=Sources(clock=cloud.clock), holder=HOLDER)
    try:
        await second.start(run_loops=False)
        effect, key = await effects(second, kind)
        client = AsgiClient(second.asgi, cloud.key)
        answers = [await client.request("POST", target, json=body, headers={"Idempotency-Key": "k"}) for _ in range(2)]
        after = await effects(second, kind)
    finally:
        await second.stop()

    assert effect == key
    assert effect == (point not in ("writer.taken", "deploy.before"))
    assert after == (1, 1)
    assert {answer.status for answer in answers} <= {200, 201, 202}
    assert answers[0].body == answers[1].body
    assert ("idempotent-replayed" in answers[0].headers) == bool(effect)
