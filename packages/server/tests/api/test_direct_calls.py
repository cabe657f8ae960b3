"""Calls that the connection answers without ASGI: what goes there, and that nobody can tell from the answer."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from apothic.wire.frames import FrameReader, encode_frame
from apothic.wire.functions import FunctionSpec
from apothic.wire.limits import HEADER_BLOCK_MAX, VALUE_MAX
from apothic.wire.values import CALL_TYPE, OUTCOME_TYPE
from apothic_server.api.shared.connection import Connection
from apothic_server.domain.access import Role
from apothic_server.listener import Listener, bind
from apothic_server.testing.asgi import Answer, AsgiClient
from apothic_server.testing.cloud import ScriptedWorker
from apothic_server.testing.wire import WireClient

pytestmark = pytest.mark.anyio

CALL = encode_frame({"encoding": "json", "python": None}, b"[[],{}]")
HEADERS = {"accept": OUTCOME_TYPE, "content-type": CALL_TYPE}
FIRST = {"idempotency-key": "k", "idempotency-try": "first"}


@dataclass
class Shop:
    """A cloud with a function that a worker serves.

    Attributes:
        path: Calls the function by its id.
        ordinary: Requests that went through ASGI.
    """

    cloud: Any
    worker: ScriptedWorker
    path: str
    ordinary: int = 0

    @property
    def direct(self) -> Any:
        return self.cloud.asgi.direct

    async def __call__(self, scope, receive, send) -> None:
        self.ordinary += 1
        await self.cloud.asgi(scope, receive, send)

    def client(self, token: str | None = None) -> WireClient:
        return WireClient(self, token or self.cloud.key)

    async def ask(self, *, token: str | None = None, path: str = "", body: bytes = CALL, **headers: str) -> Answer:
        return await self.client(token).request("POST", path or self.path, headers=HEADERS | headers, body=body)

    async def served(self, *, data: bytes = b"1", **headers: str) -> Answer:
        """Call the function, and let the worker answer `data`."""
        asking = asyncio.ensure_future(self.ask(**headers))
        self.worker.succeed(await self.worker.take(), data)
        return await asking


@pytest.fixture
async def shop(cloud) -> Shop:
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", max_pending_tasks=1))
    function = await cloud.services.apps.get_function(cloud.actor, "shop", "work")
    await cloud.services.apps.function_by_id(cloud.actor, function.id)
    return Shop(cloud, await ScriptedWorker(cloud).connect(), f"/v1/functions/functions:{function.id}/calls")


def frames(answer: Answer) -> list[dict[str, Any]]:
    return [head for head, _ in FrameReader(size_max=2 * VALUE_MAX).feed(answer.body)]


async def test_a_warm_call_is_answered_without_asgi(shop):
    answer = await shop.served(data=b"[2]")

    assert shop.ordinary == 0
    assert answer.status == 200
    assert frames(answer)[-1]["status"] == "succeeded"
    assert answer.body.endswith(b"[2]")


@pytest.mark.parametrize("is_first", [True, False], ids=["first", "again"])
async def test_a_key_that_the_store_knows_gets_the_job_that_it_made(shop, is_first):
    made = await shop.served(**FIRST)
    await shop.cloud.settle()

    answer = await shop.ask(**FIRST | ({} if is_first else {"idempotency-try": "again"}))

    assert answer.headers["idempotent-replayed"] == "true"
    assert frames(answer)[-1] == frames(made)[-1]
    assert "idempotent-replayed" not in made.headers


async def test_a_key_under_way_joins_its_call(shop):
    asking = [asyncio.ensure_future(shop.ask(**FIRST)) for _ in range(2)]
    shop.worker.succeed(await shop.worker.take(), b"3")

    made, joined = await asyncio.gather(*asking)

    assert frames(made)[-1] == frames(joined)[-1]
    assert [answer.headers.get("idempotent-replayed") for answer in (made, joined)] == [None, "true"]
    assert shop.ordinary == 1
    assert not any(name == "assign" for name, _ in shop.worker.received)


async def test_a_key_used_for_another_call_is_refused(shop):
    await shop.served(**FIRST)

    answer = await shop.ask(body=encode_frame({"encoding": "json", "python": None}, b"[[1],{}]"), **FIRST)

    assert (answer.status, answer.json["code"]) == (422, "idempotency_key_reused")


REFUSED: dict[str, dict[str, Any]] = {
    "no token": {"authorization": "Bearer"},
    "an unknown token": {"authorization": "Bearer lk_nobody"},
    "another scheme": {"authorization": "Basic lk_nobody"},
    "a body that is no frame": {"body": b"nonsense"},
    "an unknown encoding": {"body": encode_frame({"encoding": "yaml", "python": None}, b"")},
    "another Python": {"body": encode_frame({"encoding": "pickle", "python": "3.9"}, b"")},
    "a type of body": {"content-type": "text/plain"},
    "a compressed body": {"content-encoding": "gzip"},
    "a key": {"idempotency-key": "two words"},
    "a try": {"idempotency-key": "k", "idempotency-try": "third"},
    "a head": {"x-long": "a" * HEADER_BLOCK_MAX},
    "a function": {"path": "/v1/functions/functions:01jc0000000000000000000000/calls"},
    "no id": {"path": "/v1/functions/nothing/calls"},
    "a query": {"path": "/v1/functions/nothing/calls?what=1"},
}


def stripped(answer: Answer) -> tuple[int, dict[str, str], bytes]:
    """What two answers to the same request have in common."""
    headers = {name: text for name, text in answer.headers.items() if name not in ("date", "x-request-id")}
    return answer.status, headers, answer.body.replace(answer.headers["x-request-id"].encode(), b"")


async def test_what_is_wrong_is_told_in_the_same_words(shop):
    asgi = AsgiClient(shop.cloud.asgi, shop.cloud.key)
    for what, wrong in REFUSED.items():
        answer = await shop.ask(**wrong)
        headers = HEADERS | {name: text for name, text in wrong.items() if name not in ("path", "body")}
        path, body = wrong.get("path", shop.path), wrong.get("body", CALL)
        expected = await asgi.request("POST", path, headers=headers, body=body)

        assert stripped(answer) == stripped(expected), what
        assert answer.status >= 400, what
    assert shop.ordinary == len(REFUSED)
    assert not shop.cloud.inner.board.jobs


async def test_limits_rights_and_orgs_hold(shop):
    viewer = await shop.cloud.inner.keys.create(shop.cloud.inner.org, name="viewer", role=Role.VIEWER)
    await shop.cloud.inner.keys.authenticate(viewer)

    refused = [await shop.ask(token=viewer), await shop.ask(token=shop.cloud.other_key)]
    shop.cloud.inner.board.is_draining = True
    refused.append(await shop.ask())

    assert [answer.status for answer in refused] == [403, 404, 503]
    assert not any(name == "assign" for name, _ in shop.worker.received)


async def test_calls_beyond_max_pending_tasks_are_refused(shop):
    shop.worker.disconnect()
    async with shop.client().open("POST", shop.path, headers=HEADERS, body=CALL) as waiting:
        await waiting.start()

        full = await shop.ask()

    assert (full.status, full.headers["retry-after"]) == (429, "1")


async def test_a_revoked_key_is_refused_at_once(shop):
    key = await shop.cloud.inner.keys.create(shop.cloud.inner.org, name="short", role=Role.OWNER)
    await shop.cloud.inner.keys.authenticate(key)
    assert shop.cloud.inner.keys.known(key) is not None

    await shop.cloud.inner.keys.revoke(key)

    assert (await shop.ask(token=key)).status == 401


async def test_a_key_is_looked_up_again_after_a_while(shop):
    assert shop.cloud.inner.keys.known(shop.cloud.key) is not None

    shop.cloud.clock.advance(5)

    assert shop.cloud.inner.keys.known(shop.cloud.key) is None


async def test_a_client_that_leaves_does_not_end_its_job(shop):
    async with shop.client().open("POST", shop.path, headers=HEADERS, body=CALL):
        assign = await shop.worker.take()
    shop.worker.succeed(assign)
    await shop.cloud.settle()

    assert await shop.cloud.status(assign.job) == "succeeded"
    assert shop.ordinary == 0


@pytest.fixture
async def listening(shop):
    """The cloud behind its listener; gives a function that connects."""
    bound = bind("127.0.0.1", 0)
    listener = Listener(shop, bound, grace_s=0)
    listener.start()
    writers = []

    async def connect():
        reader, writer = await asyncio.open_connection(*bound.getsockname())
        writers.append(writer)
        return listener, reader, writer

    yield connect
    for writer in writers:
        writer.close()
    await listener.stop()


def request(shop: Shop, more: str = "") -> bytes:
    head = (
        f"POST {shop.path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {shop.cloud.key}\r\nAccept: {OUTCOME_TYPE}\r\n"
    )
    return f"{head}Content-Type: {CALL_TYPE}\r\nContent-Length: {len(CALL)}\r\n{more}\r\n".encode() + CALL


async def test_requests_that_are_sent_ahead_are_answered_in_their_order(shop, listening):
    _, reader, writer = await listening()
    writer.write(request(shop) * 2)
    bodies = []
    for number in (b"1", b"2"):
        shop.worker.succeed(await shop.worker.take(), number)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        bodies.append(await reader.readexactly(length))

    assert [body[-1:] for body in bodies] == [b"1", b"2"]
    assert shop.ordinary == 1


async def test_what_changes_between_two_requests_of_a_connection_counts(shop, listening):
    _, reader, writer = await listening()
    token = await shop.cloud.inner.keys.create(shop.cloud.inner.org, name="short", role=Role.OWNER)
    await shop.cloud.inner.keys.authenticate(token)

    async def ask(**headers: str) -> bytes:
        usual = {"authorization": f"Bearer {token}", "content-type": CALL_TYPE, "idempotency-try": "first"}
        lines = "".join(f"{name}: {text}\r\n" for name, text in (usual | headers).items())
        head = f"POST {shop.path} HTTP/1.1\r\nHost: x\r\nAccept: {OUTCOME_TYPE}\r\n{lines}"
        writer.write(f"{head}Content-Length: {len(CALL)}\r\n\r\n".encode() + CALL)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return answer.split()[1] + await reader.readexactly(length)

    for number in (b"1", b"2", b"3"):
        asking = asyncio.ensure_future(ask(**{"idempotency-key": f"k{number.decode()}"}))
        shop.worker.succeed(await shop.worker.take(), number)
        assert (await asking).endswith(number)
    assert shop.ordinary == 0
    wrong = [
        await ask(**{"idempotency-key": "two words"}),
        await ask(**{"content-type": "text/plain"}),
        await ask(**{"idempotency-try": "third", "idempotency-key": "k"}),
        await ask(authorization=f"Bearer {shop.cloud.other_key}"),
    ]
    await shop.cloud.inner.keys.revoke(token)
    wrong.append(await ask())

    assert [answer[:3] for answer in wrong] == [b"422", b"415", b"422", b"404", b"401"]


async def test_a_body_in_pieces_and_a_last_request_are_answered_too(shop, listening):
    _, reader, writer = await listening()
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    whole = request(shop, "Connection: close\r\n")
    writer.write(whole[:-3])
    await writer.drain()
    for _ in range(50):
        await asyncio.sleep(0)
    writer.write(whole[-3:])
    shop.worker.succeed(await shop.worker.take(), b"7")

    answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nconnection: close\r\n" in answer
    assert shop.ordinary == 1


async def test_a_server_that_stops_cuts_an_answer_that_was_begun(shop, listening):
    listener, reader, writer = await listening()
    shop.worker.disconnect()
    writer.write(request(shop))
    await reader.readuntil(b"accepted")

    await asyncio.wait_for(listener.stop(), 10)

    assert not (await reader.read()).endswith(b"0\r\n\r\n")
    assert shop.ordinary == 0


LENGTH = f"Content-Length: {len(CALL)}\r\n"


@pytest.mark.parametrize("more", ["", "X-Same: 1\r\nX-Same: 1\r\n"], ids=["direct", "ordinary"])
async def test_blanks_around_the_value_of_a_header_are_no_part_of_it(shop, listening, more):
    _, reader, writer = await listening()
    padded = f"Content-Length: \t{len(CALL)} \t\r\nIdempotency-Key: k \r\n{more}"

    writer.write(request(shop).replace(LENGTH.encode(), padded.encode()))
    shop.worker.succeed(await asyncio.wait_for(shop.worker.take(), 10))

    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_trailers_are_no_headers(shop, listening):
    _, reader, writer = await listening()
    head, _, _ = request(shop).replace(LENGTH.encode(), b"Transfer-Encoding: chunked\r\n").partition(b"\r\n\r\n")

    writer.write(head + b"\r\n\r\n%x\r\n%b\r\n0\r\nIdempotency-Key: two words\r\n\r\n" % (len(CALL), CALL))
    shop.worker.succeed(await asyncio.wait_for(shop.worker.take(), 10))

    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_client_that_leaves_as_its_job_ends_leaves_no_trace(shop):
    loop, failures = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: failures.append(context))
    ours, theirs = socket.socketpair()
    config = uvicorn.Config(shop, lifespan="off", log_config=None, proxy_headers=False)
    connection = Connection(config, ServerState(), {})
    await loop.connect_accepted_socket(lambda: connection, ours)
    with theirs:
        theirs.sendall(request(shop))
        assign = await shop.worker.take()

        outcome = shop.cloud.inner.board.jobs[assign.job].outcome
        shop.worker.succeed(assign)
        while not outcome.done():  # noqa: ASYNC110 - an event would come after those who were told
            await asyncio.sleep(0)
        connection.connection_lost(None)  # before anybody was told of the outcome
        await shop.cloud.settle()

    assert (failures, shop.ordinary) == ([], 0)
    assert await shop.cloud.status(assign.job) == "succeeded"
