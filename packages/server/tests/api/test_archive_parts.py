"""Uploads that make an archive of parts of another one and of new bytes."""

from __future__ import annotations

import hashlib

import pytest

from apothic.wire.archive_parts import PARTS_TYPE, Part, encode_parts
from apothic_server.testing.asgi import AsgiClient
from apothic_server.testing.guarantees import guarantee
from apothic_server.testing.scenario import manifest, upload

pytestmark = pytest.mark.anyio
HEADERS = {"content-type": PARTS_TYPE}
BASE = bytes(range(256)) * 4096
"""1 MiB, so more than one piece of a blob."""
BASE_SHA256 = hashlib.sha256(BASE).hexdigest()
PARTS = [Part(None, 3), Part(10, 300_000), Part(300_010, 5), Part(None, 2), Part(1_048_570, 6)]
WHOLE = b"new" + BASE[10:300_015] + b"er" + BASE[1_048_570:]
WHOLE_SHA256 = hashlib.sha256(WHOLE).hexdigest()


@pytest.fixture
async def client(cloud):
    made = AsgiClient(cloud.asgi, cloud.key)
    await upload(made, BASE)
    return made


async def put(client, body, digest=WHOLE_SHA256):
    return await client.request("PUT", f"/v1/archives/{digest}", headers=HEADERS, body=body)


async def stored(client, cloud, digest):
    body = {"manifest": manifest("work"), "archive_sha256": digest}
    made = await client.request("POST", "/v1/apps/shop/deployments", json=body)
    key = made.json["deployment_id"].partition(":")[2]
    return b"".join([chunk async for chunk in await cloud.services.archives.open_for_link(cloud.worker_actor, key)])


async def test_an_archive_is_made_of_parts_once(client, cloud):
    first = await put(client, encode_parts(BASE_SHA256, PARTS, b"newer"))
    again = await put(client, encode_parts(BASE_SHA256, PARTS, b"newer"))

    assert [answer.status for answer in (first, again)] == [201, 200]
    assert first.json == {"sha256": WHOLE_SHA256, "size_bytes": len(WHOLE)}
    assert await stored(client, cloud, WHOLE_SHA256) == WHOLE


async def test_parts_with_another_digest_leave_nothing(client):
    answer = await put(client, encode_parts(BASE_SHA256, PARTS, b"other"))

    assert (answer.status, answer.json["code"]) == (422, "digest_mismatch")
    assert (await client.request("HEAD", f"/v1/archives/{WHOLE_SHA256}")).status == 404


@guarantee("G16.1", "cross_org_matrix")
async def test_a_base_of_another_org_is_one_that_does_not_exist(client, cloud):
    stranger = AsgiClient(cloud.asgi, cloud.other_key)
    body = encode_parts(BASE_SHA256, [Part(0, len(BASE))], b"")

    foreign = await put(stranger, body, BASE_SHA256)
    unknown = await put(stranger, encode_parts("0" * 64, [Part(0, 1)], b""))

    assert [(answer.status, answer.json["code"]) for answer in (foreign, unknown)] == [(409, "archive_missing")] * 2
    assert foreign.json["detail"] == unknown.json["detail"]
    assert (await stranger.request("HEAD", f"/v1/archives/{BASE_SHA256}")).status == 404


@guarantee("G15.1", "limits_table")
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"\0" * 8, 422),
        (encode_parts(BASE_SHA256, PARTS, b"newer")[:-1], 422),
        (encode_parts(BASE_SHA256, PARTS, b"newer") + b"x", 422),
        (encode_parts("\0" * 64, PARTS, b"newer"), 422),
        (encode_parts(BASE_SHA256.upper(), PARTS, b"newer"), 422),
        (encode_parts(BASE_SHA256, [Part(len(BASE), 1)], b""), 422),
        (encode_parts(BASE_SHA256, [Part(len(BASE) - 1, 2)], b""), 422),
        (encode_parts(BASE_SHA256, [Part(None, 9_000_000)], bytes(9_000_000)), 413),
    ],
    ids=["empty", "zeros", "cut", "longer", "nul", "capitals", "behind the end", "over the end", "too long"],
)
async def test_parts_that_make_no_archive_are_refused(client, body, status):
    answer = await put(client, body)

    assert answer.status == status
    assert (await client.request("HEAD", f"/v1/archives/{WHOLE_SHA256}")).status == 404


@pytest.mark.parametrize("sizes", [[1], [1, 2, 3], [1, -1], [1, 2**31 + 1], ["1", 2], [1.5, 2], 3], ids=str)
async def test_sizes_that_do_not_fit_the_files_are_refused(client, sizes):
    told = {**manifest("work"), "files": {"a.py": "ab" * 32, "b.py": "cd" * 32}}
    answers = [
        await client.request(
            "POST",
            "/v1/apps/shop/deployments",
            json={"manifest": {**told, "file_sizes": given}, "archive_sha256": BASE_SHA256},
        )
        for given in ([1, 2], sizes)
    ]

    assert [answer.status for answer in answers] == [201, 422]
    assert answers[0].json["manifest"]["file_sizes"] == [1, 2]
