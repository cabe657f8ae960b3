"""The operation table and its router."""

from __future__ import annotations

import pytest

from apothic_server.api.shared.errors import MethodNotAllowed
from apothic_server.api.shared.operations import Operation, StartRefusedError, operation_table
from apothic_server.api.shared.request import Request
from apothic_server.api.shared.response import Response, empty_response
from apothic_server.api.shared.router import Router
from apothic_server.domain.access import Audience, Policy
from apothic_server.domain.errors import NotFound
from apothic_server.testing.guarantees import guarantee


async def answer_nothing(request: Request) -> Response:
    return empty_response()


def row(name: str, path: str = "/things", method: str = "GET", **more) -> Operation:
    fields = {"policy": Policy(Audience.PUBLIC), "statuses": frozenset({200}), "handler": answer_nothing, **more}
    return Operation(id=name, method=method, path=path, **fields)


@guarantee("G16.4", "every_route_has_policy")
def test_an_operation_without_a_policy_cannot_be_made():
    with pytest.raises(TypeError):
        Operation(id="bare", method="GET", path="/bare", statuses=frozenset({200}), handler=answer_nothing)
    with pytest.raises(StartRefusedError):
        row("none", policy=None)


@guarantee("G16.4", "every_route_has_policy")
@pytest.mark.parametrize("audience", [Audience.KEY, Audience.OPERATOR])
@pytest.mark.parametrize("scope", [None, "jobs:execute", "everything"])
def test_a_policy_for_keys_needs_a_scope_that_exists(audience, scope):
    with pytest.raises(ValueError, match="no valid scope"):
        Policy(audience, scope)


def test_two_operations_with_one_id_are_refused():
    with pytest.raises(StartRefusedError):
        operation_table([row("one", "/a"), row("one", "/b")])


@pytest.mark.parametrize(
    ("first", "second"),
    [("/a", "/a"), ("/a/{x}", "/a/{x}"), ("/a/{x}", "/a/{y}"), ("/a/{x}", "/a/b"), ("/a/b", "/a/{x}")],
)
def test_two_operations_that_match_one_request_are_refused(first, second):
    with pytest.raises(StartRefusedError):
        Router([row("one", first), row("two", second)])


@pytest.mark.parametrize(
    "fields",
    [
        {"method": "FETCH"},
        {"path": "things"},
        {"handler": None},
        {"upgrade": answer_nothing},
        {"body_max": 10},
        {"accepts": ("application/json",)},
    ],
)
def test_a_row_that_contradicts_itself_is_refused(fields):
    with pytest.raises(StartRefusedError):
        row("odd", **fields)


@pytest.fixture
def router() -> Router:
    paths = ["/healthz", "/v1/things", "/v1/things/{thing}", "/v1/things/{thing}/parts/{part}"]
    return Router([*(row(path, path) for path in paths), row("make", "/v1/things", "POST")])


@pytest.mark.parametrize(
    ("path", "operation", "params"),
    [
        (b"/healthz", "/healthz", {}),
        (b"/v1/things/things:1", "/v1/things/{thing}", {"thing": "things:1"}),
        (b"/v1/things/a%2Fb%3Ac", "/v1/things/{thing}", {"thing": "a/b:c"}),
        (b"/v1/things/%C3%A4/parts/2", "/v1/things/{thing}/parts/{part}", {"thing": "ä", "part": "2"}),
        (b"/v1/things/..", "/v1/things/{thing}", {"thing": ".."}),
    ],
)
def test_a_path_is_matched_by_segments_and_decoded_after(router, path, operation, params):
    found, given = router.find("GET", path)

    assert found.id == operation
    assert given == params


@pytest.mark.parametrize(
    "path",
    [
        b"",
        b"/",
        b"*",
        b"healthz",
        b"/healthz/",
        b"//healthz",
        b"/v1",
        b"/v1/things/",
        b"/v1/things//parts/1",
        b"/v1/things/%ff",
        b"/v1/things/\xff",
        b"/v1/th%69ngs",
        b"/v1/things/a/b/c",
    ],
)
def test_any_other_path_is_not_found(router, path):
    with pytest.raises(NotFound):
        router.find("GET", path)


def test_a_known_path_with_another_method_names_the_methods(router):
    with pytest.raises(MethodNotAllowed) as caught:
        router.find("DELETE", b"/v1/things")

    assert caught.value.allowed == ("GET", "POST")
