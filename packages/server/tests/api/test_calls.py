"""How a call is answered over time. The test plays the dispatcher (it completes the futures) and the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from apothic.wire.frames import FrameReader, encode_frame
from apothic.wire.ids import JobId, KeyId, OrgId, make_key
from apothic.wire.limits import KEEP_ALIVE_S, VALUE_MAX
from apothic.wire.tokens import new_token
from apothic.wire.values import CALL_TYPE, OUTCOME_TYPE, RemoteError, Value
from apothic_server.api.runtime.calls import AT_ONCE_S, CallHandlers
from apothic_server.api.runtime.direct_calls import DirectCalls
from apothic_server.api.runtime.document import read_document
from apothic_server.api.runtime.table import runtime_operations
from apothic_server.api.runtime.waiting import first_done
from apothic_server.api.shared.asgi import Face
from apothic_server.domain.access import SCOPES, Actor, Role
from apothic_server.domain.errors import Unavailable
from apothic_server.domain.jobs import JobStatus
from apothic_server.domain.views import Outcome, Submitted
from apothic_server.testing.asgi import AsgiClient, CutError, Exchange
from apothic_server.testing.wire import WireClient

pytestmark = pytest.mark.anyio

TOKEN = new_token("lk")
JOB = JobId(make_key(1, 1))
FUNCTION = make_key(2, 2)
CALLS = f"/v1/functions/functions:{FUNCTION}/calls"
STREAM = {"accept": OUTCOME_TYPE}
FRAME = {**STREAM, "content-type": CALL_TYPE}
CALL = encode_frame({"encoding": "pickle", "python": "3.11"}, b"arguments")
ACCEPTED = ({"kind": "accepted", "job_id": f"jobs:{JOB}"}, b"")
ALIVE = ({"kind": "alive"}, b"")


class Stage:
    """A jobs service whose futures the test completes, and a clock that moves when the test says so."""

    def __init__(self, *, is_direct: bool = False) -> None:
        self.is_direct = is_direct
        loop = asyncio.get_running_loop()
        self.accepted: asyncio.Future[None] = loop.create_future()
        self.outcome_future: asyncio.Future[Outcome] = loop.create_future()
        self.submitted: list[tuple[Any, Value, bool]] = []
        self.submitted_now = 0
        self.waits: asyncio.Queue[tuple[float | None, asyncio.Future[None]]] = asyncio.Queue()
        self.status = JobStatus.QUEUED
        self.in_the_way: str | None = None

    async def authenticate(self, token: str, attempt: str) -> Actor:
        return Actor(OrgId("org"), KeyId("key"), Role.OWNER, SCOPES)

    def recognise(self, authorization: bytes) -> Actor | None:
        return Actor(OrgId("org"), KeyId("key"), Role.OWNER, SCOPES) if self.is_direct else None

    async def submit(self, actor, function, value, *, blocking, key=None) -> Submitted:
        self.submitted.append((function, value, blocking))
        return Submitted(JOB, self.accepted, self.outcome_future)

    def submit_now(self, actor, function, value, *, key=None) -> Submitted:
        self.submitted_now += 1
        self.submitted.append((function, value, True))
        return Submitted(JOB, self.accepted, self.outcome_future)

    async def get(self, actor, key) -> SimpleNamespace:
        return SimpleNamespace(job=SimpleNamespace(status=self.status))

    def attend(self, actor, key):
        return lambda: None

    def obstacle(self, actor, key) -> str | None:
        return self.in_the_way

    async def outcome(self, actor, key):
        return self.outcome_future.result() if self.outcome_future.done() else self.outcome_future

    async def wait(self, futures, timeout_s) -> None:
        """Real waiting, with the passing of time in the test's hands."""
        passed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waits.put_nowait((timeout_s, passed))
        await first_done((*futures, passed), None)

    def later(self, seconds: float, act: Callable[[], object]) -> Any:
        """As `loop.call_later`, with the passing of time in the test's hands."""
        passed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        passed.add_done_callback(lambda passed: None if passed.cancelled() else act())
        self.waits.put_nowait((seconds, passed))
        return passed

    async def let_pass(self, timeout_s: float) -> None:
        """Wait until somebody waits with this bound, then let it pass."""
        bound = None
        while bound is None:
            bound, passed = await self.waits.get()
        assert bound == timeout_s
        passed.set_result(None)

    def accept(self) -> None:
        self.accepted.set_result(None)

    def end(self, value: Value | None = None, error: RemoteError | None = None) -> Outcome:
        status = JobStatus.FAILED if error else JobStatus.SUCCEEDED
        outcome = Outcome(JOB, status, value, error, 1)
        self.outcome_future.set_result(outcome)
        return outcome

    def client(self) -> AsgiClient:
        unused = dict.fromkeys(
            (
                "apps",
                "deployments",
                "archives",
                "values",
                "streams",
                "workers",
                "health",
                "metrics",
                "schedules",
                "stats",
                "preparing",
                "environments",
                "groups",
            )
        )
        services: Any = SimpleNamespace(keys=self, recognise=self.recognise, jobs=self, enrolment=None, **unused)
        table = runtime_operations(services, self.no_link, read_document(), wait=self.wait)
        face = Face(
            table, authenticate=self.authenticate, make_request_id=lambda: "request", log=structlog.get_logger()
        )
        if not self.is_direct:
            return AsgiClient(face, TOKEN)
        face.direct = DirectCalls(face, services, CallHandlers(services, self.wait), later=self.later)
        return WireClient(face, TOKEN)

    async def no_link(self, scope, receive, send, actor) -> None:
        raise AssertionError("no link here")


@pytest.fixture(params=["over ASGI", "directly"])
async def stage(request) -> Stage:
    return Stage(is_direct=request.param == "directly")


async def frame(exchange: Exchange) -> tuple[dict[str, Any], bytes]:
    piece = await exchange.piece()
    assert piece is not None
    (only,) = FrameReader(size_max=2 * VALUE_MAX).feed(piece)
    return only


def outcome_head(**more) -> dict[str, Any]:
    empty = {"kind": "outcome", "job_id": f"jobs:{JOB}", "status": "succeeded", "attempt": 1}
    return {**empty, "encoding": None, "python": None, "error": None, **more}


async def test_an_outcome_known_at_once_is_the_whole_answer(stage):
    async with stage.client().open("POST", CALLS, headers=FRAME, body=CALL) as exchange:
        bound, _ = await stage.waits.get()
        stage.end(Value("pickle", b"result", "3.11"))

        got = [await frame(exchange), await exchange.piece()]

    assert bound == AT_ONCE_S
    assert stage.submitted_now == stage.is_direct
    assert got == [(outcome_head(encoding="pickle", python="3.11"), b"result"), None]
    assert exchange.headers["content-type"] == OUTCOME_TYPE
    assert "content-length" in exchange.headers
    assert stage.submitted == [(FUNCTION, Value("pickle", b"arguments", "3.11"), True)]


async def test_the_job_id_is_sent_when_the_job_is_durable_then_signs_of_life_then_the_outcome(stage):
    async with stage.client().open("POST", CALLS, headers=FRAME, body=CALL) as exchange:
        await stage.let_pass(AT_ONCE_S)
        stage.accept()
        got = [await frame(exchange)]
        for _ in range(2):
            await stage.let_pass(KEEP_ALIVE_S)
            got.append(await frame(exchange))
        stage.end(Value("json", b"1"))
        got.append(await frame(exchange))
        end = await exchange.piece()

    assert got == [ACCEPTED, ALIVE, ALIVE, (outcome_head(encoding="json"), b"1")]
    assert end is None


async def test_the_first_frame_says_what_keeps_every_machine_from_running_the_job(stage):
    stage.in_the_way = "no machine has Python 3.9; present: 3.11"
    async with stage.client().open("POST", CALLS, headers=FRAME, body=CALL) as exchange:
        await stage.let_pass(AT_ONCE_S)
        stage.accept()
        got = await frame(exchange)
        stage.end()

    assert got == ({**ACCEPTED[0], "obstacle": stage.in_the_way}, b"")


async def test_nothing_leaves_before_the_job_is_durable_or_has_ended(stage):
    async with stage.client().open("POST", CALLS, headers=FRAME, body=CALL) as exchange:
        await stage.let_pass(AT_ONCE_S)
        for _ in range(20):
            await asyncio.sleep(0)
        assert exchange.sent.empty()
        stage.end()

        assert await frame(exchange) == (outcome_head(), b"")


async def test_a_failure_of_user_code_is_data(stage):
    error = RemoteError("builtins.ValueError", "no", causes=(RemoteError("builtins.KeyError", "'k'"),))
    async with stage.client().open("POST", CALLS, headers=FRAME, body=CALL) as exchange:
        stage.end(error=error)
        head, _ = await frame(exchange)

    assert exchange.status == 200
    assert head["status"] == "failed"
    assert head["error"]["causes"][0]["type"] == "builtins.KeyError"


async def test_a_job_that_cannot_be_stored_answers_an_error(stage):
    async with stage.client().open("POST", CALLS, headers=FRAME, body=CALL) as exchange:
        await stage.let_pass(AT_ONCE_S)
        stage.accepted.set_exception(Unavailable("The database does not answer.", retry_after_s=2))
        answer = await exchange.answer()

    assert (answer.status, answer.headers["retry-after"]) == (503, "2")


async def test_a_stream_that_cannot_give_the_outcome_is_cut(stage):
    with pytest.raises(CutError):
        async with stage.client().open("POST", CALLS, headers=FRAME, body=CALL) as exchange:
            await stage.let_pass(AT_ONCE_S)
            stage.accept()
            await frame(exchange)
            stage.outcome_future.set_exception(Unavailable("The server is stopping."))
            await exchange.piece()


@pytest.mark.parametrize("accept", [OUTCOME_TYPE, "application/json"])
async def test_a_client_that_leaves_never_touches_the_job(stage, accept):
    async with stage.client().open("POST", CALLS, headers={**FRAME, "accept": accept}, body=CALL) as exchange:
        await stage.let_pass(AT_ONCE_S if accept == OUTCOME_TYPE else 60)
        stage.accept()
        await exchange.start()

    assert not stage.outcome_future.done()


async def test_json_waits_for_the_outcome(stage):
    async with stage.client().open("POST", CALLS, json={"args": ["world"]}) as exchange:
        bound, _ = await stage.waits.get()
        stage.end(Value("json", b'"hello, world"'))
        answer = await exchange.answer()

    assert bound == 60
    assert answer.status == 200
    assert answer.json == {
        "job_id": f"jobs:{JOB}",
        "status": "succeeded",
        "encoding": "json",
        "result": "hello, world",
        "error": None,
        "attempt": 1,
    }
    assert stage.submitted == [(FUNCTION, Value("json", b'[["world"],{}]'), True)]


async def test_json_answers_202_when_the_wait_is_over(stage):
    async with stage.client().open("POST", f"{CALLS}?wait_s=0.5", json={}) as exchange:
        stage.status = JobStatus.RUNNING
        await stage.let_pass(0.5)
        stage.accept()
        answer = await exchange.answer()

    assert (answer.status, answer.json) == (202, {"job_id": f"jobs:{JOB}", "status": "running"})


async def test_a_spawn_answers_as_soon_as_the_job_is_durable(stage):
    async with stage.client().open("POST", f"{CALLS}?wait_s=0", json={}) as exchange:
        stage.accept()
        answer = await exchange.answer()

    assert (answer.status, answer.json) == (202, {"job_id": f"jobs:{JOB}", "status": "queued"})
    assert stage.submitted[0][2] is False
    assert stage.waits.empty()


async def test_a_function_is_called_by_name_too(stage):
    async with stage.client().open("POST", "/v1/apps/hello/functions/greet/calls", json={}) as exchange:
        stage.end()
        await exchange.answer()

    assert stage.submitted[0][0] == ("hello", "greet")


@pytest.mark.parametrize(
    ("value", "encoding", "result"),
    [
        (Value("pickle", b"\x80\x05"), "pickle", "gAU="),
        (Value("json", b'{"a":[1e400]}'), "json", {"a": [float("inf")]}),
        (Value("json", b'1,"status":"x"'), "opaque", "MSwic3RhdHVzIjoieCI="),
        (Value("json", b'"\xff"'), "opaque", "Iv8i"),
        (Value("json", b"[" * 100_000), "opaque", None),
        (None, None, None),
    ],
)
async def test_bytes_of_user_code_cannot_change_the_answer_around_them(stage, value, encoding, result):
    stage.end(value)

    answer = (await stage.client().request("GET", f"/v1/jobs/jobs:{JOB}/outcome")).json

    assert (answer["status"], answer["encoding"]) == ("succeeded", encoding)
    assert result is None or answer["result"] == result


async def test_the_outcome_of_an_earlier_job_is_streamed_the_same_way(stage):
    async with stage.client().open("GET", f"/v1/jobs/jobs:{JOB}/outcome", headers=STREAM) as exchange:
        await stage.let_pass(AT_ONCE_S)
        got = [await frame(exchange)]
        await stage.let_pass(KEEP_ALIVE_S)
        got.append(await frame(exchange))
        stage.end()
        got.append(await frame(exchange))

    assert got == [ACCEPTED, ALIVE, (outcome_head(), b"")]


async def test_the_outcome_of_a_running_job_is_not_waited_for_with_wait_s_0(stage):
    answer = await stage.client().request("GET", f"/v1/jobs/jobs:{JOB}/outcome?wait_s=0")

    assert (answer.status, answer.json["status"]) == (202, "queued")
    assert stage.waits.empty()


async def test_a_real_wait_ends_with_the_first_future_or_the_time():
    loop = asyncio.get_running_loop()
    first, second = loop.create_future(), loop.create_future()
    loop.call_soon(second.set_result, None)

    await first_done((first, second), 60)
    await first_done((first,), 0.001)

    assert second.done()
    assert not first.done()
    assert not first.cancelled()


async def test_a_wait_that_is_cancelled_leaves_its_futures_alone():
    future = asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(first_done((future,), None))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert not future.cancelled()
