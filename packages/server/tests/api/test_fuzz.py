"""Anything a client may send gets a documented answer in the one error shape, and never a failure of ours (G20.6)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apothic.wire.frames import encode_frame
from apothic.wire.ids import make_key
from apothic.wire.tokens import new_token
from apothic.wire.values import CALL_TYPE, OUTCOME_TYPE
from apothic_server.api.runtime.document import read_document
from apothic_server.testing.asgi import Answer, AsgiClient, CutError
from apothic_server.testing.contract import Contract
from apothic_server.testing.groups import packed
from apothic_server.testing.guarantees import guarantee
from apothic_server.testing.scenario import ARCHIVE, ARCHIVE_SHA256, World, make_world, manifest

pytestmark = pytest.mark.anyio

CONTRACT = Contract(json.loads(read_document()))
EXAMPLES = 800
GOOD_CALL = {"args": [1], "kwargs": {"a": None}}
GOOD_DEPLOY = {"manifest": manifest("greet"), "archive_sha256": ARCHIVE_SHA256}
GOOD_GROUP = {"spread": False, "key": "mine", "stop_after": 1}
GOOD_JSON: dict[str, dict[str, Any]] = {
    "create_deployment": GOOD_DEPLOY,
    "call_function": GOOD_CALL,
    "call_app_function": GOOD_CALL,
    "create_group": GOOD_GROUP,
    "create_app_group": GOOD_GROUP,
    "close_group": {"total": 0},
    "cancel_group": {"items": [0]},
}

odd_bytes = st.sampled_from(
    [b"%", b"%0", b"%00", b"%FF", b"%ff%fe", b"\xff", b"..", b"%2e%2e%2f", b"%ED%A0%80", b"a" * 300]
)
segments = odd_bytes | st.binary(min_size=1, max_size=12).filter(lambda raw: not set(raw) & set(b"/?#"))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, -(2**63) - 1, 10**400, 1e308, 0.5])
    | st.text(max_size=8)
    | st.sampled_from(["\0", "\ud800", "\u202e", "a" * 70_000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
odd_json = st.sampled_from(
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"NaN",
        b"1e999",
        b'{"args":[1e999]}',
        b'{"a":1,"a":1}',
        b'"\xff"',
        b"\xef\xbb\xbf{}",
        b"[" * 70 + b"]" * 70,
        b'{"args":' * 5000,
        b"[" * 400000,
        b'{"args":["\\ud800"]}',
        b'{"args":["\\u0000"]}',
    ]
)
odd_frames = st.sampled_from(
    [
        b"\x00\x00\x00\x00\x00\x00\x00\x00",
        b"\xff" * 8,
        b"\x00\x00\x00\x06\x00\x00\x00\x02[]",
        encode_frame({}),
        encode_frame({"encoding": "json"}) * 2,
        encode_frame({"encoding": "json", "python": None}, b"[[],{}]"),
    ]
)
content_types = st.sampled_from(
    ["application/json", CALL_TYPE, "application/octet-stream", "text/plain", "", "application/json;charset=x", "\xff"]
)
numbers = st.sampled_from(["0", "-1", "1", "2.5", "1e3", "nan", "", "9" * 30, "%D9%A1", "0x1", "9223372036854775807"])


@st.composite
def mutated(draw: st.DrawFn, good: dict[str, Any]) -> bytes:
    """A good body in which one value, somewhere, is another one, or one field is new."""
    body = json.loads(json.dumps(good))
    place = body
    while isinstance(place, (dict, list)) and place:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = draw(st.sampled_from(keys))
        if not isinstance(place[key], (dict, list)) or not place[key] or draw(st.booleans()):
            place[key] = draw(json_values)
            break
        place = place[key]
    if draw(st.booleans()):
        body[draw(st.text(max_size=5))] = draw(json_values)
    return json.dumps(body).encode()


bodies = st.one_of(
    st.just(b""),
    odd_json,
    odd_frames,
    st.binary(max_size=40),
    json_values.map(lambda value: json.dumps(value).encode()),
    mutated(GOOD_CALL),
    mutated(GOOD_DEPLOY),
    mutated(GOOD_GROUP),
    mutated({"items": [0, 1]}),
    mutated({"total": 0}),
    st.just(json.dumps(GOOD_CALL).encode()),
    st.just(json.dumps(GOOD_DEPLOY).encode()),
)
headers = st.dictionaries(
    st.sampled_from(
        [
            *("accept", "content-encoding", "content-length", "x-request-id", "x-org-slug", "transfer-encoding"),
            *("idempotency-key", "idempotency-try"),
        ]
    ),
    st.sampled_from(["", "0", "1", "-1", "gzip", OUTCOME_TYPE, "chunked", "\xff", "*/*", "a" * 20_000]),
    max_size=2,
)


@st.composite
def requests(draw: st.DrawFn, world: World) -> tuple[str, str, bytes, list[tuple[str, str]], bytes]:
    """A request to some operation in which up to two things are wrong and all others right."""
    name = draw(st.sampled_from(sorted(CONTRACT.operations)))
    described = CONTRACT.operations[name]
    accepted = sorted(CONTRACT.follow(described.content.get("requestBody", {})).get("content", {}))
    aspects = [*["body", "type"] * bool(accepted), "path", "query", "headers", *["body"] * (3 * bool(accepted))]
    wrong = {draw(st.sampled_from(aspects)), draw(st.sampled_from(["none", "none", *aspects]))}
    target = draw(paths(name, world, is_odd="path" in wrong)) + draw(queries(name, is_odd="query" in wrong))
    given_headers = list(draw(headers).items()) if "headers" in wrong else []
    media_type = draw(st.sampled_from(accepted)) if accepted else ""
    body = draw(bodies) if "body" in wrong else good_body(name, media_type)
    if "type" in wrong:
        media_type = draw(content_types)
    return name, described.method, target, [*given_headers, ("content-type", media_type)], body


@st.composite
def paths(draw: st.DrawFn, name: str, world: World, *, is_odd: bool) -> bytes:
    path = CONTRACT.operations[name].path.encode()
    for parameter in CONTRACT.parameters(name, "path"):
        value = str(getattr(world, parameter)).encode()
        if is_odd:
            other = str(
                getattr(world, draw(st.sampled_from(["app", "function_id", "deployment_id", "job_id", "group_id"])))
            ).encode()
            unknown = value.partition(b":")[0] + b":" + make_key(1, 1).encode()
            value = draw(st.sampled_from([value, other, unknown]) | segments)
        path = path.replace(b"{" + parameter.encode() + b"}", value)
    return path


@st.composite
def queries(draw: st.DrawFn, name: str, *, is_odd: bool) -> bytes:
    known = sorted(CONTRACT.parameters(name, "query"))
    if not is_odd:
        return b""
    names = st.sampled_from([*known * 4, "x", "%00", "%FF", "wait_s"])
    return b"?" + "&".join(f"{draw(names)}={draw(numbers)}" for _ in range(draw(st.integers(1, 2)))).encode()


def good_body(name: str, media_type: str) -> bytes:
    if media_type == "application/octet-stream":
        return packed(1) if name == "add_inputs" else ARCHIVE
    if media_type == CALL_TYPE:
        return encode_frame({"encoding": "json", "python": None}, b"[[1],{}]")
    good = GOOD_JSON.get(name)
    return b"" if good is None else json.dumps(good).encode()


async def send_and_leave(client: AsgiClient, method: str, target: bytes, given_headers, body: bytes) -> Answer | None:
    """Send a request and close the connection at once: waiting answers end, all others are given."""
    async with client.open(method, target, headers=given_headers, body=body) as exchange:
        exchange.disconnect()
        try:
            return await exchange.answer()
        except CutError:
            return None


def check(name: str, answer: Answer) -> None:
    if answer.headers.get("content-type") == OUTCOME_TYPE:
        assert answer.status == 200
        return
    CONTRACT.check(name, answer)
    tells_checks = name == "get_readiness" and answer.status == 503 and "checks" in answer.json
    if tells_checks:  # a true answer about a cloud without a worker, not a failure
        return
    assert answer.status < 500, answer.body
    if answer.status >= 400 and answer.body:
        assert set(answer.json) == {"detail", "code", "request_id", "retryable"}
        assert answer.json["request_id"] == answer.headers["x-request-id"]


@guarantee("G20.6", "error_shape_fuzz")
@guarantee("G20.6", "no_5xx_under_fuzz", count=EXAMPLES)
async def test_whatever_is_sent_gets_a_documented_answer(cloud):
    client = AsgiClient(cloud.asgi, cloud.key)
    world = await make_world(client)
    for name, method, target, given_headers, body in drawn(world):
        answer = await send_and_leave(client, method, target, given_headers, body)
        # A mangled path may be the address of another operation or of none; a 404 is then the router's.
        if answer is not None and answer.status not in (404, 405):
            check(name, answer)
        elif answer is not None and answer.body:
            assert answer.json["code"] in ("not_found", "method_not_allowed")
    assert (await client.request("GET", f"/v1/jobs/{world.job_id}")).status == 200


@guarantee("G20.6", "no_5xx_under_fuzz")
@pytest.mark.parametrize("name", sorted(CONTRACT.operations))
async def test_every_operation_withstands_the_known_tricks(cloud, name):
    client = AsgiClient(cloud.asgi, cloud.key)
    world = await make_world(client)
    described = CONTRACT.operations[name]
    params = {parameter: str(getattr(world, parameter)) for parameter in CONTRACT.parameters(name, "path")}
    target = described.path.format(**params).encode()
    accepted = sorted(CONTRACT.follow(described.content.get("requestBody", {})).get("content", {})) or ["text/plain"]

    for content_type in accepted:
        for body in tricks():
            answer = await send_and_leave(client, described.method, target, [("content-type", content_type)], body)
            if answer is not None:
                check(name, answer)
    for query in (
        b"a=1",
        b"wait_s=nan",
        b"limit=0",
        b"after=-2",
        b"cursor=apps:x",
        b"%FF=1",
        b"limit=1&limit=1",
        b"&&",
    ):
        answer = await send_and_leave(client, described.method, target + b"?" + query, [], b"")
        assert answer is not None
        check(name, answer)
    for token in ("", "x", new_token("lk"), new_token("lw"), new_token("lj"), cloud.key[:-1], cloud.key + "\0"):
        answer = await send_and_leave(client.as_holder_of(token), described.method, target, [], b"")
        assert answer is not None
        check(name, answer)


def tricks() -> list[bytes]:
    found: list[bytes] = []

    @settings(derandomize=True, database=None, max_examples=60)
    @given(odd_json | odd_frames | mutated(GOOD_CALL) | mutated(GOOD_DEPLOY))
    def collect(body: bytes) -> None:
        found.append(body)

    collect()
    return [*found, ARCHIVE]


def drawn(world: World) -> list[tuple[str, str, bytes, list[tuple[str, str]], bytes]]:
    """Draw all requests first: what Hypothesis chooses then never depends on what the server answers."""
    found: list[tuple[str, str, bytes, list[tuple[str, str]], bytes]] = []

    @settings(
        derandomize=True,
        database=None,
        max_examples=EXAMPLES,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(requests(world))
    def collect(request) -> None:
        found.append(request)

    collect()
    return found
