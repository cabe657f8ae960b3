"""What peers send that is no request yet, over real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest
import uvicorn

from apothic.wire.limits import HEADER_BLOCK_MAX
from apothic_server.api.shared.connection import HELD_MAX, Connection

pytestmark = pytest.mark.anyio

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"
MIB = 1024 * 1024


async def echo(scope, receive, send) -> None:
    """Answer the number of bytes of the body."""
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    text = str(size).encode()
    headers = [(b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class Hasty(Connection):
    """Waits as long as a test may take."""

    head_timeout_s = 0.05


@asynccontextmanager
async def served(protocol: type[Connection] = Connection, app: Any = echo) -> AsyncGenerator[Connect]:
    """Serve `app`; gives a function that connects."""
    bound = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, http=protocol, ws="websockets-sansio", lifespan="off", log_config=None, access_log=False
    )
    config.load()
    state = uvicorn.server.ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: protocol(config, state, {}), sock=bound)
    writers: list[asyncio.StreamWriter] = []

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*bound.getsockname())
        writers.append(writer)
        return reader, writer

    try:
        yield connect
    finally:
        for writer in writers:
            writer.transport.abort()
        server.close()
        await server.wait_closed()


async def pour(writer: asyncio.StreamWriter, piece: bytes, size: int) -> int:
    """Send `piece` again and again until `size` bytes went out or the peer is gone; returns how many went out."""
    sent = 0
    try:
        while sent < size:
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
    except ConnectionError:
        pass
    return sent


ENDLESS = {
    "a header line": (HEAD + b"X: ", b"a" * 65536),
    "header lines": (HEAD, b"A: b\r\n" * 10_000),
    "an address": (b"GET /", b"a" * 65536),
    "a chunk's extension": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2;", b"a" * 65536),
    "trailers": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"A: b\r\n" * 10_000),
}


@pytest.mark.parametrize(("start", "piece"), ENDLESS.values(), ids=ENDLESS.keys())
async def test_what_never_becomes_a_request_is_cut_off(start, piece):
    async with served() as connect, asyncio.timeout(20):
        _, writer = await connect()
        writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        writer.write(start)

        assert await pour(writer, piece, 64 * MIB) < 64 * MIB


async def test_a_head_that_is_far_too_long_is_answered_431():
    async with served() as connect, asyncio.timeout(20):
        reader, writer = await connect()
        writer.write(HEAD + b"X: " + b"a" * (HELD_MAX - len(HEAD) - 2))

        assert (await reader.read()).startswith(b"HTTP/1.1 431 ")


async def test_bodies_and_many_requests_on_one_connection_are_not_counted_together():
    async with served() as connect, asyncio.timeout(20):
        reader, writer = await connect()
        long_head = HEAD + b"X: " + b"a" * (HEADER_BLOCK_MAX - 100) + b"\r\n"
        for _ in range(10):
            writer.write(long_head + b"Content-Length: 2\r\n\r\nab")
            assert (await reader.readuntil(b"\r\n\r\n2")).startswith(b"HTTP/1.1 200 ")
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(100_000):
            writer.write(b"1\r\na\r\n")
        writer.write(b"0\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n100000")


@pytest.mark.parametrize("sent", [b"", HEAD, HEAD + b"\r\n" + HEAD], ids=["nothing", "half a head", "and half another"])
async def test_a_connection_that_brings_no_head_in_time_is_closed(sent):
    async with served(Hasty) as connect, asyncio.timeout(20):
        reader, writer = await connect()
        writer.write(sent)

        answer = await reader.read()

    assert answer == b"" or answer.endswith(b"\r\n\r\n0")


class Patient(Connection):
    """Says when it waits for a head."""

    waits: ClassVar[list[bool]] = []

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.waits.append(self._timer is not None)


async def accept(scope, receive, send) -> None:
    """Accept a WebSocket and answer what comes."""
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.send", "text": "heard"})


async def test_a_connection_that_became_a_websocket_is_not_closed_for_want_of_a_head():
    head = (
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    async with served(Patient, accept) as connect:
        reader, writer = await connect()
        writer.write(head)
        answer = await reader.readuntil(b"\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 101")
    assert Patient.waits == [False]


class Noted:
    """A transport that notes what is written in one piece."""

    def __init__(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self.written: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self.written.append(data)
        self._transport.write(data)

    def writelines(self, pieces: tuple[bytes, ...]) -> None:
        self.write(b"".join(pieces))


class Watched(Connection):
    """Notes its writes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        made = Noted(transport)
        notes.append(made.written)
        super().connection_made(made)  # pyright: ignore[reportArgumentType]


notes: list[list[bytes]] = []


async def test_the_head_of_an_answer_leaves_with_its_body():
    async with served(Watched) as connect, asyncio.timeout(20):
        reader, writer = await connect()
        for _ in range(2):
            writer.write(HEAD + b"Content-Length: 2\r\n\r\nab")
            await reader.readuntil(b"\r\n\r\n2")

    assert [data[-5:] for data in notes[-1]] == [b"\r\n\r\n2"] * 2


async def test_the_head_of_a_stream_waits_for_nothing_and_the_last_piece_brings_the_end():
    go = asyncio.Event()

    async def stream(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await go.wait()
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await send({"type": "http.response.body", "body": b"two", "more_body": False})

    async with served(Watched, stream) as connect, asyncio.timeout(20):
        reader, writer = await connect()
        writer.write(HEAD + b"Content-Length: 0\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        go.set()
        await reader.readuntil(b"0\r\n\r\n")

    assert [data[-9:] for data in notes[-1][1:]] == [b"3\r\none\r\n"[-9:], b"wo\r\n0\r\n\r\n"[-9:]]


@pytest.mark.parametrize("method", [b"HEAD", b"POST"])
async def test_a_head_without_a_body_leaves_too(method):
    async def empty(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with served(Connection, empty) as connect, asyncio.timeout(20):
        reader, writer = await connect()
        writer.write(HEAD.replace(b"POST", method) + b"Connection: close\r\n\r\n")
        answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 204 ")
    assert answer.endswith(b"\r\n\r\n")


async def test_an_interim_answer_leaves_at_once():
    async with served() as connect, asyncio.timeout(20):
        reader, writer = await connect()
        writer.write(HEAD + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        interim = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"ab")
        answer = await reader.readuntil(b"\r\n\r\n2")

    assert interim.startswith(b"HTTP/1.1 100 ")
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_an_answer_with_requests_behind_it_learns_that_the_client_left():
    told: list[str] = []
    begun, over = asyncio.Event(), asyncio.Event()

    async def app(scope, receive, send) -> None:
        await receive()
        begun.set()
        told.append((await receive())["type"])
        over.set()

    async with served(app=app) as connect:
        _, writer = await connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        await begun.wait()
        writer.transport.abort()

        await asyncio.wait_for(over.wait(), 10)

    assert told == ["http.disconnect"]


UPGRADE = b"Host: x\r\nConnection: upgrade\r\nUpgrade: %b\r\n"
INNER = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("to", [b"websocket", b"h2c"])
async def test_the_body_of_a_request_with_an_upgrade_is_never_the_next_request(to):
    async with served() as connect:
        reader, writer = await connect()
        writer.write(b"POST / HTTP/1.1\r\n" + UPGRADE % to + b"Content-Length: %d\r\n\r\n" % len(INNER))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        writer.write(INNER)

        rest = await pull(reader)

    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"HTTP/1.1" not in rest


@pytest.mark.parametrize(("method", "to"), [(b"POST", b"websocket"), (b"GET", b"h2c")], ids=["POST", "h2c"])
async def test_an_upgrade_that_we_ignore_is_the_last_request_of_its_connection(method, to):
    async with served() as connect:
        reader, writer = await connect()
        writer.write(method + b" / HTTP/1.1\r\n" + UPGRADE % to + b"\r\n" + INNER)

        answer = await asyncio.wait_for(reader.read(), 10)

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nconnection: close\r\n" in answer
    assert answer.count(b"HTTP/1.1") == 1


async def test_nothing_becomes_a_websocket_before_an_earlier_answer():
    async with served() as connect:
        reader, writer = await connect()
        writer.write(INNER + b"GET / HTTP/1.1\r\n" + UPGRADE % b"websocket" + b"\r\n")

        answer = await asyncio.wait_for(reader.read(), 10)

    assert answer.count(b"HTTP/1.1 200 ") == 2


async def pull(reader: asyncio.StreamReader) -> bytes:
    """Return what comes until the peer is gone, one way or another."""
    try:
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b""
