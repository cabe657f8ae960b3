"""What a cloud whose disk is nearly full still does, and what it refuses; the test decides how full the disk is."""

import hashlib
import json

import pytest

from apothic.wire.frames import encode_frame
from apothic.wire.values import CALL_TYPE, OUTCOME_TYPE
from apothic_server.api.runtime.document import read_document
from apothic_server.bootstrap import Cloud, Sources
from apothic_server.store.disk import MIB, Disk
from apothic_server.testing.asgi import AsgiClient
from apothic_server.testing.clock import VirtualClock
from apothic_server.testing.cloud import CloudUnderTest, ScriptedWorker
from apothic_server.testing.contract import Contract
from apothic_server.testing.groups import packed
from apothic_server.testing.guarantees import guarantee
from apothic_server.testing.scenario import ARCHIVE_SHA256, LEAP_DAYS, OCTETS, deploy, make_world, manifest
from apothic_server.testing.wire import WireClient

pytestmark = pytest.mark.anyio

FLOOR = 4 * MIB
CONTRACT = Contract(json.loads(read_document()))
TABLES = ("jobs", "deployments", "archives", "groups", "group_inputs", "large_values")
ROWS = "SELECT " + " + ".join(f"(SELECT count(*) FROM {table})" for table in TABLES)


class SmallDisk:
    """A cloud on a disk with `free` bytes."""

    def __init__(self) -> None:
        self.free = 2 * FLOOR
        self.cloud: CloudUnderTest
        self.client: AsgiClient

    async def has(self, free):
        self.free = free
        await self.cloud.inner.disk.step()

    async def ask(self, operation, *, query="", headers=(), body=b"", json=None, **params):
        described = CONTRACT.operations[operation]
        target = described.path.format(**params) + query
        answer = await self.client.request(described.method, target, headers=headers, body=body, json=json)
        CONTRACT.check(operation, answer)
        return answer

    async def rows(self):
        async with self.cloud.inner.database.system_unit() as unit:
            return await unit.fetchval(ROWS)


@pytest.fixture
async def small(postgres, tmp_path):
    made, clock = SmallDisk(), VirtualClock()
    disk = Disk(tmp_path, floor_bytes=FLOOR, free=lambda _: made.free)
    inner = Cloud(postgres, tmp_path, url="http://x.test", sources=Sources(clock=clock, random=lambda: 0.0), disk=disk)
    await inner.start(run_loops=False)
    try:
        made.cloud = CloudUnderTest(inner, clock)
        await made.cloud.prepare()
        made.client = AsgiClient(made.cloud.asgi, made.cloud.key)
        yield made
    finally:
        await inner.stop()


def creating(world):
    """One good request for each operation that makes something."""
    other = b"another archive"
    return {
        "call_function": {"function_id": world.function_id, "query": "?wait_s=0", "json": {}},
        "call_app_function": {"app": world.app, "function": world.function, "query": "?wait_s=0", "json": {}},
        "create_group": {"function_id": world.function_id, "json": {}},
        "create_app_group": {"app": world.app, "function": world.function, "json": {}},
        "add_inputs": {"group_id": world.group_id, "query": "?first=0&count=1", "headers": OCTETS, "body": packed(1)},
        "retry_job": {"job_id": world.job_id},
        "run_schedule": {"schedule_id": world.schedule_id},
        "rollback_app": {"app": world.app},
        "create_deployment": {
            "app": world.app,
            "json": {"manifest": manifest(world.function), "archive_sha256": ARCHIVE_SHA256},
        },
        "put_blob": {"sha256": hashlib.sha256(other).hexdigest(), "headers": OCTETS, "body": other},
        "put_archive": {"sha256": hashlib.sha256(other).hexdigest(), "headers": OCTETS, "body": other},
    }


@guarantee("G14.2", "disk_full_matrix")
@pytest.mark.parametrize("operation", sorted(name for name, row in CONTRACT.operations.items() if 507 in row.statuses))
async def test_below_the_floor_what_would_grow_the_store_is_refused_and_changes_nothing(small, operation):
    world = await make_world(small.client)
    await deploy(small.client, world.app, world.function, "second", schedule=LEAP_DAYS)
    await small.ask("cancel_job", job_id=world.job_id)
    request, before = creating(world)[operation], await small.rows()

    await small.has(FLOOR - 1)
    refused = await small.ask(operation, **request)
    kept = await small.rows()
    await small.has(FLOOR)
    taken = await small.ask(operation, **request)

    assert (refused.status, refused.json["code"], refused.json["retryable"]) == (507, "disk_low", True)
    assert refused.headers["retry-after"]
    assert kept == before
    assert taken.status in (200, 201, 202)
    assert await small.rows() > before


@guarantee("G14.2", "disk_full_matrix")
async def test_below_the_floor_a_call_that_needs_memory_only_is_refused_too(small):
    world = await make_world(small.client)
    call = encode_frame({"encoding": "json", "python": None}, b"[[],{}]")
    headers = {"accept": OUTCOME_TYPE, "content-type": CALL_TYPE}
    before = await small.rows()

    await small.has(FLOOR - 1)
    wire, path = WireClient(small.cloud.asgi, small.cloud.key), f"/v1/functions/{world.function_id}/calls"
    async with wire.open("POST", path, headers=headers, body=call) as exchange:
        status = await exchange.start()

    assert status == 507
    assert await small.rows() == before


@guarantee("G14.2", "disk_full_matrix")
async def test_below_the_floor_work_under_way_ends_and_everything_can_be_read_cancelled_and_watched(small):
    await small.cloud.deploy()
    worker = await ScriptedWorker(small.cloud, cpus=1).connect()
    running = await small.cloud.spawn()
    attempt = await worker.take()
    waiting = await small.cloud.spawn()
    await small.has(0)

    cancelled = await small.ask("cancel_job", job_id=f"jobs:{waiting.job}")
    worker.log(attempt, "still here")
    worker.succeed(attempt, b"1")
    outcome = await small.ask("get_outcome", job_id=f"jobs:{running.job}")
    lines = await small.ask("get_logs", job_id=f"jobs:{running.job}")
    events = await small.ask("get_events", job_id=f"jobs:{running.job}", headers=(("accept", "application/json"),))
    listed = await small.ask("list_jobs")
    apps = await small.ask("list_apps")
    ready = await small.ask("get_readiness")

    assert cancelled.json["status"] == "cancelled"
    assert outcome.json["result"] == 1
    assert [line["line"] for line in lines.json["lines"]] == ["still here"]
    assert events.json["events"][-1]["event"] == "job.end"
    assert (len(listed.json["items"]), len(apps.json["items"])) == (2, 1)
    assert (ready.status, ready.json["checks"]["disk"]["ok"]) == (503, False)


async def test_a_call_repeated_with_its_key_gets_its_answer_from_a_full_disk(small):
    await small.cloud.deploy()
    request = {"app": "shop", "function": "work", "query": "?wait_s=0", "json": {}}
    key = (("idempotency-key", "one"),)
    first = await small.ask("call_app_function", **request, headers=key)
    await small.has(0)

    again = await small.ask("call_app_function", **request, headers=key)

    assert first.status == again.status == 202
    assert again.json["job_id"] == first.json["job_id"]
