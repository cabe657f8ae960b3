"""Uploads that make an archive of parts of another one and of new bytes."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from dataclasses import replace

import pytest

from apothic.wire.archive_parts import PARTS_TYPE, Part, encode_parts
from apothic.wire.ids import OrgId, new_key
from apothic_server.adapters.blobs.files import FileBlobs
from apothic_server.services.archives import COMPOSED_AT_ONCE, Archives
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


async def test_what_needs_no_bytes_reads_none(client, cloud, tmp_path):
    await put(client, encode_parts(BASE_SHA256, PARTS, b"newer"))
    await FileBlobs(tmp_path / "blobs").delete(cloud.actor.org, BASE_SHA256)

    present = await put(client, encode_parts(BASE_SHA256, PARTS, b"newer"))
    too_far = await put(client, encode_parts(BASE_SHA256, [Part(len(BASE), 1)], b""), "0" * 64)
    gone = await put(client, encode_parts(BASE_SHA256, [Part(0, 1)], b""), "0" * 64)

    assert (present.status, present.json["size_bytes"]) == (200, len(WHOLE))
    assert (too_far.status, too_far.json["detail"]) == (422, "a part lies behind the end of the base")
    assert (gone.status, gone.json["code"]) == (409, "archive_missing")


class HeldBlobs(FileBlobs):
    """Blobs whose readers wait until they are let go; knows how many there were at once."""

    def __init__(self, root):
        super().__init__(root)
        self.readers = Counter()
        self.most = Counter()
        self.is_full, self.let_go = asyncio.Event(), asyncio.Event()

    async def open(self, org, sha256):
        chunks = await super().open(org, sha256)
        return self._held(org, chunks)

    async def _held(self, org, chunks):
        for who in (org, "all"):
            self.readers[who] += 1
            self.most[who] = max(self.most[who], self.readers[who])
        if self.readers["all"] == COMPOSED_AT_ONCE:
            self.is_full.set()
        try:
            await self.let_go.wait()
            async for chunk in chunks:
                yield chunk
        finally:
            await chunks.aclose()
            self.readers.subtract((org, "all"))


async def test_few_archives_are_made_of_parts_at_once_and_one_of_an_org(cloud, tmp_path):
    blobs = HeldBlobs(tmp_path / "held")
    archives = Archives(cloud.inner.database, blobs, cloud.clock, cloud.inner.disk)
    third = replace(cloud.other_actor, org=OrgId(new_key()))
    async with cloud.inner.database.system_unit() as unit:
        await unit.execute("INSERT INTO orgs VALUES ($1, 'third', $2)", third.org, cloud.clock.now())
    actors = [cloud.actor, cloud.other_actor, third]

    async def whole(data):
        yield data

    for actor in actors:
        await archives.put(actor, BASE_SHA256, whole(BASE))
    uploads = [
        asyncio.ensure_future(
            archives.put_parts(
                actor, hashlib.sha256(BASE + new).hexdigest(), BASE_SHA256, [Part(0, len(BASE)), Part(None, 1)], new
            )
        )
        for actor in actors
        for new in (b"1", b"2")
    ]
    await blobs.is_full.wait()
    await archives.put(cloud.actor, WHOLE_SHA256, whole(WHOLE))
    blobs.let_go.set()
    made = await asyncio.gather(*uploads)

    assert made == [(len(BASE) + 1, True)] * 6
    assert blobs.most == {"all": COMPOSED_AT_ONCE, **{actor.org: 1 for actor in actors}}


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
