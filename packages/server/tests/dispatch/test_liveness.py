"""Heartbeats alone are no sign of life, and what a heartbeat does not list is not there."""

import pytest

from apothic.wire.functions import FunctionSpec
from apothic.wire.lease import HEARTBEAT_S
from apothic_server.domain.jobs import JobStatus
from apothic_server.services.dispatch.liveness import ECHO_S
from apothic_server.testing.asgi import AsgiClient
from apothic_server.testing.cloud import ScriptedWorker, ended
from apothic_server.testing.guarantees import guarantee

pytestmark = pytest.mark.anyio


async def beats(cloud, worker, seconds, *held, **echo):
    for _ in range(int(seconds / HEARTBEAT_S)):
        await cloud.advance(HEARTBEAT_S)
        await worker.heartbeat(*held, **echo)


async def shown(cloud):
    """The workers' statuses and the number of impaired ones, as people see them."""
    client = AsgiClient(cloud.asgi, cloud.key)
    listed = (await client.request("GET", "/v1/workers")).json
    metrics = (await client.request("GET", "/metrics")).body.decode()
    impaired = next(line for line in metrics.splitlines() if line.startswith("apothic_workers_impaired "))
    return [item["status"] for item in listed["items"]], float(impaired.split()[1])


@guarantee("G3.4", "zombie_worker_detected")
@pytest.mark.parametrize("echo", [0, -1, 10**9], ids=["none", "a negative number", "a number to come"])
async def test_a_worker_that_beats_without_an_echo_is_impaired_until_it_echoes(cloud, echo):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", max_containers=2))
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()
    await beats(cloud, worker, ECHO_S, attempt, echo=echo)
    before = await shown(cloud), worker.close_code
    await beats(cloud, worker, HEARTBEAT_S, attempt, echo=echo)
    after = await shown(cloud), worker.close_code
    second = await cloud.spawn()
    worker.received.clear()

    await worker.connect(attempt)
    still = await shown(cloud)
    nothing = [name for name, _ in worker.received if name in ("assign", "start_runner")]
    await worker.heartbeat(attempt)
    recovered = await shown(cloud)
    worker.succeed(attempt)
    worker.succeed(await worker.take())

    assert before == ((["live"], 0), None)
    assert after == ((["impaired"], 1), "unavailable")
    assert (still, nothing) == ((["impaired"], 1), [])
    assert recovered == (["live"], 0)
    assert [(await ended(each)).status for each in (job, second)] == [JobStatus.SUCCEEDED] * 2
    assert (await ended(job)).attempt == 1


async def test_a_worker_that_echoes_late_but_always_is_live(cloud):
    worker = await ScriptedWorker(cloud).connect()
    for _ in range(20):
        await cloud.advance(HEARTBEAT_S)
        await worker.heartbeat(echo=max(worker.echo - 3, 0))

    assert (await shown(cloud))[0] == ["live"]


@guarantee("G2.6", "lost_grant_reply")
async def test_a_grant_lost_on_a_link_that_lives_is_taken_back_at_the_second_heartbeat(cloud):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    await cloud.spawn()
    lost = await worker.next("assign")

    await worker.heartbeat()
    early = await cloud.status(lost.job)
    await worker.heartbeat()
    again = await worker.take()

    assert early == "starting"
    assert (again.job, again.attempt, again.fence) == (lost.job, 2, lost.fence + 1)


async def test_what_a_heartbeat_lists_or_what_was_just_sent_is_left_alone(cloud):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()
    for _ in range(5):
        await worker.heartbeat(attempt)
    worker.succeed(attempt)
    other = await cloud.spawn()
    late = await worker.take()
    await worker.heartbeat()
    worker.succeed(late)

    assert [(await ended(each)).attempt for each in (job, other)] == [1, 1]
