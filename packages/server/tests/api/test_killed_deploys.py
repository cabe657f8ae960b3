"""A server killed at any point of an upload, a deploy or a rollback: the old version is live or the new one, whole."""

from __future__ import annotations

import hashlib
import json

import pytest

from apothic_server.bootstrap import Cloud
from apothic_server.testing.asgi import AsgiClient
from apothic_server.testing.guarantees import guarantee
from apothic_server.testing.scenario import OCTETS, manifest

from .doomed import HOLDER, Ask, doomed_servers

pytestmark = pytest.mark.anyio
KILLS = 25
PHASES = [
    ("upload", "arriving"),
    ("upload", "archive.before"),
    ("upload", "archive.after"),
    ("deploy", "deploy.before"),
    ("deploy", "deploy.after"),
    ("rollback", "deploy.before"),
    ("rollback", "deploy.after"),
]
VERSIONS = """
SELECT d.version, d.archive, d.restored_from, d.manifest -> 'functions' -> 0 ->> 'memory_mb' AS memory_mb,
       d.status = 'active' AS is_active, d.id = a.active_deployment AS is_named
FROM deployments d JOIN apps a ON a.id = d.app ORDER BY d.version
"""


@pytest.fixture(scope="module")
def doomed():
    with doomed_servers() as servers:
        yield servers


def archive(number):
    """More than is kept in memory before it is written."""
    return f"content {number} ".encode() * 110_000


def digest(number):
    return hashlib.sha256(archive(number)).hexdigest()


def upload(number):
    return Ask("PUT", f"/v1/archives/{digest(number)}", archive(number), OCTETS["content-type"])


def deploy(number):
    """Files and manifest tell the same number, so that a mixture would show."""
    body = {"manifest": manifest("work", memory_mb=1_000 + number), "archive_sha256": digest(number)}
    return Ask("POST", "/v1/apps/shop/deployments", json.dumps(body).encode(), key=f"deploy-{number}")


def rollback(number):
    return Ask("POST", "/v1/apps/shop/rollback", key=f"rollback-{number}")


def steps(kind, number):
    """The requests of one round; the last one is the one that kills."""
    every = {
        "upload": [upload(number)],
        "deploy": [upload(number), deploy(number)],
        "rollback": [upload(number), deploy(number), rollback(number)],
    }
    return every[kind]


async def state(database):
    """Versions of the app in their order, and the digests of the archives."""
    async with database.system_unit() as unit:
        versions = [dict(row.items()) for row in await unit.fetch(VERSIONS)]
        return versions, {row["sha256"] for row in await unit.fetch("SELECT sha256 FROM archives")}


def check_whole(versions, archives, numbers):
    """One version is active, the app names it, and each has the archive that belongs to its manifest."""
    assert [one["version"] for one in versions] == list(range(1, len(versions) + 1))
    assert sum(one["is_active"] for one in versions) == 1
    assert all(one["is_active"] == one["is_named"] for one in versions)
    pairs = {(digest(number), str(1_000 + number)) for number in numbers}
    assert {(one["archive"], one["memory_mb"]) for one in versions} <= pairs
    assert {one["archive"] for one in versions} <= archives


def has_happened(kind, number, versions, archives):
    newest = versions[-1]
    return {
        "upload": digest(number) in archives,
        "deploy": newest["archive"] == digest(number),
        "rollback": newest["restored_from"] is not None,
    }[kind]


def check_repeat(kind, number, answer):
    """The repeat of a request that was never answered answers as if it had been."""
    status, body = answer
    assert status in (200, 201)
    if kind == "upload":
        assert body["sha256"] == digest(number)
    elif kind == "deploy":
        assert body["archive_sha256"] == digest(number)
    else:
        assert body["archive_sha256"] != digest(number)
        assert body["restored_from"] is not None


@guarantee("G11.3", "deploy_kill_every_phase", count=KILLS)
@pytest.mark.parametrize(("kind", "point"), PHASES)
async def test_a_server_killed_at_any_point_leaves_the_old_version_live_or_the_new_one(
    cloud, database, postgres, tmp_path, doomed, kind, point
):
    client = AsgiClient(cloud.asgi, cloud.key)
    for ask in [upload(0), deploy(0), upload(1), deploy(1)]:
        headers = {"content-type": ask.content_type}
        assert (await client.request(ask.method, ask.target, headers=headers, body=ask.body)).status == 201
    await cloud.inner.stop()
    repeats: list[Ask] = []
    for number in range(2, 2 + KILLS):
        asked = [*repeats, *steps(kind, number)]
        answers = doomed.kill(point, asked, postgres, tmp_path, cloud.key)
        versions, archives = await state(database)

        assert {status for status, _ in answers} <= {200, 201}
        if repeats:
            check_repeat(kind, number - 1, answers[0])
        check_whole(versions, archives, range(2 + KILLS))
        assert has_happened(kind, number, versions, archives) == point.endswith("after")
        repeats = asked[-1:]

    again = Cloud(postgres, tmp_path, url="http://again.test", holder=HOLDER)
    await again.start(run_loops=False)
    try:
        answer = await AsgiClient(again.asgi, cloud.key).request(
            repeats[0].method, repeats[0].target, headers=repeats[0].told()["headers"], body=repeats[0].body
        )
        versions, archives = await state(database)
        check_repeat(kind, 1 + KILLS, (answer.status, answer.json))
        check_whole(versions, archives, range(2 + KILLS))
        assert len(versions) == 2 + {"upload": 0, "deploy": 1, "rollback": 2}[kind] * KILLS
        assert list((tmp_path / "blobs" / ".incoming").iterdir()) == []
        for sha256 in archives:
            (stored,) = (tmp_path / "blobs").rglob(sha256)
            assert hashlib.sha256(stored.read_bytes()).hexdigest() == sha256
    finally:
        await again.stop()
