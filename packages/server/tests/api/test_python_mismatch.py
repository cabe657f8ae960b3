"""Arguments that only another Python can read are refused when the call is made."""

from __future__ import annotations

import pytest

from apothic.wire.frames import encode_frame
from apothic.wire.values import CALL_TYPE
from apothic_server.testing.asgi import AsgiClient
from apothic_server.testing.scenario import ARCHIVE_SHA256, deploy, manifest

pytestmark = pytest.mark.anyio
CALLS = "/v1/apps/shop/functions/work/calls?wait_s=0"


@pytest.fixture
async def client(cloud):
    made = AsgiClient(cloud.asgi, cloud.key)
    await deploy(made, "shop", "work")
    return made


async def call(client, python):
    body = encode_frame({"encoding": "pickle", "python": python}, b"opaque")
    return await client.request("POST", CALLS, headers={"content-type": CALL_TYPE}, body=body)


@pytest.mark.parametrize("python", ["3.10", "3.12", "3.1", "3.99"])
async def test_a_call_of_another_python_is_refused_and_makes_no_job(client, python):
    answer = await call(client, python)
    listed = await client.request("GET", "/v1/jobs")

    assert (answer.status, answer.json["code"], answer.json["retryable"]) == (422, "python_mismatch", False)
    assert f"made by Python {python}; work runs Python 3.11" in answer.json["detail"]
    assert listed.json["items"] == []


@pytest.mark.parametrize("python", [None, "3.11"])
async def test_a_call_that_any_or_the_same_python_can_read_is_taken(client, python):
    assert (await call(client, python)).status == 202


async def test_the_image_of_a_function_decides_which_python_it_runs(client):
    await deploy(client, "shop", "work", image={"python": "3.12"})

    assert (await call(client, "3.11")).json["code"] == "python_mismatch"
    assert (await call(client, "3.12")).status == 202


async def test_a_job_is_not_retried_in_a_version_that_cannot_read_its_arguments(client):
    job = (await call(client, "3.11")).json["job_id"]
    await client.request("POST", f"/v1/jobs/{job}/cancel")
    body = {"manifest": {**manifest("work"), "python": "3.12"}, "archive_sha256": ARCHIVE_SHA256}
    await client.request("POST", "/v1/apps/shop/deployments", json=body)

    answer = await client.request("POST", f"/v1/jobs/{job}/retry")

    assert (answer.status, answer.json["code"]) == (422, "python_mismatch")
