"""Answers that are lost on their way: the SDK asks again with the same key, and everything happened once."""

import asyncio

import pytest

from apothic import ControlPlaneClient
from apothic._core import Core
from apothic.config import parse_url
from apothic.wire.functions import FunctionSpec, Manifest
from apothic.wire.values import Value
from apothic_server.testing.guarantees import guarantee

from .lossy import LossyProxy

CALLS = 1_000
NOTHING = Value("json", b"[[],{}]")


@pytest.fixture
def lossy(cloud):
    """A way to the cloud on which the first answer to every key is lost."""
    proxy = LossyProxy(cloud.url)
    yield proxy
    proxy.close()


@pytest.fixture
def client(cloud, lossy):
    """A client that pauses before no repeat."""
    endpoint = parse_url(lossy.url, authorization=f"Bearer {cloud.key}")
    made = ControlPlaneClient.from_core(Core(endpoint, random=lambda: 0.0))
    yield made
    made.close()


@guarantee("G6.4", "sdk_retry_single_effect", count=CALLS)
def test_a_thousand_calls_whose_answers_are_lost_run_once_each(jobs_app, client, lossy):
    function = client.get_function(jobs_app, "tally").function_id
    before = int(client.call(function, NOTHING).value.data)
    lossy.lost = 0

    def spawned():
        return client.outcome(client.spawn(function, NOTHING))

    async def spawned_async():
        return await client.aio.outcome(await client.aio.spawn(function, NOTHING))

    ways = [
        lambda: client.call(function, NOTHING),
        lambda: asyncio.run(client.aio.call(function, NOTHING)),
        spawned,
        lambda: asyncio.run(spawned_async()),
    ]
    counted = [int(ways[number % len(ways)]().value.data) for number in range(CALLS)]

    assert lossy.lost == CALLS
    assert counted == list(range(before + 1, before + 1 + CALLS))


@guarantee("G6.4", "sdk_retry_single_effect")
def test_a_deploy_whose_answer_is_lost_makes_one_version(jobs_app, cloud, client, lossy):
    archive = cloud.request("GET", f"/v1/apps/{jobs_app}").json["deployment_id"]
    sha256 = client.get_deployment(archive).archive_sha256
    manifest = Manifest("jobs_app", "app", "3.11", "0.1.0", (FunctionSpec("echo", qualname="echo"),))

    made = [client.create_deployment("lossy", manifest, sha256), client.create_deployment("lossy", manifest, sha256)]

    assert [one.version for one in made] == [1, 2]
    assert lossy.lost == 2
    assert client.get_app("lossy").version == 2
