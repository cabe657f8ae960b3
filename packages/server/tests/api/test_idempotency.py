"""Idempotency keys over the face: one effect per key, whatever is repeated, by whom and when (G6.1 to G6.3)."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from typing import Any

import pytest

from apothic.wire.frames import FrameReader, encode_frame
from apothic.wire.functions import FunctionSpec
from apothic.wire.limits import VALUE_MAX
from apothic.wire.tokens import new_token
from apothic.wire.values import CALL_TYPE, OUTCOME_TYPE, Value
from apothic_server import failpoints
from apothic_server.api.runtime.document import read_document
from apothic_server.api.shared.idempotency import GivenKey, request_key
from apothic_server.domain.access import Role
from apothic_server.store import idempotency as rows
from apothic_server.testing.asgi import Answer, AsgiClient
from apothic_server.testing.cloud import ScriptedWorker
from apothic_server.testing.contract import Contract
from apothic_server.testing.groups import packed
from apothic_server.testing.guarantees import guarantee
from apothic_server.testing.scenario import ARCHIVE_SHA256, OCTETS, World, deploy, make_world, manifest, upload

pytestmark = pytest.mark.anyio

CONTRACT = Contract(json.loads(read_document()))
POSTS = sorted(name for name, operation in CONTRACT.operations.items() if operation.method == "POST")
posts = pytest.mark.parametrize("operation", POSTS)
MAKE_JOBS = ("call_function", "call_app_function", "retry_job")
"""A repeat of these waits for the job instead of being told to ask again."""

FRAME = {"content-type": CALL_TYPE, "accept": OUTCOME_TYPE}


@dataclass(frozen=True)
class Post:
    """A request that has an effect, and one that differs from it in nothing but what it asks for."""

    target: str
    body: Any = None
    other_target: str = ""
    other_body: Any = None
    token: str | None = None
    other_token: str | None = None

    @property
    def other(self) -> Post:
        return Post(self.other_target or self.target, self.other_body or self.body, token=self.token)

    @property
    def free(self) -> Post:
        """The other one, sent by who may still make it."""
        return replace(self.other, token=self.other_token or self.token)


async def post_of(operation: str, client: AsgiClient) -> Post:
    """Return a good request of any POST operation; a new one without a line here fails in every test below."""
    world = await make_world(client)
    call, calls = {"args": [1]}, f"/v1/functions/{world.function_id}/calls?wait_s=0"
    deployment = {"manifest": manifest("greet"), "archive_sha256": ARCHIVE_SHA256}
    second = (await client.request("POST", calls, json=call)).json["job_id"]
    busy, idle = [(await deploy(client, app, "one")).json["deployment_id"] for app in ("busy", "idle")]
    await client.request("POST", "/v1/apps/busy/functions/one/calls?wait_s=0", json=call)
    for names in ("one",), ("one", "two"), ("one", "two", "three"):
        await deploy(client, "twice", *names)
    ended, other_ended = [(await client.request("POST", calls, json=call)).json["job_id"] for _ in range(2)]
    for job in (ended, other_ended):
        await client.request("POST", f"/v1/jobs/{job}/cancel")
    return {
        "call_function": Post(calls, call, other_body={"args": [2]}),
        "call_app_function": Post(
            "/v1/apps/hello-world/functions/greet/calls?wait_s=0", call, other_body={"args": [2]}
        ),
        "create_deployment": Post("/v1/apps/fresh/deployments", deployment, other_target="/v1/apps/other/deployments"),
        "rollback_app": Post("/v1/apps/twice/rollback?version=1", other_target="/v1/apps/twice/rollback?version=2"),
        "stop_deployment": Post(
            f"/v1/deployments/{busy}/stop?now=true", other_target=f"/v1/deployments/{idle}/stop?now=true"
        ),
        "retry_job": Post(f"/v1/jobs/{ended}/retry", other_target=f"/v1/jobs/{other_ended}/retry"),
        **await posts_of_workers(client),
        **await posts_of_groups(client, world),
        **await posts_of_schedules(client),
        "cancel_job": Post(f"/v1/jobs/{world.job_id}/cancel", other_target=f"/v1/jobs/{second}/cancel"),
    }[operation]


async def posts_of_schedules(client: AsgiClient) -> dict[str, Post]:
    """Good requests about schedules: of four, two are paused."""
    await deploy(client, "timed", "one", "two", "three", "four", schedule={"cron": "0 0 29 2 *"})
    items = (await client.request("GET", "/v1/schedules?app=timed")).json["items"]
    paths = [f"/v1/schedules/{item['schedule_id']}" for item in items]
    for path in paths[2:]:
        await client.request("POST", f"{path}/pause")
    return {
        f"{verb}_schedule": Post(f"{one}/{verb}", other_target=f"{other}/{verb}")
        for verb, one, other in (("pause", *paths[:2]), ("resume", *paths[2:]), ("run", *paths[:2]))
    }


async def posts_of_groups(client: AsgiClient, world: World) -> dict[str, Post]:
    """Good requests about groups, of which five are there."""
    make = f"/v1/functions/{world.function_id}/groups"
    made = [world.group_id] + [(await client.request("POST", make, json={})).json["id"] for _ in range(4)]
    paths = [f"/v1/groups/{group}" for group in made]
    return {
        "create_group": Post(make, {}, other_body={"spread": True}),
        "create_app_group": Post("/v1/apps/hello-world/functions/greet/groups", {}, other_body={"spread": True}),
        "add_inputs": Post(
            f"{paths[0]}/inputs?first=0&count=1", packed(1), other_target=f"{paths[4]}/inputs?first=0&count=1"
        ),
        "close_group": Post(f"{paths[1]}/close", {"total": 0}, other_target=f"{paths[2]}/close"),
        "cancel_group": Post(f"{paths[3]}/cancel", {"items": None}, other_target=f"{paths[4]}/cancel"),
    }


async def posts_of_workers(client: AsgiClient) -> dict[str, Post]:
    """Good requests about workers: four have joined, of which two are drained, and two more may join."""
    names = ("up", "up-too", "down", "down-too", "next", "after-next")
    if (await client.request("POST", "/v1/join-tokens", json={})).status == 403:
        return {}
    tokens = [(await client.request("POST", "/v1/join-tokens", json={})).json["token"] for _ in names]
    bodies = [{"name": name, "credential": new_token("lw")} for name in names]
    for token, body in zip(tokens[:4], bodies[:4], strict=True):
        await client.as_holder_of(token).request("POST", "/v1/link/join", json=body)
    for name in names[2:4]:
        await client.request("POST", f"/v1/workers/{name}/drain")
    return {
        "create_join_token": Post("/v1/join-tokens", {"life_s": 60}, other_body={"life_s": 61}),
        "join": Post("/v1/link/join", bodies[4], other_body=bodies[5], token=tokens[4], other_token=tokens[5]),
        "drain_worker": Post("/v1/workers/up/drain", other_target="/v1/workers/up-too/drain"),
        "resume_worker": Post("/v1/workers/down/resume", other_target="/v1/workers/down-too/resume"),
    }


async def send(client: AsgiClient, post: Post, key: str, **headers: str) -> Answer:
    holder = client if post.token is None else client.as_holder_of(post.token)
    if isinstance(post.body, bytes):
        given = {"Idempotency-Key": key, **OCTETS, **headers}
        return await holder.request("POST", post.target, headers=given, body=post.body)
    return await holder.request("POST", post.target, json=post.body, headers={"Idempotency-Key": key, **headers})


async def count(cloud, table: str) -> int:
    async with cloud.inner.database.system_unit() as unit:
        return int(await unit.fetchval(f"SELECT count(*) FROM {table}"))


async def effects(cloud) -> list[int]:
    """How many things there are of every kind that a request can make or change."""
    await cloud.step()  # a map is cut into jobs beside its requests
    ends, stops = "events WHERE kind = 'job.end'", "deployments WHERE status <> 'active'"
    workers = ("join_tokens", "enrolled_workers", "enrolled_workers WHERE is_draining")
    workers += ("schedules WHERE paused_at IS NOT NULL",)
    workers += ("groups", "group_inputs", "groups WHERE total = 0", "groups WHERE status <> 'running'")
    return [await count(cloud, table) for table in ("jobs", "deployments", "api_keys", ends, stops, *workers)]


@guarantee("G6.2", "idem_matrix")
@posts
async def test_a_repeat_of_any_post_has_no_effect_and_gets_the_first_answer(cloud, operation):
    client = AsgiClient(cloud.asgi, cloud.key)
    post = await post_of(operation, client)
    first = await send(client, post, "k", **{"Idempotency-Try": "first"})
    had = await effects(cloud)

    again = [await send(client, post, "k"), await send(client, post, "k", **{"Idempotency-Try": "again"})]

    assert first.status in (200, 201, 202), first.body
    assert "idempotent-replayed" not in first.headers
    for answer in again:
        CONTRACT.check(operation, answer)
        assert (answer.status, answer.body) == (first.status, first.body)
        assert answer.headers["idempotent-replayed"] == "true"
    assert await effects(cloud) == had


@guarantee("G6.2", "idem_matrix")
@posts
async def test_a_key_of_any_post_used_for_something_else_is_refused(cloud, operation):
    client = AsgiClient(cloud.asgi, cloud.key)
    post = await post_of(operation, client)
    await send(client, post, "k")
    had = await effects(cloud)

    answer = await send(client, post.other, "k")
    free = await send(client, post.free, "another")

    CONTRACT.check(operation, answer)
    assert (answer.status, answer.json["code"]) == (422, "idempotency_key_reused")
    assert free.status in (200, 201, 202)
    assert (await effects(cloud)) != had


@guarantee("G6.2", "idem_matrix")
@posts
@pytest.mark.parametrize("key", ["", "two words", "k\x7f", "é", "k" * 256])
async def test_a_malformed_key_of_any_post_is_refused(cloud, operation, key):
    client = AsgiClient(cloud.asgi, cloud.key)
    post = await post_of(operation, client)
    had = await effects(cloud)

    answer = await send(client, post, key)

    CONTRACT.check(operation, answer)
    assert (answer.status, answer.json["code"]) == (422, "idempotency_key_invalid")
    assert await effects(cloud) == had


async def test_two_keys_and_an_unknown_try_are_refused(cloud):
    client = AsgiClient(cloud.asgi, cloud.key)
    post = await post_of("call_function", client)

    twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    answer = await client.request("POST", post.target, json=post.body, headers=twice)
    unknown = await send(client, post, "k", **{"Idempotency-Try": "third"})

    assert (answer.status, answer.json["code"]) == (422, "idempotency_key_invalid")
    assert (unknown.status, unknown.json["detail"][0]["loc"]) == (422, ["header", "idempotency-try"])


@guarantee("G6.2", "idem_matrix")
@posts
async def test_a_key_belongs_to_the_org_and_the_operation(cloud, operation):
    client, stranger = AsgiClient(cloud.asgi, cloud.key), AsgiClient(cloud.asgi, cloud.other_key)
    colleague = AsgiClient(cloud.asgi, await cloud.inner.keys.create(cloud.inner.org, name="second", role=Role.OWNER))
    is_for_every_org = CONTRACT.operations[operation].content["x-apothic-policy"]["audience"] == "key"
    mine = await post_of(operation, client)
    await send(client, mine, "k")

    shared = await send(colleague, mine, "k")
    elsewhere = [await send(client, await post_of(POSTS[POSTS.index(operation) - 1], client), "k")]
    if is_for_every_org:
        elsewhere.append(await send(stranger, await post_of(operation, stranger), "k"))

    assert shared.headers["idempotent-replayed"] == "true"
    for answer in elsewhere:
        assert answer.status in (200, 201, 202), answer.body
        assert "idempotent-replayed" not in answer.headers


@guarantee("G6.2", "idem_matrix")
@pytest.mark.parametrize("operation", [name for name in POSTS if name not in MAKE_JOBS])
async def test_a_repeat_while_the_first_is_at_work_is_told_to_ask_again(cloud, operation):
    client = AsgiClient(cloud.asgi, cloud.key)
    post = await post_of(operation, client)
    if operation == "cancel_job":  # the first cancel changes the job in one statement; a second one finds it done
        await client.request("POST", post.target)
    async with cloud.inner.database.system_unit() as other:
        described = CONTRACT.operations[operation]
        body = post.body if isinstance(post.body, bytes) else json.dumps(post.body).encode()
        key = request_key(GivenKey(b"k", False), f"POST {described.path}", {}, "", body)
        assert await rows.lock_key(other, cloud.inner.org, key)
        answer = await send(client, post, "k")

    CONTRACT.check(operation, answer)
    assert (answer.status, answer.json["code"]) == (409, "idempotency_in_progress")
    assert answer.headers["retry-after"] == "1"
    assert answer.json["retryable"] is True
    done = await send(client, post, "k")
    assert done.status in (200, 201, 202), done.body
    assert "idempotent-replayed" not in done.headers


@guarantee("G6.3", "idem_no_orphan_lock")
async def test_a_key_is_free_again_when_the_connection_of_a_crashed_request_dies(cloud):
    client = AsgiClient(cloud.asgi, cloud.key)
    post = await post_of("create_deployment", client)
    key = request_key(GivenKey(b"k", False), "POST /v1/apps/{app}/deployments", {}, "", b"")
    holder = await cloud.inner.database.connect_writer()
    await holder.execute("BEGIN")
    assert await rows.lock_key(holder, cloud.inner.org, key)
    held = await send(client, post, "k")

    pid = await holder.fetchval("SELECT pg_backend_pid()")
    async with cloud.inner.database.system_unit() as unit:
        await unit.fetchval("SELECT pg_terminate_backend($1, 10000)", pid)
    holder.terminate()
    free = await send(client, post, "k")

    assert held.status == 409
    assert (free.status, "idempotent-replayed" in free.headers) == (201, False)


@guarantee("G6.3", "idem_no_orphan_lock")
async def test_errors_leave_the_key_free(cloud):
    client = AsgiClient(cloud.asgi, cloud.key)
    post = await post_of("call_function", client)
    missing = Post(post.target.replace("functions:0", "functions:1"), post.body)
    without_archive = {"manifest": manifest("greet"), "archive_sha256": "ab" * 32}
    invalid = replace(post, body={"args": 3})

    statuses = [
        (await send(client, invalid, "k")).status,
        (await send(client, missing, "k")).status,
        (await send(client, Post("/v1/apps/fresh/deployments", without_archive), "k")).status,
    ]
    answer = await send(client, post, "k")
    made = await send(
        client, Post("/v1/apps/fresh/deployments", {**without_archive, "archive_sha256": ARCHIVE_SHA256}), "k"
    )

    assert statuses == [422, 404, 409]
    assert (answer.status, made.status) == (202, 201)
    assert await count(cloud, "idempotency_keys") == 2


@guarantee("G6.3", "idem_no_orphan_lock")
async def test_a_call_refused_for_lack_of_room_leaves_the_key_free(cloud):
    client = AsgiClient(cloud.asgi, cloud.key)
    await deploy(client, "small", "one", max_pending_tasks=1)
    post = Post("/v1/apps/small/functions/one/calls?wait_s=0", {})
    waiting = await client.request("POST", post.target, json={})

    full = await send(client, post, "k")
    await client.request("POST", f"/v1/jobs/{waiting.json['job_id']}/cancel")
    room = await send(client, post, "k")

    assert (full.status, room.status) == (429, 202)
    assert "idempotent-replayed" not in room.headers


@guarantee("G6.3", "idem_no_orphan_lock")
async def test_a_call_that_the_store_could_not_take_leaves_the_key_free(cloud):
    client = AsgiClient(cloud.asgi, cloud.key)
    post = await post_of("call_function", client)
    cloud.inner.board.is_draining = True
    refused = await send(client, post, "k")
    cloud.inner.board.is_draining = False

    accepted = await send(client, post, "k")

    assert (refused.status, accepted.status) == (503, 202)
    assert "idempotent-replayed" not in accepted.headers


@guarantee("G6.3", "idem_no_orphan_lock")
async def test_a_call_that_was_on_its_way_when_the_store_refused_it_leaves_the_key_free(cloud):
    client = AsgiClient(cloud.asgi, cloud.key)
    post = await post_of("call_function", client)

    async def refuse(name):
        if name == "writer.taken":
            raise OverflowError("a failure of the test")

    take_away = failpoints.install(refuse)
    refused = await send(client, post, "k")
    take_away()
    accepted = await send(client, post, "k")

    assert refused.status >= 500
    assert accepted.status == 202
    assert "idempotent-replayed" not in accepted.headers


@guarantee("G6.2", "idem_matrix")
@pytest.mark.parametrize("headers", [{}, {"Idempotency-Try": "first"}])
async def test_a_blocking_call_is_joined_while_it_runs_and_after_its_end(cloud, headers):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    client = AsgiClient(cloud.asgi, cloud.key)
    target, body = "/v1/apps/shop/functions/work/calls", encode_frame({"encoding": "json", "python": None}, b"[[],{}]")
    given = {**FRAME, "Idempotency-Key": "k"}
    async with (
        client.open("POST", target, headers={**given, **headers}, body=body) as first,
        client.open("POST", target, headers=given, body=body) as joined,
    ):
        attempt = await worker.take()
        got = [await frame_of(first, "accepted"), await frame_of(joined, "accepted")]
        async with client.open("POST", target, headers=given, body=body) as late:
            got.append(await frame_of(late, "accepted"))
            worker.succeed(attempt, b'"done"')
            ends = [await frame_of(exchange, "outcome") for exchange in (first, joined, late)]
    after = await client.request("POST", target, headers=given, body=body)

    assert [head["job_id"] for head, _ in got] == [f"jobs:{attempt.job}"] * 3
    assert [data for _, data in ends] == [b'"done"'] * 3
    assert "idempotent-replayed" not in first.headers
    assert joined.headers["idempotent-replayed"] == late.headers["idempotent-replayed"] == "true"
    assert after.headers["idempotent-replayed"] == "true"
    assert after.body.endswith(b'"done"')
    assert await count(cloud, "jobs") == 1
    assert not [name for name, _ in worker.received if name == "assign"]


@guarantee("G6.2", "idem_matrix")
async def test_repeats_at_the_same_time_make_one_job(cloud):
    client = AsgiClient(cloud.asgi, cloud.key)
    post = await post_of("call_function", client)
    had = await count(cloud, "jobs")

    answers = await asyncio.gather(*[send(client, post, "k") for _ in range(20)])

    assert {answer.status for answer in answers} == {202}
    assert len({answer.body for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert await count(cloud, "jobs") == had + 1


@guarantee("G6.2", "idem_matrix")
async def test_a_used_key_that_claims_to_be_new_is_refused_by_the_store_and_its_attempt_is_cancelled(cloud):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    client = AsgiClient(cloud.asgi, cloud.key)
    cloud.start_loop("reload")
    given = {"Idempotency-Key": "k", "Idempotency-Try": "first"}
    target = "/v1/apps/shop/functions/work/calls"
    spawned = await client.request("POST", f"{target}?wait_s=0", json={}, headers=given)
    worker.succeed(await worker.take(), b"1")
    job = spawned.json["job_id"]
    await client.request("GET", f"/v1/jobs/{job}/outcome")

    async with client.open("POST", target, json={}, headers=given) as exchange:
        early = await worker.next("assign")
        answer = await exchange.answer()

    assert (answer.status, answer.json["job_id"], answer.json["result"]) == (200, job, 1)
    assert answer.headers["idempotent-replayed"] == "true"
    assert (await worker.next("cancel")).job == early.job
    assert await count(cloud, "jobs") == 1


async def test_keys_are_forgotten_a_day_after_their_work_was_complete(cloud):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    client = AsgiClient(cloud.asgi, cloud.key)
    await upload(client)
    fresh = Post("/v1/apps/fresh/deployments", {"manifest": manifest("greet"), "archive_sha256": ARCHIVE_SHA256})
    call = Post("/v1/apps/shop/functions/work/calls?wait_s=0", {})
    await send(client, fresh, "deployed")
    spawned = await send(client, call, "called")
    attempt = await worker.take()
    for _ in range(25):
        cloud.clock.advance(3600)
        await worker.heartbeat(attempt)

    await cloud.inner.retention.step()
    running = await count(cloud, "idempotency_keys")
    worker.succeed(attempt)
    await client.request("GET", f"/v1/jobs/{spawned.json['job_id']}/outcome")
    cloud.clock.advance(24 * 3600)
    await cloud.inner.retention.step()
    ended = await send(client, call, "called")
    cloud.clock.advance(1)
    await cloud.inner.retention.step()

    assert running == 1
    assert ended.headers["idempotent-replayed"] == "true"
    assert await count(cloud, "idempotency_keys") == 0


async def test_calls_without_a_key_leave_no_row(cloud):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work"))
    await cloud.services.jobs.submit(cloud.actor, ("shop", "work"), Value("json", b"[[],{}]"), blocking=False)

    assert await count(cloud, "idempotency_keys") == 0


async def frame_of(exchange, kind: str) -> tuple[dict[str, Any], bytes]:
    """Wait for the next frame of that kind."""
    reader = FrameReader(size_max=2 * VALUE_MAX)
    while (piece := await exchange.piece()) is not None:
        for head, data in reader.feed(piece):
            if head["kind"] == kind:
                return head, data
    raise AssertionError(f"no {kind}")
