"""Workers on other hosts over the face: tokens that work once, credentials of their own, drain, resume, remove."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from apothic.wire.attempts import ATTEMPT_HEADER
from apothic.wire.functions import FunctionSpec
from apothic.wire.names import is_worker_name
from apothic.wire.tokens import AttemptName, attempt_token, new_token, token_kind
from apothic_server.api.runtime.document import read_document
from apothic_server.domain.access import Role
from apothic_server.domain.errors import Fenced, Unauthenticated, Unavailable
from apothic_server.loops.retention import WORKERS_KEPT
from apothic_server.services import enrolment
from apothic_server.testing.asgi import AsgiClient
from apothic_server.testing.cloud import ScriptedWorker, ended
from apothic_server.testing.contract import Contract
from apothic_server.testing.guarantees import guarantee
from apothic_server.testing.scenario import join

pytestmark = pytest.mark.anyio

CONTRACT = Contract(json.loads(read_document()))


@pytest.fixture
def client(cloud):
    return AsgiClient(cloud.asgi, cloud.key)


async def token_of(client, **body) -> str:
    answer = await client.request("POST", "/v1/join-tokens", json=body)
    CONTRACT.check("create_join_token", answer)
    assert answer.status == 201, answer.body
    return answer.json["token"]


async def try_join(client, token, name="box", credential=None):
    body = {"name": name, "credential": credential or new_token("lw")}
    answer = await client.as_holder_of(token).request("POST", "/v1/link/join", json=body)
    CONTRACT.check("join", answer)
    return answer


async def dump(cloud) -> str:
    """Every row that could hold a secret or name a worker."""
    tables = ("join_tokens", "enrolled_workers", "api_keys", "workers", "idempotency_keys")
    async with cloud.inner.database.system_unit() as unit:
        rows = [await unit.fetch(f"SELECT * FROM {table} ORDER BY 1") for table in tables]
    return repr([[dict(row.items()) for row in found] for found in rows])


async def enrolled(client) -> dict[str, dict]:
    answer = await client.request("GET", "/v1/workers")
    CONTRACT.check("list_workers", answer)
    return {one["name"]: one for one in answer.json["enrolled"]}


async def linked(cloud, client, name, **options) -> ScriptedWorker:
    """A worker that has joined and is linked."""
    credential = await join(client, name)
    worker = ScriptedWorker(cloud, name="whatever", **options)
    return await worker.connect(actor=await cloud.services.authenticate(credential, ""))


async def test_a_token_is_worth_one_credential_that_links(cloud, client):
    credential = new_token("lw")
    token = await token_of(client)

    joined = await try_join(client, token, credential=credential)
    actor = await cloud.services.authenticate(credential, "")
    again = await try_join(client, token, name="second")

    assert token_kind(token) == "li"
    assert (joined.status, joined.json["name"]) == (201, "box")
    assert (actor.role, actor.org) == (Role.WORKER, cloud.inner.org)
    assert (again.status, again.json["code"]) == (401, "join_token_used")
    assert list(await enrolled(client)) == ["box"]


async def test_a_request_whose_answer_was_lost_is_the_same_worker(client):
    token, credential = await token_of(client), new_token("lw")

    first = await try_join(client, token, credential=credential)
    again = await try_join(client, token, credential=credential)
    other = await try_join(client, token, name="other", credential=credential)

    assert (again.status, again.body) == (first.status, first.body)
    assert (other.status, other.json["code"]) == (401, "join_token_used")
    assert len(await enrolled(client)) == 1


async def test_of_several_workers_that_use_a_token_at_once_one_joins(client):
    token = await token_of(client)

    answers = await asyncio.gather(*(try_join(client, token, name=f"box-{number}") for number in range(8)))

    assert sorted(answer.status for answer in answers) == [201] + [401] * 7
    assert len(await enrolled(client)) == 1


async def listed(client) -> list[str]:
    answer = await client.request("GET", "/v1/join-tokens")
    CONTRACT.check("list_join_tokens", answer)
    return [one["join_token_id"] for one in answer.json["items"]]


async def revoke(client, token_id):
    answer = await client.request("DELETE", f"/v1/join-tokens/{token_id}")
    CONTRACT.check("revoke_join_token", answer)
    return answer


async def test_a_token_that_nobody_used_is_revoked_and_one_that_was_used_is_not(cloud, client):
    first, second, third = [
        (await client.request("POST", "/v1/join-tokens", json={"life_s": life_s})).json for life_s in (60, 600, 601)
    ]
    before = await listed(client)
    await try_join(client, second["token"])
    done = await revoke(client, third["join_token_id"])
    again = await revoke(client, third["join_token_id"])
    spent = await revoke(client, second["join_token_id"])
    refused = await try_join(client, third["token"], name="late")
    after = await listed(client)
    cloud.clock.advance(60)

    assert before == [one["join_token_id"] for one in (first, second, third)]
    assert (done.status, done.json["join_token_id"]) == (200, third["join_token_id"])
    assert done.json["expires_at"] < third["expires_at"]
    assert (again.status, again.json) == (200, done.json)
    assert (spent.status, spent.json["code"]) == (409, "join_token_spent")
    assert (refused.status, refused.json["code"]) == (401, "join_token_expired")
    assert after == [first["join_token_id"]]
    assert await listed(client) == []


@pytest.mark.parametrize("token_id", ["join_tokens:" + "0" * 26, "nonsense", "jobs:" + "0" * 26])
async def test_a_token_that_nobody_made_cannot_be_revoked(client, token_id):
    answer = await revoke(client, token_id)

    assert (answer.status, answer.json["code"]) == (404, "not_found")


@pytest.mark.parametrize(("method", "path"), [("POST", "/drain"), ("POST", "/resume"), ("DELETE", "")])
async def test_a_worker_beside_a_server_is_said_to_be_one(client, method, path):
    for name in ("local", "local-0a1b2c3d"):
        answer = await client.request(method, f"/v1/workers/{name}{path}")

        assert (answer.status, answer.json["code"]) == (404, "not_found")
        assert "beside a server" in answer.json["detail"]


@pytest.mark.parametrize("life_s", [60, 86_400])
async def test_a_token_works_until_it_expires(cloud, client, life_s):
    in_time, late = [await token_of(client, life_s=life_s) for _ in range(2)]

    cloud.clock.advance(life_s - 1)
    joined = await try_join(client, in_time)
    cloud.clock.advance(1)
    before = await dump(cloud)
    refused = await try_join(client, late, name="late")

    assert joined.status == 201
    assert (refused.status, refused.json["code"]) == (401, "join_token_expired")
    assert await dump(cloud) == before


async def test_a_token_lasts_an_hour_unless_one_asks_otherwise(cloud, client):
    answer = await client.request("POST", "/v1/join-tokens", json={})
    token = answer.json["token"]
    cloud.clock.advance(3_600)

    assert (await try_join(client, token)).json["code"] == "join_token_expired"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"life_s": 59}, "out_of_range"),
        ({"life_s": 86_401}, "out_of_range"),
        ({"life_s": True}, "wrong_type"),
        ({"life_s": 60.5}, "wrong_type"),
        ({"name": "box"}, "unknown_field"),
        ([], "wrong_type"),
    ],
)
async def test_a_life_out_of_bounds_is_refused(cloud, client, body, kind):
    before = await dump(cloud)

    answer = await client.request("POST", "/v1/join-tokens", json=body)

    CONTRACT.check("create_join_token", answer)
    assert (answer.status, answer.json["detail"][0]["type"]) == (422, kind)
    assert await dump(cloud) == before


@pytest.mark.parametrize(
    "name", ["", "local", "local-1a2b3c4d", "Box", "-box", "box-", "a" * 64, "a b", "a/b", "ä", "box\n", "a\0", 3, None]
)
async def test_a_name_that_a_worker_may_not_have_leaves_the_token_as_it_was(cloud, client, name):
    token = await token_of(client)
    before = await dump(cloud)

    refused = await try_join(client, token, name=name)

    assert refused.status == 422
    assert refused.json["detail"][0]["loc"] == ["body", "name"]
    assert await dump(cloud) == before
    assert (await try_join(client, token, name="fine")).status == 201


@pytest.mark.parametrize(
    "credential",
    ["lw_short", new_token("lk"), new_token("lw")[:-1] + "~"],
    ids=["short", "a key", "no sign of a token"],
)
async def test_a_credential_that_is_none_is_refused(client, credential):
    token = await token_of(client)

    refused = await try_join(client, token, credential=credential)

    assert (refused.status, refused.json["detail"][0]["loc"]) == (422, ["body", "credential"])
    assert await enrolled(client) == {}


async def test_names_and_credentials_are_unique_and_a_removed_workers_name_is_free(cloud, client):
    credential = await join(client, "box")
    token = await token_of(client)
    before = await dump(cloud)

    taken = await try_join(client, token, name="box")
    copied = await try_join(client, token, name="other", credential=credential)

    assert (taken.status, taken.json["code"]) == (409, "worker_name_taken")
    assert (copied.status, copied.json["code"]) == (409, "credential_taken")
    assert await dump(cloud) == before
    await client.request("DELETE", "/v1/workers/box")
    assert (await try_join(client, token, name="box")).status == 201


async def test_workers_and_unused_tokens_are_bounded(cloud, client):
    org = cloud.inner.org
    async with cloud.inner.database.system_unit() as unit:
        await unit.execute(
            "INSERT INTO join_tokens (id, org, digest, created_by, created_at, expires_at)"
            " SELECT 'j' || n, $1, n::text::bytea, 'k', now(), $3 FROM generate_series(2, $2) AS n",
            org, enrolment.JOIN_TOKENS_MAX, cloud.clock.now().replace(year=2100),
        )  # fmt: skip
        await unit.execute(
            "INSERT INTO api_keys (id, org, kind, digest, name, prefix, last4, role, scopes, created_at)"
            " SELECT 'k' || n, $1, 'lw', n::text::bytea, '', '', '', 'worker', '{}', now()"
            " FROM generate_series(2, $2) AS n",
            org, enrolment.ENROLLED_MAX,
        )  # fmt: skip
        await unit.execute(
            "INSERT INTO enrolled_workers (id, org, name, key, joined_at)"
            " SELECT 'e' || n, $1, 'w' || n, 'k' || n, now() FROM generate_series(2, $2) AS n",
            org, enrolment.ENROLLED_MAX,
        )  # fmt: skip

    token = await token_of(client)
    full = await client.request("POST", "/v1/join-tokens", json={})
    last = await try_join(client, token, name="last")
    beyond = await try_join(client, await token_of(client), name="beyond")

    CONTRACT.check("create_join_token", full)
    assert (full.status, full.json["code"]) == (429, "too_many_join_tokens")
    assert last.status == 201
    assert (beyond.status, beyond.json["code"]) == (409, "too_many_workers")


@guarantee("G17.2", "token_not_in_store")
async def test_neither_secret_is_stored_also_with_an_idempotency_key(cloud, client):
    key = {"Idempotency-Key": "k"}
    made = await client.request("POST", "/v1/join-tokens", json={}, headers=key)
    repeated = await client.request("POST", "/v1/join-tokens", json={}, headers=key)
    token, credential = made.json["token"], new_token("lw")
    body = {"name": "box", "credential": credential}
    await client.as_holder_of(token).request("POST", "/v1/link/join", json=body, headers=key)

    stored = await dump(cloud)

    assert repeated.json == made.json
    for secret in (token, credential):
        assert secret[3:35] not in stored
    assert "box" in stored


async def test_a_join_token_opens_nothing_else_and_nothing_else_joins(cloud, client):
    token = await token_of(client)
    for name, operation in CONTRACT.operations.items():
        if operation.content["x-apothic-policy"]["audience"] in ("public", "join") or name == "open_link":
            continue
        params = dict.fromkeys(CONTRACT.parameters(name, "path"), "x")
        answer = await client.as_holder_of(token).request(operation.method, operation.path.format(**params))
        assert answer.status == 403, (name, answer.body)
    answers = [await try_join(client, other) for other in (cloud.key, cloud.worker_key, new_token("li"))]

    assert [answer.status for answer in answers] == [403, 403, 401]


async def test_a_worker_links_under_its_own_name_whatever_it_says(cloud, client):
    worker = await linked(cloud, client, "box")

    listed = (await client.request("GET", "/v1/workers")).json["items"]

    assert worker.worker is not None
    assert worker.worker.name == "box"
    assert [(one["name"], one["enrolled"], one["status"]) for one in listed] == [("box", True, "live")]
    assert (await enrolled(client))["box"]["status"] == "live"


async def test_the_death_of_a_worker_beside_a_server_says_nothing_of_others(cloud, client):
    worker = await linked(cloud, client, "box")
    await cloud.deploy()
    job = await cloud.spawn()
    assign = await worker.take()

    for name in ("box", "whatever", "local"):
        await cloud.inner.links.declare_dead(name, "proven")
    await worker.heartbeat(assign)
    worker.succeed(assign)

    assert (await ended(job)).attempt == 1


async def test_a_copy_of_a_credential_does_not_link_while_the_first_one_is_linked(cloud, client):
    credential = await join(client, "box")
    actor = await cloud.services.authenticate(credential, "")
    first = await ScriptedWorker(cloud).connect(actor=actor)

    with pytest.raises(Unavailable, match="another process uses the credential of worker box"):
        await ScriptedWorker(cloud).connect(actor=actor)
    first.disconnect()
    second = await ScriptedWorker(cloud).connect(actor=actor)

    assert second.worker is not None
    assert (await enrolled(client))["box"]["worker_id"] == f"workers:{second.incarnation}"


@guarantee("G2.5", "drain_no_lost_no_penalty")
async def test_a_drained_worker_ends_what_it_has_and_gets_nothing_until_it_is_resumed(cloud, client):
    worker = await linked(cloud, client, "box")
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", max_containers=2))
    running = await cloud.spawn()
    assign = await worker.take()

    drained = await client.request("POST", "/v1/workers/box/drain")
    waiting = await cloud.spawn()
    reason = (await client.request("GET", f"/v1/jobs/jobs:{waiting.job}")).json["waiting_reason"]
    told = await enrolled(client)
    worker.succeed(assign)
    first = await ended(running)
    await cloud.step()
    resumed = await client.request("POST", "/v1/workers/box/resume")
    worker.succeed(await worker.take())
    second = await ended(waiting)

    CONTRACT.check("drain_worker", drained)
    CONTRACT.check("resume_worker", resumed)
    assert (told["box"]["status"], told["box"]["draining"], told["box"]["jobs"]) == ("draining", True, 1)
    assert reason == "every connected worker is draining"
    assert (first.attempt, second.attempt) == (1, 1)
    assert (resumed.json["status"], resumed.json["jobs"]) == ("live", 0)


@guarantee("G2.5", "drain_no_lost_no_penalty")
async def test_idle_runners_of_a_drained_worker_make_room_for_the_same_function_elsewhere(cloud, client):
    first = await linked(cloud, client, "first", cpus=8)
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", max_containers=1))
    one = await cloud.spawn()
    assign = await first.take()
    await client.request("POST", "/v1/workers/first/drain")
    second = await linked(cloud, client, "second")
    two = await cloud.spawn()
    await cloud.settle()
    before = [name for name, _ in second.received if name == "assign"]

    first.succeed(assign)
    await ended(one)
    moved = await second.take()
    stopped = await first.next("stop_runner")
    second.succeed(moved)

    assert before == []
    assert (await ended(two)).attempt == 1
    assert stopped.runner == assign.runner


@guarantee("G3.3", "lost_worker_latency")
@pytest.mark.parametrize("is_linked", [True, False], ids=["half open link", "no link"])
async def test_what_a_start_proves_dead_is_given_back_at_once_and_fenced(cloud, client, is_linked):
    credential = await join(client, "box")
    actor = await cloud.services.authenticate(credential, "")
    dead = await ScriptedWorker(cloud).connect(actor=actor)
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", disconnect_grace_s=86_400))
    job = await cloud.spawn()
    lost = await dead.take()
    if not is_linked:
        dead.disconnect()

    again = await ScriptedWorker(cloud).connect(actor=actor, forerunners=[dead.incarnation])
    await cloud.advance(2)
    assign = await again.take()
    again.succeed(assign)

    assert (assign.job, assign.fence) == (lost.job, lost.fence + 1)
    assert (await ended(job)).attempt == 2
    with pytest.raises(Fenced):
        await dead.heartbeat(lost)
    with pytest.raises(Fenced):
        await dead.connect(lost, actor=actor)


async def test_a_worker_whose_attempts_keep_their_grace_is_silent_and_not_lost(cloud, client):
    worker = await linked(cloud, client, "box")
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", disconnect_grace_s=86_400))
    job = await cloud.spawn()
    assign = await worker.take()
    worker.disconnect()
    await cloud.advance(60)

    listed = (await client.request("GET", "/v1/workers")).json["items"]
    await worker.connect(assign)
    back = (await client.request("GET", "/v1/workers")).json["items"]
    worker.succeed(assign)

    assert [one["status"] for one in listed] == ["silent"]
    assert [one["status"] for one in back] == ["live"]
    assert (await ended(job)).attempt == 1


async def test_a_worker_cannot_say_that_another_one_is_dead(cloud, client):
    box = await linked(cloud, client, "box")
    await cloud.deploy()
    job = await cloud.spawn()
    assign = await box.take()

    other = await cloud.services.authenticate(await join(client, "other"), "")
    await ScriptedWorker(cloud).connect(actor=other, forerunners=[box.incarnation, "nonsense"])
    await ScriptedWorker(cloud).connect(forerunners=[box.incarnation])
    await box.heartbeat(assign)
    box.succeed(assign)

    assert (await ended(job)).attempt == 1


async def test_a_drained_worker_stays_so_over_its_restart_and_the_servers(cloud, client, restart):
    credential = await join(client, "box")
    await client.request("POST", "/v1/workers/box/drain")
    await restart()
    again = AsgiClient(cloud.asgi, cloud.key)

    actor = await cloud.services.authenticate(credential, "")
    worker = await ScriptedWorker(cloud).connect(actor=actor)

    assert worker.worker is not None
    assert worker.worker.is_cordoned
    assert (await enrolled(again))["box"]["status"] == "draining"


async def test_orders_given_to_another_server_are_obeyed_at_the_next_sweep(cloud, client):
    worker = await linked(cloud, client, "box")
    assert worker.worker is not None
    async with cloud.inner.database.system_unit() as unit:
        await unit.execute("UPDATE enrolled_workers SET is_draining = true")
    await cloud.step()
    was_drained = worker.worker.is_cordoned
    async with cloud.inner.database.system_unit() as unit:
        await unit.execute("UPDATE enrolled_workers SET removed_at = now()")
    await cloud.step()

    assert was_drained
    assert worker.close_code == "unauthenticated"


async def test_a_removed_worker_is_cut_at_once_and_what_it_ran_runs_elsewhere_after_its_lease(cloud, client):
    credential = await join(client, "box")
    actor = await cloud.services.authenticate(credential, "")
    worker = await ScriptedWorker(cloud).connect(actor=actor)
    await cloud.deploy()
    job = await cloud.spawn()
    stale = await worker.take()

    removed = await client.request("DELETE", "/v1/workers/box")
    again = await client.request("DELETE", "/v1/workers/box")
    other = await ScriptedWorker(cloud, name="other").connect()
    await cloud.advance(20)
    early = [name for name, _ in other.received if name == "assign"]
    await other.heartbeat()
    await cloud.advance(11)
    assign = await other.take()
    other.succeed(assign)

    CONTRACT.check("remove_worker", removed)
    assert (removed.status, removed.json["status"], removed.json["jobs"]) == (200, "removed", 1)
    assert (again.status, again.json["status"]) == (200, "removed")
    assert worker.close_code == "unauthenticated"
    assert early == []
    assert (assign.job, assign.fence) == (stale.job, stale.fence + 1)
    assert (await ended(job)).status.value == "succeeded"
    assert await enrolled(client) == {}
    with pytest.raises(Unauthenticated):
        await cloud.services.authenticate(credential, "")


async def test_user_code_on_a_removed_worker_may_nothing_from_then_on(cloud, client):
    worker = await linked(cloud, client, "box")
    key = (await worker.next("welcome")).attempt_key
    await cloud.deploy()
    job = await cloud.spawn()
    assign = await worker.take()
    name = AttemptName(worker.incarnation, assign.job, assign.fence)
    user_code = AsgiClient(cloud.asgi, attempt_token(key, assign.job, assign.fence))
    request = ("GET", f"/v1/jobs/jobs:{job.job}")

    before = await user_code.request(*request, headers={ATTEMPT_HEADER: str(name)})
    await client.request("DELETE", "/v1/workers/box")
    after = await user_code.request(*request, headers={ATTEMPT_HEADER: str(name)})

    assert (before.status, after.status) == (200, 401)


@pytest.mark.parametrize("is_removed", [True, False])
async def test_user_code_on_a_removed_worker_may_nothing_after_a_restart_either(cloud, client, restart, is_removed):
    worker = await linked(cloud, client, "box")
    key = (await worker.next("welcome")).attempt_key
    await cloud.deploy()
    job = await cloud.spawn()
    assign = await worker.take()
    name = AttemptName(worker.incarnation, assign.job, assign.fence)
    await cloud.settle()
    if is_removed:
        await client.request("DELETE", "/v1/workers/box")
    await restart()
    user_code = AsgiClient(cloud.asgi, attempt_token(key, assign.job, assign.fence))

    answer = await user_code.request("GET", f"/v1/jobs/jobs:{job.job}", headers={ATTEMPT_HEADER: str(name)})

    assert answer.status == (401 if is_removed else 200)


async def test_of_former_workers_nothing_is_kept_for_ever(cloud, client):
    gone = await linked(cloud, client, "gone")
    credential = await join(client, "kept")
    actor = await cloud.services.authenticate(credential, "")
    first = await ScriptedWorker(cloud).connect(actor=actor)
    await client.request("DELETE", "/v1/workers/gone")
    await cloud.advance(31)

    async def stored():
        async with cloud.inner.database.system_unit() as unit:
            starts = await unit.fetch("SELECT id FROM workers")
            names = await unit.fetch("SELECT name FROM enrolled_workers ORDER BY name")
            keys = await unit.fetch("SELECT name FROM api_keys WHERE kind = 'lw' ORDER BY name")
        return {row["id"] for row in starts}, [row["name"] for row in names], [row["name"] for row in keys]

    cloud.clock.advance(WORKERS_KEPT.total_seconds() - 60)
    await cloud.step()
    early = await stored()
    again = await ScriptedWorker(cloud).connect(actor=actor)
    cloud.clock.advance(120)
    await cloud.step()
    late = await stored()

    assert early == ({gone.incarnation, first.incarnation}, ["gone", "kept"], ["gone", "kept", "worker"])
    assert late == ({again.incarnation}, ["kept"], ["kept", "worker"])


async def test_a_removed_worker_does_not_link_again_even_where_its_key_is_still_remembered(cloud, client):
    credential = await join(client, "box")
    actor = await cloud.services.authenticate(credential, "")
    await client.request("DELETE", "/v1/workers/box")

    with pytest.raises(Unauthenticated, match="removed"):
        await ScriptedWorker(cloud).connect(actor=replace(actor))


@pytest.mark.parametrize("name", ["nobody", "local", "a%00b", "%ff", "x" * 70])
@pytest.mark.parametrize(("method", "verb"), [("POST", "/drain"), ("POST", "/resume"), ("DELETE", "")])
async def test_a_worker_that_has_not_joined_is_not_found(client, name, method, verb):
    answer = await client.request(method, f"/v1/workers/{name}{verb}")

    assert (answer.status, answer.json["code"]) == (404, "not_found")


async def test_a_removed_worker_is_neither_drained_nor_resumed(client):
    await join(client, "box")
    await client.request("DELETE", "/v1/workers/box")

    answers = [await client.request("POST", f"/v1/workers/box/{verb}") for verb in ("drain", "resume")]

    assert [answer.status for answer in answers] == [404, 404]


def test_names_of_workers():
    assert all(map(is_worker_name, ("a", "gpu-box", "0", "a" * 63, "locale")))
    assert not any(map(is_worker_name, ("local", "local-x", "-", "a.b", "A", "", "a" * 64)))
