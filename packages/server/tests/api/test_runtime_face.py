"""The runtime face over real services, every answer checked against the committed document."""

from __future__ import annotations

import json

import pytest

from apothic.wire.frames import FrameReader, encode_frame
from apothic.wire.ids import make_key
from apothic.wire.limits import CALL_BODY_MAX, VALUE_MAX
from apothic.wire.values import CALL_TYPE, OUTCOME_TYPE
from apothic.wire.version import VERSION
from apothic_server.api.runtime.document import read_document
from apothic_server.testing.asgi import Answer, AsgiClient
from apothic_server.testing.contract import Contract
from apothic_server.testing.guarantees import guarantee
from apothic_server.testing.scenario import ARCHIVE, ARCHIVE_SHA256, OCTETS, deploy, make_world, manifest, upload

pytestmark = pytest.mark.anyio

CONTRACT = Contract(json.loads(read_document()))
NO_KEY = make_key(1, 1)


class Checked:
    """Sends requests by operation id and checks every answer against the document."""

    def __init__(self, client: AsgiClient) -> None:
        self.client = client

    async def __call__(
        self, operation: str, *, query: str = "", headers=(), body: bytes = b"", json=None, **params
    ) -> Answer:
        described = CONTRACT.operations[operation]
        target = described.path.format(**params) + (f"?{query}" if query else "")
        answer = await self.client.request(described.method, target, headers=headers, body=body, json=json)
        CONTRACT.check(operation, answer)
        return answer


@pytest.fixture
def client(cloud) -> AsgiClient:
    return AsgiClient(cloud.asgi, cloud.key)


@pytest.fixture
def ask(client) -> Checked:
    return Checked(client)


async def test_the_server_says_that_it_lives_and_what_it_is(cloud):
    ask = Checked(AsgiClient(cloud.asgi))

    assert (await ask("get_health")).json == {"status": "ok", "version": VERSION}
    assert (await ask("get_openapi")).body == read_document()


async def test_readiness_is_the_sum_of_its_checks(cloud):
    answer = await Checked(AsgiClient(cloud.asgi))("get_readiness")

    assert answer.json["checks"]
    assert answer.json["ready"] == all(check["ok"] for check in answer.json["checks"].values())
    assert answer.status == (200 if answer.json["ready"] else 503)


async def test_metrics_and_workers_are_for_the_operator(cloud, ask):
    assert (await ask("get_metrics")).headers["content-type"].startswith("text/plain")
    assert (await ask("list_workers")).status == 200
    stranger = Checked(AsgiClient(cloud.asgi, cloud.other_key))
    assert (await stranger("get_metrics")).status == 403
    assert (await stranger("list_workers")).status == 403


async def test_a_key_learns_who_it_is_and_never_its_secret(cloud, ask):
    answer = await ask("get_identity")

    assert answer.json["role"] == "owner"
    assert "jobs:write" in answer.json["scopes"]
    assert cloud.key.startswith(answer.json["key"]["prefix"])
    assert cloud.key.endswith(answer.json["key"]["last4"])
    assert cloud.key not in answer.body.decode()


async def test_an_archive_is_stored_once(ask):
    assert (await ask("has_archive", sha256=ARCHIVE_SHA256)).status == 404
    first = await ask("put_archive", sha256=ARCHIVE_SHA256, headers=OCTETS, body=ARCHIVE)
    second = await ask("put_archive", sha256=ARCHIVE_SHA256, headers=OCTETS, body=ARCHIVE)

    assert (first.status, second.status) == (201, 200)
    assert first.json == second.json == {"sha256": ARCHIVE_SHA256, "size_bytes": len(ARCHIVE)}
    assert (await ask("has_archive", sha256=ARCHIVE_SHA256)).status == 200


async def test_an_archive_with_other_bytes_is_refused_and_not_stored(ask):
    answer = await ask("put_archive", sha256=ARCHIVE_SHA256, headers=OCTETS, body=b"other")

    assert (answer.status, answer.json["code"]) == (422, "digest_mismatch")
    assert (await ask("has_archive", sha256=ARCHIVE_SHA256)).status == 404


@pytest.mark.parametrize("digest", ["0", "AB" * 32, "g" * 64, "..", "%2e%2e%2fpasswd"])
async def test_a_digest_of_another_form_is_refused(ask, digest):
    assert (await ask("put_archive", sha256=digest, headers=OCTETS, body=b"x")).status == 422
    assert (await ask("has_archive", sha256=digest)).status == 404


async def test_the_first_deploy_makes_the_app(ask):
    await ask("put_archive", sha256=ARCHIVE_SHA256, headers=OCTETS, body=ARCHIVE)
    body = {"manifest": manifest("greet", timeout_s=60), "archive_sha256": ARCHIVE_SHA256}

    answer = await ask("create_deployment", app="hello-world", json=body)

    assert answer.status == 201
    assert (answer.json["version"], answer.json["status"]) == (1, "active")
    assert answer.json["functions"][0]["timeout_s"] == 60
    assert (await ask("get_deployment", deployment_id=answer.json["deployment_id"])).json == answer.json
    app = (await ask("get_app", app="hello-world")).json
    assert (app["deployment_id"], app["functions"]) == (answer.json["deployment_id"], ["greet"])


async def test_a_second_deploy_keeps_function_ids_and_supersedes_the_first(client, ask):
    first = (await deploy(client, "hello", "greet", "old")).json
    second = (await deploy(client, "hello", "greet", "new")).json

    assert second["version"] == 2
    assert second["functions"][0]["function_id"] == first["functions"][0]["function_id"]
    assert (await ask("get_app", app="hello")).json["functions"] == ["greet", "new"]
    assert (await ask("get_deployment", deployment_id=second["deployment_id"])).json["status"] == "active"


async def test_a_deploy_without_its_archive_is_a_conflict_and_makes_nothing(ask):
    body = {"manifest": manifest("greet"), "archive_sha256": ARCHIVE_SHA256}

    answer = await ask("create_deployment", app="hello", json=body)

    assert (answer.status, answer.json["code"]) == (409, "archive_missing")
    assert (await ask("get_app", app="hello")).status == 404


@pytest.mark.parametrize("app", ["-a", "a" * 64, "a%20b", "%00", "a%2Fb", "%C3%A4"])
async def test_an_app_name_of_another_form_cannot_be_deployed_or_found(client, ask, app):
    await upload(client)
    body = {"manifest": manifest("greet"), "archive_sha256": ARCHIVE_SHA256}

    assert (await ask("create_deployment", app=app, json=body)).status == 422
    assert (await ask("get_app", app=app)).status == 404


async def test_a_function_is_found_by_name_and_by_id(client, ask):
    world = await make_world(client)

    by_name = await ask("get_app_function", app=world.app, function=world.function)
    by_id = await ask("get_function", function_id=world.function_id)

    assert by_name.json == by_id.json
    assert by_name.json["deployment_id"] == world.deployment_id


async def test_a_mistyped_function_or_app_is_answered_with_similar_names(client, ask):
    world = await make_world(client)

    assert "greet" in (await ask("get_app_function", app=world.app, function="gret")).json["detail"]
    assert "hello-world" in (await ask("get_app_function", app="helo-world", function="greet")).json["detail"]


async def test_apps_are_listed_page_by_page(client, ask):
    for name in ("a", "b", "c"):
        await deploy(client, name, "greet")

    names, cursor = [], ""
    while cursor is not None:
        page = (await ask("list_apps", query="limit=2" + (f"&cursor={cursor}" if cursor else ""))).json
        names.append([app["name"] for app in page["items"]])
        cursor = page["next_cursor"]

    assert names == [["a", "b"], ["c"]]


async def test_a_full_last_page_has_no_cursor(client, ask):
    await deploy(client, "a", "greet")

    assert (await ask("list_apps", query="limit=1")).json["next_cursor"] is None
    assert (await ask("list_apps", query="cursor=apps")).status == 422


async def test_a_spawned_job_is_durable_and_can_be_read(client, ask):
    world = await make_world(client)

    job = (await ask("get_job", job_id=world.job_id)).json

    assert (job["app"], job["function"], job["function_id"]) == (world.app, world.function, world.function_id)
    assert job["deployment_id"] == world.deployment_id
    assert job["finished_at"] is None
    assert (await ask("get_outcome", job_id=world.job_id, query="wait_s=0")).status == 202
    logs = (await ask("get_logs", job_id=world.job_id)).json
    assert (logs["lines"], logs["is_final"]) == ([], False)
    assert (await ask("get_logs", job_id=world.job_id, query=f"after={logs['last_index']}")).json == logs


async def test_a_cancelled_job_stays_cancelled(client, ask):
    world = await make_world(client)

    first = await ask("cancel_job", job_id=world.job_id)
    second = await ask("cancel_job", job_id=world.job_id)
    outcome = await ask("get_outcome", job_id=world.job_id)

    assert first.json == second.json == {"job_id": world.job_id, "status": "cancelled"}
    assert (outcome.status, outcome.json["status"], outcome.json["result"]) == (200, "cancelled", None)
    assert (await ask("get_job", job_id=world.job_id)).json["finished_at"] is not None
    assert (await ask("get_logs", job_id=world.job_id)).json["is_final"] is True


async def test_a_streamed_call_tells_its_job_and_then_its_outcome(client, ask):
    world = await make_world(client)
    headers = {"accept": OUTCOME_TYPE, "content-type": CALL_TYPE}
    body = encode_frame({"encoding": "json", "python": None}, b"[[1],{}]")
    reader = FrameReader(size_max=2 * VALUE_MAX)

    async with client.open("POST", f"/v1/functions/{world.function_id}/calls", headers=headers, body=body) as exchange:
        ((accepted, _),) = reader.feed(await exchange.piece() or b"")
        await ask("cancel_job", job_id=accepted["job_id"])
        ((outcome, _),) = reader.feed(await exchange.piece() or b"")
        end = await exchange.piece()

    assert accepted["kind"] == "accepted"
    assert (outcome["kind"], outcome["job_id"], outcome["status"]) == ("outcome", accepted["job_id"], "cancelled")
    assert end is None


async def test_a_client_that_leaves_does_not_stop_its_job(client, ask):
    world = await make_world(client)
    headers = {"accept": OUTCOME_TYPE, "content-type": "application/json"}

    async with client.open("POST", f"/v1/functions/{world.function_id}/calls", headers=headers, body=b"{}") as exchange:
        ((accepted, _),) = FrameReader(size_max=VALUE_MAX).feed(await exchange.piece() or b"")

    assert (await ask("get_job", job_id=accepted["job_id"])).json["finished_at"] is None


async def test_a_waiting_json_call_answers_when_the_wait_is_over(client, ask):
    world = await make_world(client)

    answer = await ask("call_app_function", app=world.app, function=world.function, query="wait_s=0.01", json={})

    assert answer.status == 202
    assert (await ask("get_job", job_id=answer.json["job_id"])).status == 200


async def test_calls_beyond_max_pending_tasks_are_told_to_wait(client, ask):
    await deploy(client, "hello", "greet", max_pending_tasks=2)
    answers = [
        await ask("call_app_function", app="hello", function="greet", query="wait_s=0", json={}) for _ in range(3)
    ]

    assert [answer.status for answer in answers] == [202, 202, 429]
    assert answers[2].json["retryable"] is True


@guarantee("G15.1", "limits_table")
async def test_values_and_bodies_above_their_limits_are_refused(client, ask):
    world = await make_world(client)
    frame = encode_frame({"encoding": "pickle", "python": None}, b"1" * (VALUE_MAX + 1))

    value = await ask("call_function", function_id=world.function_id, headers={"content-type": CALL_TYPE}, body=frame)
    body = await ask(
        "call_function",
        function_id=world.function_id,
        headers={"content-type": "application/json"},
        body=b" " * (CALL_BODY_MAX + 1),
    )

    assert (value.status, value.json["code"]) == (413, "value_too_large")
    assert (body.status, body.json["code"]) == (413, "too_large")


@guarantee("G16.4", "mass_assignment")
@pytest.mark.parametrize("operation", ["create_deployment", "call_function", "call_app_function"])
async def test_fields_nobody_asked_for_are_refused_and_nothing_happens(client, ask, operation):
    world = await make_world(client)
    good = {"manifest": manifest("greet"), "archive_sha256": ARCHIVE_SHA256} if "deploy" in operation else {"args": []}
    params = {"app": world.app, "function": world.function, "function_id": world.function_id}

    for field in ("org", "org_id", "created_by", "status", "id", "version", "attempt"):
        answer = await ask(operation, json={**good, field: "x"}, **params)
        assert answer.status == 422
        assert answer.json["detail"][0] == {
            "loc": ["body", field],
            "msg": "is no field of this object",
            "type": "unknown_field",
        }

    assert (await ask("get_app", app=world.app)).json["version"] == 1


async def test_nothing_works_without_a_key(cloud):
    ask = Checked(AsgiClient(cloud.asgi))
    for operation, described in CONTRACT.operations.items():
        if described.content["x-apothic-policy"]["audience"] != "public":
            params = dict.fromkeys(CONTRACT.parameters(operation, "path"), NO_KEY)
            assert (await ask(operation, **params)).status == 401


async def test_links_are_for_workers_only(ask):
    assert (await ask("open_link")).status == 403
    assert (await ask("get_link_archive", deployment_key=NO_KEY)).status == 403
