"""The typed requests of `ControlPlaneClient`, its raw requests, its connections and its errors."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from apothic import (
    ApothicError,
    AuthError,
    CapacityError,
    ConflictError,
    ControlPlaneClient,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    TooLargeError,
    UnavailableError,
)
from apothic._answers import JobInfo
from apothic._parse import build
from apothic.client import AsyncControlPlaneClient
from apothic.errors import BY_CODE
from apothic.wire.link import Machine

from .conftest import (
    DEPLOYMENT,
    FUNCTION,
    JOB,
    KEY,
    TIME,
    Received,
    ScriptedServer,
    Wire,
    check,
    deployment_json,
    function_json,
    make_core,
    remote_error,
)

HELD = {
    "items": [
        {"worker": "local", "environment": "0" * 32, "size_bytes": 9, "built_at": TIME, "used_at": TIME}
        | {"is_in_use": False, "is_needed": True}
    ],
    "freed_bytes": 5,
    "unanswered": [],
    "is_known": True,
}
APP = {
    "app_id": f"apps:{KEY}", "name": "hello-world", "deployment_id": None, "version": None, "functions": ["greet"],
    "created_at": TIME,
}  # fmt: skip
END = {"deployment": deployment_json(), "unfinished_jobs": 2}
ENTRY = {
    "deployment_id": DEPLOYMENT, "app": "hello-world", "version": 3, "status": "stopped", "created_at": TIME,
    "stopped_at": TIME, "restored_from": None,
}  # fmt: skip
JOB_JSON = {
    "job_id": JOB, "app": "hello-world", "function": "greet", "function_id": FUNCTION, "deployment_id": DEPLOYMENT,
    "status": "failed", "attempt": 1, "waiting_reason": None, "error": remote_error(), "created_at": TIME,
    "retry_of": JOB, "schedule_id": None, "due_at": None,
    "parent_job_id": None, "depth": 0, "started_at": None, "finished_at": TIME,
}  # fmt: skip
MACHINE = {
    "host": "h", "executor": "sandbox", "isolation": ["user"], "enforced": ["memory"], "not_enforced": {"cpu": "no"},
    "cpus": 2, "memory_mb": 1024, "pythons": ["3.11"],
}  # fmt: skip
BOX = {
    "name": "box", "status": "live", "draining": False, "jobs": None, "joined_at": TIME, "worker_id": f"workers:{KEY}",
}  # fmt: skip
IDENTITY = {
    "org": "default", "key": {"id": f"keys:{KEY}", "name": "first", "prefix": "lk_", "last4": "abcd"},
    "role": "owner", "scopes": ["apps:read"], "server_version": "0.1.0",
}  # fmt: skip


def test_every_typed_request_reads_what_the_contract_says(server: ScriptedServer, client: ControlPlaneClient) -> None:
    answers = {
        "GET /v1/identity": ("Identity", IDENTITY),
        "GET /readyz": (
            "Readiness",
            {"ready": True, "role": "standby", "checks": {"store": {"ok": True, "detail": ""}}},
        ),
        "GET /v1/workers": (
            "WorkerList",
            {"items": [{"worker_id": f"workers:{KEY}", "name": "w", "status": "live", "connected_at": TIME,
                        "machine": MACHINE, "runners": 0, "enrolled": True}], "enrolled": [BOX]},
        ),
        "POST /v1/workers/box/drain": ("EnrolledWorker", {**BOX, "status": "draining", "draining": True}),
        "POST /v1/workers/box/resume": ("EnrolledWorker", BOX),
        "DELETE /v1/workers/box": ("EnrolledWorker", {**BOX, "status": "removed"}),
        "GET /v1/apps/hello-world": ("App", APP),
        f"GET /v1/deployments/{DEPLOYMENT}": ("Deployment", deployment_json()),
        f"POST /v1/deployments/{DEPLOYMENT}/stop": ("DeploymentEnd", END),
        f"DELETE /v1/deployments/{DEPLOYMENT}": ("DeploymentEnd", END),
        "POST /v1/apps/hello-world/rollback": ("Deployment", deployment_json(restored_from=2)),
        "GET /v1/deployments": ("DeploymentList", {"items": [ENTRY], "next_cursor": None}),
        "GET /v1/apps/hello-world/functions/greet": ("Function", function_json()),
        "GET /v1/environments": ("HeldEnvironments", HELD),
        "DELETE /v1/environments": ("HeldEnvironments", HELD),
        f"GET /v1/functions/{FUNCTION}": ("Function", function_json()),
        f"GET /v1/jobs/{JOB}": ("Job", JOB_JSON),
    }  # fmt: skip
    for route, (schema, data) in answers.items():
        server.routes[route] = lambda wire, _, schema=schema, data=data: wire.answer(200, check(schema, data))

    assert client.identity().key.last4 == "abcd"
    assert client.readiness().checks["store"].ok
    assert client.list_workers()[0].machine == Machine(**{**MACHINE, "cpus": 2.0})
    assert client.list_workers()[0].enrolled
    assert client.list_enrolled_workers()[0].worker_id == f"workers:{KEY}"
    assert client.drain_worker("box").draining
    assert client.resume_worker("box").jobs is None
    assert client.remove_worker("box").status == "removed"
    assert client.get_app("hello-world").functions == ("greet",)
    assert client.get_deployment(DEPLOYMENT).functions[0].function_id == FUNCTION
    assert client.stop_deployment(DEPLOYMENT).unfinished_jobs == 2
    assert client.delete_deployment(DEPLOYMENT, now=True).deployment.deployment_id == DEPLOYMENT
    assert server.received[-1].path.endswith("?now=true")
    assert client.list_environments().items[0].size_bytes == 9
    assert client.prune_environments().freed_bytes == 5
    assert client.list_deployments()[0].version == 3
    assert client.rollback("hello-world", 2).manifest["module"] == "hello"
    assert server.received[-1].path.endswith("?version=2")
    with pytest.raises(InvalidRequestError, match="version"):
        client.rollback("hello-world", 0)
    assert client.get_function("hello-world", "greet").retry_initial_delay_s == 1.0
    assert client.function_by_id(FUNCTION).name == "greet"
    assert client.get_job(JOB).error == remote_error()


TOKEN_ID = f"join_tokens:{KEY}"


def test_a_join_token_is_asked_for_once_however_often_the_request_is_sent(
    server: ScriptedServer, client: ControlPlaneClient
) -> None:
    def script(wire: Wire, request: Received) -> None:
        assert json.loads(request.body) == {"life_s": 600}
        assert "idempotency-key" in request.headers
        wire.answer(201, check("JoinToken", {"token": f"li_{'0' * 38}", "expires_at": TIME, "join_token_id": TOKEN_ID}))

    server.routes["POST /v1/join-tokens"] = script

    made = client.make_join_token(life_s=600)

    assert (made.token, made.join_token_id) == (f"li_{'0' * 38}", TOKEN_ID)
    for life_s in (59, 86_401):
        with pytest.raises(InvalidRequestError, match="life_s"):
            client.make_join_token(life_s=life_s)


def test_join_tokens_are_listed_and_revoked(server: ScriptedServer, client: ControlPlaneClient) -> None:
    known = {"join_token_id": TOKEN_ID, "created_at": TIME, "expires_at": TIME}
    server.routes["GET /v1/join-tokens"] = lambda wire, _: wire.answer(200, check("JoinTokenList", {"items": [known]}))
    server.routes[f"DELETE /v1/join-tokens/{TOKEN_ID}"] = lambda wire, _: wire.answer(
        200, check("JoinTokenInfo", known)
    )

    assert [one.join_token_id for one in client.list_join_tokens()] == [TOKEN_ID]
    assert client.revoke_join_token(TOKEN_ID).expires_at == TIME


def test_apps_are_listed_over_all_pages(server: ScriptedServer, client: ControlPlaneClient) -> None:
    def script(wire: Wire, request: Received) -> None:
        is_first = "cursor" not in request.path
        wire.answer(200, check("AppList", {"items": [APP], "next_cursor": "a b&c" if is_first else None}))

    server.scripts += [script, script]

    assert len(client.list_apps()) == 2
    assert server.received[1].path == "/v1/apps?limit=200&cursor=a+b%26c"


def test_a_list_that_never_ends_is_noticed(server: ScriptedServer, client: ControlPlaneClient) -> None:
    server.scripts += [lambda wire, _: wire.answer(200, {"items": [APP], "next_cursor": "x"})] * 2

    with pytest.raises(ProtocolError):
        client.list_apps()


def test_readiness_answers_503_without_trying_again(server: ScriptedServer, client: ControlPlaneClient) -> None:
    checks = {"store": {"ok": False, "detail": "away"}}
    body = check("Readiness", {"ready": False, "role": "standby", "checks": checks})
    server.scripts.append(lambda wire, _: wire.answer(503, body))

    assert client.readiness().checks["store"].detail == "away"


def test_an_archive_is_streamed_from_its_file_and_repeated_whole(
    server: ScriptedServer, client: ControlPlaneClient, tmp_path: Path
) -> None:
    file = tmp_path / "archive"
    file.write_bytes(os.urandom(1_000_000))
    answer = check("Archive", {"sha256": "0" * 64, "size_bytes": 1_000_000})
    server.scripts += [lambda wire, _: False, lambda wire, _: wire.answer(201, answer)]
    client.put_archive(file, "0" * 64)

    assert [request.body == file.read_bytes() for request in server.received] == [True, True]


def test_an_upload_that_the_server_stops_reading_raises_the_servers_reason(
    server: ScriptedServer, client: ControlPlaneClient
) -> None:
    """The server answers 413 without reading the body, as a server does that counts while it reads."""
    stop = threading.Event()

    class Hasty(Wire):
        def read(self) -> Received | None:
            while b"\r\n\r\n" not in self._buffer:
                if not self._more():
                    return None
            self.refuse(413, "too_large", "the archive is larger than 512 MiB", Connection="close")
            stop.wait(10)
            return None

    server.wire_class = Hasty
    with pytest.raises(TooLargeError, match="512 MiB") as caught:
        client.put_archive(b"x" * 30_000_000, "0" * 64)
    stop.set()

    assert caught.value.code == "too_large"


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "unauthenticated", AuthError),
        (403, "forbidden", PermissionDeniedError),
        (404, "not_found", NotFoundError),
        (409, "archive_missing", ConflictError),
        (413, "value_too_large", TooLargeError),
        (422, "invalid", InvalidRequestError),
        (429, "too_many_pending", CapacityError),
        (503, "unavailable", UnavailableError),
        (409, "a_code_of_the_future", ConflictError),
        (500, "internal", ApothicError),
    ],
)
def test_error_answers_become_the_exception_of_their_code(
    server: ScriptedServer, client: ControlPlaneClient, status: int, code: str, kind: type[ApothicError]
) -> None:
    server.scripts.append(lambda wire, _: wire.refuse(status, code, "because", Retry_After="3600"))

    with pytest.raises(kind, match="because") as caught:
        client.identity()
    assert (type(caught.value), caught.value.code, caught.value.request_id) == (kind, code, "r1")


def test_a_validation_list_reads_as_one_sentence(server: ScriptedServer, client: ControlPlaneClient) -> None:
    problems = [{"loc": ["body", "manifest", 0], "msg": "is missing", "type": "missing"}]
    server.scripts.append(lambda wire, _: wire.refuse(422, "invalid", problems))

    with pytest.raises(InvalidRequestError, match=r"^body\.manifest\.0: is missing$") as caught:
        client.identity()
    assert caught.value.detail == problems


def test_every_code_that_the_contract_shows_has_a_class(contract: dict[str, Any]) -> None:
    def codes(node: Any) -> set[str]:
        if isinstance(node, dict):
            own = (
                {node["code"]} if {"detail", "code", "request_id"} <= set(node) and type(node["code"]) is str else set()
            )
            return own.union(*map(codes, node.values()))
        return set().union(*map(codes, node)) if isinstance(node, list) else set()

    found = codes(contract["components"]) | codes(contract["paths"])

    assert {"not_found", "too_many_pending"} <= found
    assert found <= {*BY_CODE, "internal"}


@pytest.mark.parametrize("body", ["null", "[]", '{"org": 1}', "{", "\xff"])
def test_answers_that_break_the_contract_are_protocol_errors(
    server: ScriptedServer, client: ControlPlaneClient, body: str
) -> None:
    data = body.encode("latin-1")
    server.scripts.append(
        lambda wire, _: wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
    )

    with pytest.raises(ProtocolError):
        client.identity()


def test_a_bool_is_no_number_in_an_answer() -> None:
    with pytest.raises(ProtocolError, match=r"JobInfo\.attempt must be int"):
        build(JobInfo, JOB_JSON | {"attempt": True})


def test_fields_that_are_new_are_left_out() -> None:
    assert build(JobInfo, JOB_JSON | {"new": 1}).status == "failed"


def test_redirects_are_not_followed(server: ScriptedServer, client: ControlPlaneClient) -> None:
    server.scripts.append(lambda wire, _: wire.answer(307, None, Location="http://127.0.0.1:1/steal"))

    with pytest.raises(ProtocolError, match="redirect"):
        client.identity()


def test_something_that_speaks_no_http_is_a_protocol_error(server: ScriptedServer, client: ControlPlaneClient) -> None:
    server.scripts.append(lambda wire, _: wire.send(b"220 mail.example.com ESMTP\r\n\r\n"))

    with pytest.raises(ProtocolError, match="not HTTP"):
        client.identity()


def test_raw_requests_give_any_answer_as_it_is(server: ScriptedServer, client: ControlPlaneClient) -> None:
    server.scripts += [lambda wire, _: wire.refuse(503, "unavailable", retryable=True, Retry_After="0")]
    server.scripts += [lambda wire, _: wire.answer(404, {"a": 1})]
    refused = client.request("get", "/v1/x", query={"a": "b c"})
    missing = client.request("POST", "/v1/y", json={"k": [1]}, headers={"X-Own": "1"})

    assert (refused.status, missing.status, missing.body) == (503, 404, b'{"a": 1}')
    assert server.received[0].path == "/v1/x?a=b+c"
    assert (server.received[1].body, server.received[1].headers["x-own"]) == (b'{"k":[1]}', "1")


@pytest.mark.parametrize(
    ("method", "path", "more"),
    [("GET", "v1", {}), ("GET", "/a b", {}), ("G T", "/", {}), ("GET", "/", {"headers": {"A": "b\r\nC: d"}}),
     ("POST", "/", {"json": {}, "body": b""})],
)  # fmt: skip
def test_raw_requests_that_cannot_be_sent_are_refused(
    client: ControlPlaneClient, method: str, path: str, more: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequestError):
        client.request(method, path, **more)


def test_names_travel_as_one_path_segment(server: ScriptedServer, client: ControlPlaneClient) -> None:
    server.scripts.append(lambda wire, _: wire.refuse(404, "not_found"))
    with pytest.raises(NotFoundError):
        client.get_app("a/../b?c#d é")
    for name in ("", ".", "..", "\ud800"):
        with pytest.raises(InvalidRequestError):
            client.get_app(name)

    assert server.received[0].path == "/v1/apps/a%2F..%2Fb%3Fc%23d%20%C3%A9"


def test_a_base_url_may_have_a_path(server: ScriptedServer) -> None:
    client = ControlPlaneClient.from_core(make_core(f"{server.url}/cloud/"))
    server.scripts.append(lambda wire, _: wire.answer(200, IDENTITY))
    client.identity()
    client.close()

    assert server.received[0].path == "/cloud/v1/identity"


def test_an_idle_connection_that_the_server_closed_is_replaced_unseen(
    server: ScriptedServer, client: ControlPlaneClient
) -> None:
    def answer_and_close(wire: Wire, _: Received) -> bool:
        wire.answer(202, {"job_id": JOB, "status": "queued"})
        return False

    server.scripts += [answer_and_close, answer_and_close]
    from apothic._serialize import encode_arguments

    client.spawn(FUNCTION, encode_arguments([], {}))
    client.core.idle._lines[0].socket.settimeout(10)
    client.core.idle._lines[0].socket.recv(1)  # waits for the server's end of the stream
    client.spawn(FUNCTION, encode_arguments([], {}))

    assert server.connections == 2


def test_an_old_idle_connection_is_not_used_again(server: ScriptedServer) -> None:
    now = [0.0]
    client = ControlPlaneClient.from_core(make_core(server.url, clock=lambda: now[0]))
    server.scripts += [lambda wire, _: wire.answer(200, IDENTITY)] * 3
    for moment in (0.0, 3.9, 8.0):
        now[0] = moment
        client.identity()
    client.close()

    assert server.connections == 2


def test_threads_have_connections_of_their_own(server: ScriptedServer, client: ControlPlaneClient) -> None:
    server.routes["GET /v1/identity"] = lambda wire, _: wire.answer(200, IDENTITY)
    barrier = threading.Barrier(4)
    found: list[str] = []

    def use() -> None:
        barrier.wait()
        found.extend(client.identity().org for _ in range(5))
        barrier.wait()

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == ["default"] * 20
    assert server.connections == 4


def test_a_forked_child_opens_its_own_connection(server: ScriptedServer, client: ControlPlaneClient) -> None:
    server.routes["GET /v1/identity"] = lambda wire, _: wire.answer(200, IDENTITY)
    client.identity()
    child = os.fork()
    if child == 0:
        os._exit(0 if client.identity().org == "default" else 1)
    _, status = os.waitpid(child, 0)
    client.identity()

    assert status == 0
    assert server.connections == 2


def test_asyncio_calls_at_once_do_not_share_connections(server: ScriptedServer, client: ControlPlaneClient) -> None:
    server.routes["GET /v1/identity"] = lambda wire, _: wire.answer(200, IDENTITY)

    async def scenario() -> list[str]:
        return [one.org for one in await asyncio.gather(*(client.aio.identity() for _ in range(8)))]

    assert asyncio.run(scenario()) == ["default"] * 8
    assert asyncio.run(scenario()) == ["default"] * 8


def test_both_clients_have_the_same_methods_and_signatures() -> None:
    def signatures(kind: type[Any]) -> dict[str, list[tuple[str, Any, Any]]]:
        members = inspect.getmembers(kind, inspect.isfunction)
        return {
            name: [(p.name, p.kind, p.default) for p in inspect.signature(member).parameters.values()]
            for name, member in members
            if not name.startswith("_")
        }

    assert signatures(ControlPlaneClient) == signatures(AsyncControlPlaneClient)


@pytest.mark.parametrize("bad", [{"timeout_s": 0}, {"timeout_s": "1"}, {"allow_pickle": 1}])
def test_options_of_a_client_are_checked(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match=next(iter(bad))):
        ControlPlaneClient("http://127.0.0.1:1", **bad)
