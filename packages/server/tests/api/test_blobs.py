"""Large values over HTTP: uploaded in pieces, named by calls and results, kept as long as a job names them."""

from __future__ import annotations

import base64
import hashlib

import pytest

from apothic.wire.frames import encode_frame
from apothic.wire.large import LARGE, Reference
from apothic.wire.link import Finished
from apothic.wire.values import CALL_TYPE, Value
from apothic_server.domain.errors import NotFound
from apothic_server.services import values
from apothic_server.services.values import LargeValues
from apothic_server.testing.asgi import AsgiClient
from apothic_server.testing.cloud import ScriptedWorker, ended
from apothic_server.testing.guarantees import guarantee
from apothic_server.testing.scenario import OCTETS

pytestmark = pytest.mark.anyio
DATA = bytes(range(256)) * 8192
"""2 MiB, so more than one piece of a blob."""
SHA256 = hashlib.sha256(DATA).hexdigest()
PATH = f"/v1/blobs/{SHA256}"
REFERENCE = Reference(SHA256, len(DATA)).encode()
DAYS_S = 86_400


@pytest.fixture
def client(cloud):
    return AsgiClient(cloud.asgi, cloud.key)


async def put(client, data=DATA, query=""):
    return await client.request("PUT", PATH + query, headers=OCTETS, body=data)


async def call(client, data=REFERENCE):
    body = encode_frame({"encoding": LARGE, "python": None}, data)
    path = "/v1/apps/shop/functions/work/calls?wait_s=0"
    return await client.request("POST", path, headers={"content-type": CALL_TYPE}, body=body)


async def state(client):
    answer = await client.request("HEAD", PATH)
    return answer.status, answer.headers.get("upload-offset"), answer.headers.get("upload-complete")


async def test_a_value_is_stored_once_and_read_in_ranges(client):
    first, again = await put(client), await put(client)
    whole = await client.request("GET", PATH)
    part = await client.request("GET", PATH, headers={"range": "bytes=1000000-1000299"})
    rest = await client.request("GET", PATH, headers={"range": f"bytes={len(DATA) - 5}-"})
    behind = await client.request("GET", PATH, headers={"range": f"bytes={len(DATA)}-"})

    assert [first.status, again.status] == [201, 200]
    assert first.json == {"sha256": SHA256, "size_bytes": len(DATA)}
    assert await state(client) == (200, str(len(DATA)), "?1")
    assert (whole.status, whole.body, whole.headers["content-length"]) == (200, DATA, str(len(DATA)))
    assert (part.status, part.body) == (206, DATA[1_000_000:1_000_300])
    assert part.headers["content-range"] == f"bytes 1000000-1000299/{len(DATA)}"
    assert (rest.status, rest.body, behind.status) == (206, DATA[-5:], 422)


async def test_an_upload_that_broke_goes_on_where_it_ended(client):
    async with client.open("PUT", PATH, headers=OCTETS, body=None) as exchange:
        exchange.send_body(DATA[:1_500_000], more=True)
    before = await state(client)
    hidden = await client.request("GET", PATH)
    gap = await put(client, DATA[1_500_001:], "?offset=1500001")
    rest = await put(client, DATA[1_500_000:], "?offset=1500000")

    assert before == (200, "1500000", "?0")
    assert hidden.status == 404
    assert (gap.status, gap.json["code"]) == (409, "upload_offset")
    assert (rest.status, (await client.request("GET", PATH)).body) == (201, DATA)


async def test_a_second_upload_beside_one_that_hangs_is_stored(client):
    async with client.open("PUT", PATH, headers=OCTETS, body=None) as hanging:
        hanging.send_body(DATA[:1_500_000], more=True)
        while await state(client) != (200, "1500000", "?0"):
            hanging.send_body(b"", more=True)
        assert (await put(client)).status == 201
        hanging.send_body(DATA[1_500_000:], more=False)
        assert await hanging.start() == 200
    assert (await client.request("GET", PATH)).body == DATA


async def test_other_bytes_than_the_digest_says_leave_nothing(client):
    answer = await put(client, DATA[1:])

    assert (answer.status, answer.json["code"]) == (422, "digest_mismatch")
    assert (await state(client))[0] == 404


async def test_an_org_neither_reads_nor_names_what_another_one_uploaded(client, cloud):
    stranger = AsgiClient(cloud.asgi, cloud.other_key)
    await cloud.deploy(actor=cloud.other_actor)
    await put(client)

    assert (await state(stranger))[0] == (await stranger.request("GET", PATH)).status == 404
    refused = await call(stranger)
    assert (refused.status, refused.json["code"]) == (404, "no_such_blob")
    assert (await put(stranger)).status == 201


@pytest.mark.parametrize("data", [b"", b"nothing", REFERENCE + b" ", REFERENCE[:64], REFERENCE.upper()])
async def test_a_call_with_a_malformed_reference_is_refused(client, cloud, data):
    await cloud.deploy()
    await put(client)

    assert (await call(client, data)).status == 422


async def test_a_job_takes_and_gives_references_and_pins_what_they_name(client, cloud):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    unknown = await call(client)
    await put(client)
    wrong_size = await call(client, Reference(SHA256, len(DATA) - 1).encode())
    cloud.start_loop("values")
    accepted = await call(client)
    attempt = await worker.take()
    worker.report({"finished": [Finished(attempt.job, attempt.fence, "succeeded", Value(LARGE, REFERENCE))]})
    outcome = await client.request("GET", f"/v1/jobs/{accepted.json['job_id']}/outcome?wait_s=10")

    assert [unknown.json["code"], wrong_size.json["code"]] == ["no_such_blob"] * 2
    assert attempt.arguments == Value(LARGE, REFERENCE)
    assert (outcome.json["status"], outcome.json["encoding"]) == ("succeeded", LARGE)
    assert base64.b64decode(outcome.json["result"]) == REFERENCE

    cloud.clock.advance(2 * DAYS_S)
    await cloud.inner.large_values.step()
    assert (await state(client))[0] == 200


@guarantee("G5.4", "retention_floor")
async def test_a_large_result_is_kept_with_its_job(client, cloud):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    await put(client)
    cloud.start_loop("values")
    job = await cloud.spawn(blocking=True)
    attempt = await worker.take()
    worker.report({"finished": [Finished(attempt.job, attempt.fence, "succeeded", Value(LARGE, REFERENCE))]})
    assert (await ended(job)).status.value == "succeeded"

    cloud.clock.advance(29 * DAYS_S)
    await cloud.inner.large_values.step()
    assert (await state(client))[0] == 200


@pytest.mark.parametrize("data", [REFERENCE, b"no reference"])
async def test_a_result_that_names_nothing_is_none(cloud, data):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    cloud.start_loop("values")
    job = await cloud.spawn(blocking=True)
    attempt = await worker.take()
    worker.report({"finished": [Finished(attempt.job, attempt.fence, "succeeded", Value(LARGE, data))]})
    if data == REFERENCE:
        outcome = await ended(job)
        assert (outcome.status.value, outcome.error.code) == ("failed", "result_unserializable")
    else:  # a worker that reports what is no value has lost the attempt
        assert (await worker.take()).fence > attempt.fence


async def test_what_no_job_names_is_removed_a_day_after_its_last_use(client, cloud, tmp_path):
    await put(client)
    cloud.clock.advance(0.9 * DAYS_S)
    assert (await state(client))[0] == 200
    cloud.clock.advance(0.9 * DAYS_S)
    await cloud.inner.large_values.step()
    assert (await state(client))[0] == 200

    cloud.clock.advance(1.1 * DAYS_S)
    await cloud.inner.large_values.step()
    assert (await state(client))[0] == 404
    assert [path for path in (tmp_path / "values").rglob("*") if path.is_file()] == []
    assert (await put(client)).status == 201


async def test_an_org_keeps_no_more_than_it_may(client, cloud):
    kept: LargeValues = cloud.inner.large_values
    kept._org_bytes_max = len(DATA)
    assert (await put(client)).status == 201
    other = hashlib.sha256(b"more").hexdigest()
    refused = await client.request("PUT", f"/v1/blobs/{other}", headers=OCTETS, body=b"more")

    assert (refused.status, refused.json["code"]) == (507, "large_values_full")
    with pytest.raises(NotFound):
        await kept.use(cloud.actor.org, Value(LARGE, Reference(other, 4).encode()))


@guarantee("G15.1", "limits_table")
async def test_a_value_above_5_gib_is_refused(client, monkeypatch):
    five = 5 * 1024**3
    announced = await client.request("PUT", PATH, headers={**OCTETS, "content-length": str(five + 1)}, body=b"")
    behind = await client.request("PUT", f"{PATH}?offset={five}", headers=OCTETS, body=b"!")
    offset = await client.request("PUT", f"{PATH}?offset={five + 1}", headers=OCTETS, body=b"!")
    monkeypatch.setattr(values, "LARGE_VALUE_MAX", len(DATA) - 1)
    async with client.open("PUT", PATH, headers=OCTETS, body=None) as counted:
        counted.send_body(DATA, more=False)
        assert await counted.start() == 413

    assert [(answer.status, answer.json["code"]) for answer in (announced, behind)] == [(413, "too_large")] * 2
    assert offset.status == 422
    assert (await state(client))[0] == 404
