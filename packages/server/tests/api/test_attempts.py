"""What the token of an attempt opens, and when it ends (G17.1)."""

from __future__ import annotations

import asyncio

import pytest

from apothic.wire.attempts import ATTEMPT_HEADER
from apothic.wire.ids import make_key
from apothic.wire.tokens import (
    AttemptName,
    attempt_token,
    new_token,
    parse_attempt_name,
    token_kind,
    worker_attempt_key,
)
from apothic.wire.values import OUTCOME_TYPE, Value
from apothic_server.domain.access import SCOPES, Audience, Policy
from apothic_server.testing.asgi import AsgiClient
from apothic_server.testing.cloud import ScriptedWorker
from apothic_server.testing.guarantees import guarantee

pytestmark = pytest.mark.anyio

OPEN_TO_USER_CODE = {
    "call_function",
    "call_app_function",
    "get_app_function",
    "get_function",
    "get_job",
    "get_logs",
    "get_events",
    "get_outcome",
    "cancel_job",
    "create_group",
    "create_app_group",
    "add_inputs",
    "close_group",
    "cancel_group",
    "get_group",
    "get_group_events",
    "get_group_outcomes",
    "get_upload",
    "get_blob",
    "put_blob",
}
PEPPER = b"p" * 32


def headers_of(key, name):
    token = attempt_token(key, name.job, name.fence)
    return {"authorization": f"Bearer {token}", ATTEMPT_HEADER.lower(): str(name)}


@pytest.fixture
async def running(cloud):
    """A running attempt: the worker, the attempt, and the headers its code's requests have."""
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    welcome = await worker.next("welcome")
    job = await cloud.spawn()
    attempt = await worker.take()
    name = AttemptName(worker.incarnation, attempt.job, attempt.fence)
    return worker, attempt, job, welcome.attempt_key, name


@guarantee("G17.1", "job_token_scope")
async def test_user_code_may_do_what_is_listed_here_and_nothing_else(cloud, running):
    _, _, job, key, name = running
    fill = {
        "app": "shop", "function": "work", "function_id": f"functions:{job.job}",
        "deployment_id": f"deployments:{job.job}",
        "job_id": f"jobs:{job.job}", "group_id": f"groups:{job.job}", "sha256": "0" * 64, "deployment_key": job.job,
        "worker": "box", "join_token": f"join_tokens:{job.job}",
        "schedule_id": f"schedules:{job.job}", "schedule_key": job.job,
    }  # fmt: skip
    client = AsgiClient(cloud.asgi)
    allowed = set()
    for operation in cloud.asgi.operations.values():
        path = operation.path
        for part, value in fill.items():
            path = path.replace(f"{{{part}}}", value)
        assert "{" not in path, operation.path
        query = "?wait_s=0" if "wait_s" in operation.query else ""
        answer = await client.request(operation.method, path + query, headers=headers_of(key, name))
        if operation.policy.audience is Audience.PUBLIC:
            continue
        assert answer.status != 401, operation.id
        if answer.status != 403:
            allowed.add(operation.id)

    assert allowed == OPEN_TO_USER_CODE
    assert {row.id for row in cloud.asgi.operations.values() if row.policy.attempts} == OPEN_TO_USER_CODE


@guarantee("G17.1", "job_token_scope")
@pytest.mark.parametrize("scope", sorted(SCOPES))
def test_no_policy_can_open_keys_members_billing_secrets_or_deploys_to_user_code(scope):
    if scope.split(":")[0] in ("jobs", "queues", "storage") or scope == "apps:read":
        assert Policy(Audience.KEY, scope, attempts=True).attempts
    else:
        with pytest.raises(ValueError, match="may never do"):
            Policy(Audience.KEY, scope, attempts=True)
    with pytest.raises(ValueError, match="may never do"):
        Policy(Audience.OPERATOR, scope, attempts=True)


@guarantee("G17.1", "job_token_scope")
async def test_a_token_ends_with_its_attempt(cloud, running):
    worker, attempt, job, key, name = running
    client, path = AsgiClient(cloud.asgi), f"/v1/jobs/jobs:{attempt.job}"

    before = await client.request("GET", path, headers=headers_of(key, name))
    worker.fail(attempt, outcome="lost")
    again = await worker.take()
    old = await client.request("GET", path, headers=headers_of(key, name))
    new = await client.request("GET", path, headers=headers_of(key, name._replace(fence=again.fence)))
    worker.succeed(again)
    await job.outcome
    ended = await client.request("GET", path, headers=headers_of(key, name._replace(fence=again.fence)))

    assert [answer.status for answer in (before, old, new, ended)] == [200, 409, 200, 409]
    assert {old.json["code"], ended.json["code"]} == {"fenced"}


@pytest.mark.parametrize(
    "change",
    [
        {"fence": 2},
        {"job": make_key(5, 5)},
        {"incarnation": make_key(6, 6)},
    ],
)
async def test_a_token_is_good_for_exactly_its_attempt(cloud, running, change):
    *_, key, name = running
    headers = {**headers_of(key, name), ATTEMPT_HEADER.lower(): str(name._replace(**change))}

    answer = await AsgiClient(cloud.asgi).request("GET", f"/v1/jobs/jobs:{name.job}", headers=headers)

    assert (answer.status, answer.json["code"]) == (401, "unauthenticated")


async def test_a_token_of_a_worker_for_an_attempt_that_it_does_not_hold_is_refused(cloud, running):
    *_, name = running
    other = ScriptedWorker(cloud, name="other")
    await other.connect()
    key = (await other.next("welcome")).attempt_key
    headers = headers_of(key, name._replace(incarnation=other.incarnation))

    answer = await AsgiClient(cloud.asgi).request("GET", f"/v1/jobs/jobs:{name.job}", headers=headers)

    assert (answer.status, answer.json["code"]) == (409, "fenced")


@pytest.mark.parametrize("text", ["", "a.b.1", "x", "jobs:1", "0" * 60, "é"])
async def test_a_token_without_a_name_that_fits_is_refused(cloud, text):
    headers = {"authorization": f"Bearer {new_token('lj')}", ATTEMPT_HEADER.lower(): text}

    answer = await AsgiClient(cloud.asgi).request("GET", "/v1/jobs/jobs:1", headers=headers)

    assert (answer.status, answer.json["code"]) == (401, "unauthenticated")


async def test_a_job_that_memory_lacks_is_read_from_the_store_for_its_code(cloud, running):
    *_, key, name = running
    await cloud.settle()
    live = cloud.inner.board.jobs.pop(name.job)
    cloud.start_loop("reload")

    async with asyncio.timeout(10):
        actor = await cloud.services.authenticate(attempt_token(key, name.job, name.fence), str(name))

    assert (actor.org, actor.attempt.app, actor.attempt.depth) == (cloud.actor.org, live.function.app, 0)
    assert cloud.inner.board.jobs[name.job].fence == name.fence


async def test_only_the_process_that_dispatches_serves_user_code(cloud, running):
    *_, key, name = running
    cloud.inner.board.term = None

    answer = await AsgiClient(cloud.asgi).request("GET", f"/v1/jobs/jobs:{name.job}", headers=headers_of(key, name))

    assert (answer.status, answer.json["code"], answer.json["retryable"]) == (503, "unavailable", True)


@guarantee("G17.1", "job_token_scope")
async def test_code_may_no_more_than_the_key_that_its_job_was_called_with(cloud, running):
    *_, key, name = running
    async with cloud.inner.database.system_unit() as unit:
        await unit.execute("UPDATE api_keys SET scopes = '{jobs:read,keys:read}' WHERE id = $1", cloud.actor.key)
    client, headers = AsgiClient(cloud.asgi), headers_of(key, name)

    read = await client.request("GET", f"/v1/jobs/jobs:{name.job}", headers=headers)
    cancelled = await client.request("POST", f"/v1/jobs/jobs:{name.job}/cancel", headers=headers)
    found = await client.request("GET", "/v1/apps/shop/functions/work", headers=headers)
    await cloud.inner.keys.revoke(cloud.key)
    revoked = await client.request("GET", f"/v1/jobs/jobs:{name.job}", headers=headers)

    assert [answer.status for answer in (read, cancelled, found, revoked)] == [200, 403, 403, 401]


SEEN = [
    ("GET", "", 200),
    ("GET", "/outcome?wait_s=0", 202),
    ("GET", "/logs", 200),
    ("GET", "/events", 200),
    ("POST", "/cancel", 200),
]


@guarantee("G17.1", "job_token_scope")
@pytest.mark.parametrize(("method", "path", "status"), SEEN)
async def test_code_sees_the_jobs_of_its_app_and_those_it_called_and_no_others(cloud, running, method, path, status):
    *_, key, name = running
    await cloud.deploy("other")
    code = await cloud.services.authenticate(attempt_token(key, name.job, name.fence), str(name))
    beside, foreign = await cloud.spawn(), await cloud.spawn(app="other")
    called = await cloud.services.jobs.submit(code, ("other", "work"), Value("json", b"[[],{}]"), blocking=False)
    await called.accepted
    client, headers = AsgiClient(cloud.asgi), headers_of(key, name)

    async def ask(which):
        return (await client.request(method, f"/v1/jobs/jobs:{which.job}{path}", headers=headers)).status

    assert [await ask(foreign), await ask(called), await ask(beside)] == [404, status, status]
    cloud.inner.board.jobs.pop(foreign.job)
    assert await ask(foreign) == 404
    assert await cloud.status(foreign.job) not in ("cancelling", "cancelled")


@guarantee("G17.1", "job_token_scope")
@pytest.mark.parametrize("end", ["succeeded", "lost"])
@pytest.mark.parametrize(("path", "accept"), [("events", "text/event-stream"), ("outcome", OUTCOME_TYPE),
                                              ("outcome?wait_s=60", "application/json")])  # fmt: skip
async def test_what_is_being_answered_to_an_attempt_is_cut_when_it_ends(cloud, running, path, accept, end):
    worker, attempt, _, key, name = running
    other = await cloud.spawn()
    headers = {**headers_of(key, name), "accept": accept}
    asking = asyncio.ensure_future(
        AsgiClient(cloud.asgi).request("GET", f"/v1/jobs/jobs:{other.job}/{path}", headers=headers)
    )
    async with asyncio.timeout(10):
        while not cloud.inner.board._overs:  # noqa: ASYNC110 (a request tells nobody that it waits now)
            await asyncio.sleep(0)

    worker.succeed(attempt) if end == "succeeded" else worker.fail(attempt, outcome="lost")

    async with asyncio.timeout(10):
        await asyncio.gather(asking, return_exceptions=True)
    assert await cloud.status(other.job) in ("queued", "starting", "running")


def test_derived_tokens_have_the_form_of_all_tokens_and_differ_by_attempt():
    incarnation, job = make_key(1, 1), make_key(2, 2)
    key = worker_attempt_key(PEPPER, incarnation)
    names = [AttemptName(incarnation, job, fence) for fence in range(1, 200)]
    tokens = {attempt_token(key, name.job, name.fence) for name in names}

    assert len(tokens) == len(names)
    assert {token_kind(token) for token in tokens} == {"lj"}
    assert [parse_attempt_name(str(name)) for name in names] == names
