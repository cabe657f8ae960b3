"""What happens to a request before and after its handler, over small tables of real operations."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncGenerator

import pytest
import structlog
from structlog.testing import capture_logs

from apothic.wire.ids import KeyId, OrgId
from apothic.wire.limits import HEADER_BLOCK_MAX
from apothic.wire.tokens import sealed
from apothic_server.api.shared.asgi import CLIENT_GONE, Face
from apothic_server.api.shared.errors import STATUSES
from apothic_server.api.shared.operations import Operation
from apothic_server.api.shared.request import Request
from apothic_server.api.shared.response import Response, empty_response, raw_response, stream_response
from apothic_server.domain import errors
from apothic_server.domain.access import SCOPES, Actor, Audience, Policy, Role
from apothic_server.testing.asgi import AsgiClient, CutError
from apothic_server.testing.guarantees import guarantee

pytestmark = pytest.mark.anyio

PUBLIC = Policy(Audience.PUBLIC)
OWNER, VIEWER, WORKER = sealed("lk", "o" * 32), sealed("lk", "v" * 32), sealed("lw", "w" * 32)
HOLDERS = {
    OWNER: Actor(OrgId("first"), KeyId("1"), Role.OWNER, SCOPES, is_operator=True),
    VIEWER: Actor(OrgId("second"), KeyId("2"), Role.VIEWER, SCOPES),
    WORKER: Actor(OrgId("first"), KeyId("3"), Role.WORKER, SCOPES, is_operator=True),
}


class Lookups:
    """Knows the tokens above and remembers which were looked up."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def authenticate(self, token: str, attempt: str) -> Actor:
        self.seen.append(token)
        if token not in HOLDERS:
            raise errors.Unauthenticated("The token is unknown, expired or revoked.")
        return HOLDERS[token]


def row(handler, path: str = "/x", method: str = "GET", policy: Policy = PUBLIC, **more) -> Operation:
    statuses = frozenset(STATUSES.values()) | {200, 500}
    return Operation(
        id=path, method=method, path=path, policy=policy, handler=handler, **{"statuses": statuses, **more}
    )


def face(*rows: Operation, lookups: Lookups | None = None, observe=lambda *_: None) -> AsgiClient:
    numbers = itertools.count(1)
    app = Face(
        rows,
        authenticate=(lookups or Lookups()).authenticate,
        make_request_id=lambda: f"request-{next(numbers)}",
        log=structlog.get_logger(),
        observe=observe,
        clock=itertools.count().__next__,
    )
    return AsgiClient(app)


async def nothing(request: Request) -> Response:
    return empty_response()


async def echo(request: Request) -> Response:
    return raw_response(await request.body(), "application/octet-stream")


def failing(error: Exception):
    async def handler(request: Request) -> Response:
        raise error

    return handler


class TestAuthentication:
    def table(self, lookups: Lookups) -> AsgiClient:
        return face(
            row(nothing, "/public"),
            row(nothing, "/read", policy=Policy(Audience.KEY, "apps:read")),
            row(nothing, "/write", policy=Policy(Audience.KEY, "apps:write")),
            row(nothing, "/operator", policy=Policy(Audience.OPERATOR, "org:read")),
            row(nothing, "/worker", policy=Policy(Audience.WORKER)),
            lookups=lookups,
        )

    @pytest.mark.parametrize(
        ("token", "allowed"),
        [
            (OWNER, {"/public", "/read", "/write", "/operator"}),
            (VIEWER, {"/public", "/read"}),
            (WORKER, {"/public", "/worker"}),
        ],
    )
    async def test_role_scope_and_audience_decide_together(self, token, allowed):
        client = self.table(Lookups()).as_holder_of(token)

        answers = {
            path: await client.request("GET", path) for path in ("/public", "/read", "/write", "/operator", "/worker")
        }

        assert {path for path, answer in answers.items() if answer.status == 200} == allowed
        assert {answer.status for path, answer in answers.items() if path not in allowed} == {403}

    @pytest.mark.parametrize(
        "header",
        [
            "",
            "Bearer",
            "Bearer ",
            "Basic dTpw",
            OWNER,
            f"Token {OWNER}",
            f"Bearer {OWNER[:-1]}",
            f"Bearer {OWNER}x",
            f"Bearer {OWNER}, Bearer {OWNER}",
            f"Bearer {sealed('lr', 'r' * 32)}",
            f"Bearer {OWNER[:-1]}ÿ",
            "Bearer lk_",
        ],
    )
    async def test_a_malformed_token_is_refused_without_a_lookup(self, header):
        lookups = Lookups()

        answer = await self.table(lookups).request("GET", "/read", headers={"authorization": header})

        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json["code"] == "unauthenticated"
        assert not lookups.seen

    async def test_an_unknown_token_is_refused_after_the_lookup(self):
        lookups, token = Lookups(), sealed("lk", "l" * 32)

        answer = await self.table(lookups).as_holder_of(token).request("GET", "/read")

        assert (answer.status, lookups.seen) == (401, [token])

    async def test_the_scheme_is_read_in_any_case(self):
        answer = await self.table(Lookups()).request("GET", "/read", headers={"Authorization": f"bEARER {OWNER}"})

        assert answer.status == 200

    async def test_two_authorization_headers_are_refused(self):
        headers = [("authorization", f"Bearer {OWNER}"), ("authorization", f"Bearer {VIEWER}")]

        assert (await self.table(Lookups()).request("GET", "/read", headers=headers)).status == 401

    async def test_a_public_operation_looks_at_no_token(self):
        lookups = Lookups()

        answer = await self.table(lookups).request("GET", "/public", headers={"authorization": "Bearer nonsense"})

        assert (answer.status, lookups.seen) == (200, [])


class TestErrors:
    @guarantee("G20.6", "error_shape_fuzz")
    @pytest.mark.parametrize(("kind", "status"), STATUSES.items())
    async def test_every_error_class_has_its_status_and_the_one_body(self, kind, status):
        error = kind(("GET",)) if status == 405 else kind("A sentence.")

        answer = await face(row(failing(error))).request("GET", "/x")

        assert answer.status == status
        assert answer.json == {
            "detail": error.detail,
            "code": error.code,
            "request_id": "request-1",
            "retryable": error.retryable,
        }
        assert answer.headers["x-request-id"] == "request-1"
        assert ("retry-after" in answer.headers) == (status in (429, 503, 507))

    async def test_a_subclass_answers_as_its_base(self):
        answer = await face(row(failing(errors.Fenced("Taken over.")))).request("GET", "/x")

        assert (answer.status, answer.json["code"]) == (409, "fenced")

    async def test_advice_on_when_to_retry_is_passed_on(self):
        answer = await face(row(failing(errors.TooMany("Wait.", retry_after_s=7)))).request("GET", "/x")

        assert answer.headers["retry-after"] == "7"

    @pytest.mark.parametrize("error", [RuntimeError("SELECT secret FROM /root"), errors.PlatformError("odd")])
    async def test_an_error_of_ours_tells_nothing_and_is_logged(self, error):
        with capture_logs() as logs:
            answer = await face(row(failing(error))).request("GET", "/x")

        assert answer.status == 500
        assert answer.json["code"] == "internal"
        assert b"secret" not in answer.body
        assert [line["event"] for line in logs] == ["request.failed", "request.done"]
        assert logs[0]["log_level"] == "error"

    async def test_a_status_that_the_table_does_not_list_becomes_an_internal_error(self):
        client = face(row(failing(errors.Conflict("Changed.")), statuses=frozenset({200, 500})))

        with capture_logs() as logs:
            answer = await client.request("GET", "/x")

        assert answer.status == 500
        assert logs[0]["event"] == "request.undocumented_status"

    @pytest.mark.parametrize(
        ("method", "allow"), [("POST", "GET"), ("HEAD", "GET"), ("OPTIONS", "GET"), ("BREW", "GET")]
    )
    async def test_other_methods_name_the_known_ones(self, method, allow):
        answer = await face(row(nothing)).request(method, "/x")

        assert (answer.status, answer.headers["allow"]) == (405, allow)

    async def test_a_trailing_slash_is_another_address(self):
        assert (await face(row(nothing)).request("GET", "/x/")).status == 404

    async def test_a_head_answer_has_no_body_even_when_it_is_an_error(self):
        client = face(row(failing(errors.NotFound("No.")), method="HEAD"))

        answer = await client.request("HEAD", "/x")

        assert (answer.status, answer.body) == (404, b"")
        assert "content-length" not in answer.headers

    async def test_a_request_id_from_outside_is_ignored(self):
        answer = await face(row(nothing)).request("GET", "/x", headers={"x-request-id": "mine"})

        assert answer.headers["x-request-id"] == "request-1"


class TestBodies:
    JSON = ("application/json",)

    def client(self, body_max: int = 10, accepts: tuple[str, ...] = ("application/json",)) -> AsgiClient:
        return face(row(echo, method="PUT", body_max=body_max, accepts=accepts), row(nothing, "/none", "POST"))

    async def test_a_body_up_to_the_limit_is_read(self):
        answer = await self.client().request("PUT", "/x", headers={"content-type": "application/json"}, body=b"1" * 10)

        assert answer.body == b"1" * 10

    async def test_a_body_in_pieces_is_joined(self):
        headers = {"content-type": "application/json"}
        async with self.client().open("PUT", "/x", headers=headers, body=None) as exchange:
            exchange.send_body(b"12", more=True)
            exchange.send_body(b"", more=True)
            exchange.send_body(b"34", more=False)

            answer = await exchange.answer()

        assert answer.body == b"1234"

    @guarantee("G15.1", "limits_table")
    async def test_an_announced_length_above_the_limit_is_refused_before_reading(self):
        headers = {"content-type": "application/json", "content-length": "11"}
        async with self.client().open("PUT", "/x", headers=headers, body=None) as exchange:
            answer = await exchange.answer()

        assert (answer.status, answer.json["code"]) == (413, "too_large")
        assert answer.headers["connection"] == "close"

    @guarantee("G15.1", "limits_table")
    async def test_bytes_are_counted_whatever_was_announced(self):
        headers = {"content-type": "application/json", "content-length": "3"}
        async with self.client().open("PUT", "/x", headers=headers, body=None) as exchange:
            exchange.send_body(b"1" * 10, more=True)
            exchange.send_body(b"1", more=True)
            answer = await exchange.answer()

        assert answer.status == 413

    @pytest.mark.parametrize("length", ["-1", "x", "", "1, 1", "9" * 30])
    async def test_a_length_that_is_none_is_refused(self, length):
        headers = {"content-type": "application/json", "content-length": length}
        async with self.client().open("PUT", "/x", headers=headers, body=None) as exchange:
            assert (await exchange.answer()).status == 422

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"content-type": "text/plain"},
            {"content-type": "application/jsonp"},
            {"content-type": "application/json; charset=latin-1"},
            {"content-type": "application/json, application/json"},
            {"content-type": "application/json", "content-encoding": "gzip"},
        ],
    )
    async def test_other_content_types_are_refused(self, headers):
        answer = await self.client().request("PUT", "/x", headers=headers, body=b"1")

        assert (answer.status, answer.json["code"]) == (415, "unsupported_media_type")

    @pytest.mark.parametrize("value", ["application/json;charset=utf-8", 'Application/JSON; Charset="UTF-8"'])
    async def test_a_content_type_may_name_utf_8(self, value):
        assert (await self.client().request("PUT", "/x", headers={"content-type": value}, body=b"1")).status == 200

    @pytest.mark.parametrize("headers", [{"content-length": "1"}, {"transfer-encoding": "chunked"}])
    async def test_an_operation_without_a_body_refuses_one(self, headers):
        async with self.client().open("POST", "/none", headers=headers, body=None) as exchange:
            answer = await exchange.answer()

        assert answer.json["detail"][0]["type"] == "body_unexpected"

    async def test_a_client_that_leaves_inside_its_body_gets_no_answer(self):
        seen = []
        client = face(
            row(echo, method="PUT", body_max=10, accepts=self.JSON), observe=lambda *done: seen.append(done[:2])
        )
        with pytest.raises(CutError):
            async with client.open("PUT", "/x", headers={"content-type": "application/json"}, body=None) as exchange:
                exchange.send_body(b"1", more=True)
                exchange.disconnect()
                await exchange.answer()

        assert seen == [("/x", CLIENT_GONE)]

    @guarantee("G15.1", "limits_table")
    async def test_headers_above_the_limit_are_refused(self):
        answer = await face(row(nothing)).request("GET", "/x", headers={"x-long": "a" * HEADER_BLOCK_MAX})

        assert (answer.status, answer.json["code"]) == (413, "too_large")


class TestStreams:
    async def test_pieces_arrive_one_by_one(self):
        async def pieces() -> AsyncGenerator[bytes]:
            yield b"a"
            yield b"b"

        async def handler(request: Request) -> Response:
            return stream_response(pieces(), "application/x")

        async with face(row(handler)).open("GET", "/x") as exchange:
            got = [await exchange.piece(), await exchange.piece(), await exchange.piece()]

        assert got == [b"a", b"b", None]
        assert "content-length" not in exchange.headers

    async def test_an_error_inside_a_stream_cuts_it_instead_of_ending_it(self):
        async def pieces() -> AsyncGenerator[bytes]:
            yield b"a"
            raise RuntimeError("in the middle")

        async def handler(request: Request) -> Response:
            return stream_response(pieces(), "application/x")

        with capture_logs() as logs, pytest.raises(CutError):
            await face(row(handler)).request("GET", "/x")

        assert [(line["event"], line.get("status")) for line in logs] == [("request.cut", None), ("request.done", 499)]

    async def test_a_store_that_goes_away_inside_a_stream_is_the_reason_in_one_plain_line(self):
        async def pieces() -> AsyncGenerator[bytes]:
            yield b"a"
            raise errors.Unavailable("the store is away")

        async def handler(request: Request) -> Response:
            return stream_response(pieces(), "application/x")

        with capture_logs() as logs, pytest.raises(CutError):
            await face(row(handler)).request("GET", "/x")

        assert [(line["event"], line["status"], line["code"]) for line in logs] == [
            ("request.done", 499, "unavailable")
        ]
        assert "exc_info" not in logs[0]


class TestLogLine:
    async def test_one_line_tells_operation_status_duration_org_and_request_id(self):
        client = face(row(nothing, policy=Policy(Audience.KEY, "apps:read"))).as_holder_of(OWNER)

        with capture_logs() as logs:
            await client.request("GET", "/x")

        assert logs == [
            {
                "event": "request.done",
                "log_level": "info",
                "op": "/x",
                "status": 200,
                "ms": 1000,
                "org": "first",
                "request_id": "request-1",
            }
        ]

    @guarantee("G19.7", "log_injection")
    async def test_nothing_a_client_chose_is_logged(self):
        client = face(row(echo, "/x/{name}", "PUT", body_max=99, accepts=("application/json",), query=frozenset({"q"})))
        mark = "PlantedMark"

        with capture_logs() as logs:
            for target in (f"/x/{mark}?q={mark}", f"/x/{mark}%0d%0a?{mark}=1", f"/{mark}"):
                headers = {"content-type": "application/json", "x-any": mark, "authorization": f"Bearer {mark}"}
                await client.request("PUT", target, headers=headers, body=json.dumps(mark).encode())
            await client.request(mark, "/x")

        assert len(logs) == 4
        assert mark not in repr(logs)


class TestWebSockets:
    def client(self, lookups: Lookups) -> AsgiClient:
        async def link(scope, receive, send, actor) -> None:
            await receive()
            await send({"type": "websocket.accept"})

        link_row = row(None, "/link", policy=Policy(Audience.WORKER), upgrade=link)
        return face(link_row, row(nothing), lookups=lookups)

    async def test_an_authenticated_worker_reaches_the_link(self):
        sent = await self.client(Lookups()).as_holder_of(WORKER).connect("/link")

        assert sent == [{"type": "websocket.accept"}]

    @pytest.mark.parametrize(
        ("token", "target", "status"),
        [
            (None, "/link", 401),
            (OWNER, "/link", 403),
            (WORKER, "/link?a=1", 422),
            (WORKER, "/x", 404),
            (WORKER, "/", 404),
        ],
    )
    async def test_anybody_else_gets_an_error_before_the_upgrade(self, token, target, status):
        sent = await self.client(Lookups()).as_holder_of(token).connect(target)

        assert [message["type"] for message in sent] == [
            "websocket.http.response.start",
            "websocket.http.response.body",
        ]
        assert sent[0]["status"] == status
        assert json.loads(sent[1]["body"])["request_id"] == "request-1"

    async def test_the_link_without_an_upgrade_says_so(self):
        answer = await self.client(Lookups()).as_holder_of(WORKER).request("GET", "/link")

        assert (answer.status, answer.headers["upgrade"]) == (426, "websocket")
