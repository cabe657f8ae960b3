"""Requests of user code on their way to the control plane, well-behaved and hostile (G19.6)."""

import asyncio
import json
import socket
from contextlib import asynccontextmanager

import pytest

from apothic.wire.ids import make_key
from apothic.wire.limits import HEADER_BLOCK_MAX
from apothic.wire.tokens import attempt_token
from apothic_worker.relay import PIECE, Connection, ControlPlane, Relay

pytestmark = pytest.mark.anyio

INCARNATION, JOB = make_key(1, 1), make_key(2, 2)
KEY = "k" * 64
TOKEN = attempt_token(KEY, JOB, 3)
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"


class Calls:
    """A runner with the calls that a test says."""

    connections_max = 2

    def __init__(self, *calls):
        self.calls = calls

    def attempt_of(self, call):
        live = [name for name in self.calls if call in ("", name)]
        return (JOB, 3) if len(live) == 1 else None

    def item_of(self, call):
        return 17 if call == "5.7" else None


class Upstream:
    """A control plane of one test: answers each request with what the test gives, and keeps what it read."""

    def __init__(self):
        self.answers = asyncio.Queue()
        self.heads = asyncio.Queue()
        self.bodies = []
        self.connections = 0
        self.reads_bodies = True
        self.left = asyncio.Event()
        self.url = ""

    async def serve(self, reader, writer):
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.put_nowait(head.decode("latin-1"))
                lengths = [line[15:] for line in head.split(b"\r\n") if line.startswith(b"content-length:")]
                if self.reads_bodies:
                    self.bodies.append(await reader.readexactly(int(lengths[0]) if lengths else 0))
                answer = await self.answers.get()
                writer.write(answer[0] if isinstance(answer, tuple) else answer)
                await writer.drain()
                if isinstance(answer, tuple):  # the last one
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left.set()
        finally:
            writer.close()


@pytest.fixture
async def upstream():
    found = Upstream()
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/base"
    yield found
    server.close()


@asynccontextmanager
async def connected(url, calls=("1",)):
    """User code's end of one connection that is relayed to `url`."""
    relay = Relay(lambda: ControlPlane(url, INCARNATION, KEY))
    mine, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=theirs, limit=HEADER_BLOCK_MAX)
    serving = asyncio.ensure_future(Connection(relay, Calls(*calls), reader, writer).serve())
    serving.add_done_callback(lambda _: writer.close())
    client_reader, client = await asyncio.open_unix_connection(sock=mine)
    try:
        yield client_reader, client
    finally:
        client.close()
        async with asyncio.timeout(10):
            await asyncio.gather(serving, return_exceptions=True)


async def answer_of(reader):
    """Return status, headers and body of an answer."""
    async with asyncio.timeout(10):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")[:-2]
        headers = dict(line.split(": ", 1) for line in lines)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return int(first.split(" ")[1]), headers, body


async def refusal_of(reader):
    status, headers, body = await answer_of(reader)
    error = json.loads(body)
    assert error.keys() == {"detail", "code", "request_id", "retryable"}
    assert headers["connection"] == "close"
    return status, error["code"], error["retryable"]


async def test_a_request_goes_on_with_the_attempts_token_and_without_what_the_user_sent_as_one(upstream):
    upstream.answers.put_nowait(OK)
    async with connected(upstream.url) as (reader, writer):
        writer.write(
            b"POST /v1/functions/f/calls?wait_s=0 HTTP/1.1\r\nHost: elsewhere\r\nAuthorization: Bearer lk_mine\r\n"
            b"X-Apothic-Attempt: a.b.1\r\nX-Org-Slug: other\r\nX-Forwarded-For: 1.2.3.4\r\nCookie: a=b\r\n"
            b"Accept: application/json\r\nIdempotency-Key: k\r\nContent-Length: 4\r\n\r\nbody"
        )
        answered = await answer_of(reader)
        head = await upstream.heads.get()

    lines = head.split("\r\n")
    assert answered[0] == 200
    assert answered[2] == b"hi"
    assert upstream.bodies == [b"body"]
    assert lines[0] == "POST /base/v1/functions/f/calls?wait_s=0 HTTP/1.1"
    assert sorted(lines[1:-2]) == sorted(
        [
            f"host: {upstream.url[7:-5]}",
            "accept: application/json",
            "idempotency-key: k",
            f"authorization: Bearer {TOKEN}",
            f"X-Apothic-Attempt: {INCARNATION}.{JOB}.3".lower(),
            "content-length: 4",
        ]
    )


async def test_requests_follow_each_other_on_one_connection(upstream):
    async with connected(upstream.url) as (reader, writer):
        for _ in range(3):
            upstream.answers.put_nowait(OK)
            writer.write(b"GET /v1/jobs/j HTTP/1.1\r\n\r\n")
            status, headers, _ = await answer_of(reader)
            assert (status, headers["connection"]) == (200, "keep-alive")

    assert upstream.connections == 1


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"GET /v1/jobs HTTP/1.0\r\n\r\n", 400, "bad_request"),
        (b"GET  /v1/jobs HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (b"GET http://elsewhere/v1/jobs HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (b"CONNECT elsewhere:443 HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (b"GET /v1/a\x00b HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (b"GET /v1/jobs HTTP/1.1\r\nA: b\nAuthorization: x\r\n\r\n", 400, "bad_request"),
        (b"GET /v1/jobs HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400, "bad_request"),
        (b"GET /v1/jobs HTTP/1.1\r\nA : b\r\n\r\n", 400, "bad_request"),
        (b"GET /v1/jobs HTTP/1.1\r\n: b\r\n\r\n", 400, "bad_request"),
        (b"POST /v1/jobs HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "bad_request"),
        (b"POST /v1/jobs HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", 400, "bad_request"),
        (b"POST /v1/jobs HTTP/1.1\r\nContent-Length: +1\r\n\r\n", 400, "bad_request"),
        (b"POST /v1/jobs HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400, "bad_request"),
        (b"POST /v1/j HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 411, "length_required"),
        (b"POST /v1/jobs HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n", 411, "length_required"),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 404, "not_found"),
        (b"GET /metrics HTTP/1.1\r\n\r\n", 404, "not_found"),
        (b"GET /v1/link HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 404, "not_found"),
        (b"GET /v1/link/archives/d HTTP/1.1\r\n\r\n", 404, "not_found"),
        (b"GET /v1/link?x HTTP/1.1\r\n\r\n", 404, "not_found"),
        (b"GET /v1/../metrics HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (b"GET /v1/jobs/.. HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (b"GET /v1/./link HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (b"GET /v1//link HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (b"GET /v1/jobs/%2e%2E/link HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (b"GET /v1/jobs%2flink HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (b"GET /v1/jobs%5Clink HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (b"GET /v1/jobs\\link HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (b"GET /v1/jobs HTTP/1.1\r\nA: " + b"x" * HEADER_BLOCK_MAX, 413, "too_large"),
        (b"x" * (2 * HEADER_BLOCK_MAX), 413, "too_large"),
    ],
)
async def test_what_two_parsers_could_read_differently_goes_no_further(upstream, sent, status, code):
    async with connected(upstream.url) as (reader, writer):
        writer.write(sent)
        refusal = await refusal_of(reader)
        rest = await reader.read()

    assert refusal == (status, code, False)
    assert rest == b""
    assert upstream.connections == 0


@pytest.mark.parametrize(
    ("calls", "named", "status"),
    [
        (("1", "2"), "", 409),
        (("1", "2"), "2", 200),
        (("1", "2"), "3", 409),
        ((), "", 409),
        (("1",), "", 200),
        (("1",), "old", 409),
    ],
)
async def test_a_request_belongs_to_a_live_call_of_its_runner(upstream, calls, named, status):
    upstream.answers.put_nowait(OK)
    line = f"X-Apothic-Call: {named}\r\n" if named else ""
    async with connected(upstream.url, calls) as (reader, writer):
        writer.write(f"GET /v1/jobs/j HTTP/1.1\r\n{line}\r\n".encode())
        answered, _, body = await answer_of(reader)

    assert answered == status
    assert status == 200 or json.loads(body)["code"] == "call_unknown"


async def test_large_bodies_pass_both_ways_unchanged(upstream):
    data = bytes(range(256)) * (4 * PIECE // 256) + b"end"
    upstream.answers.put_nowait(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(data) + data)
    async with connected(upstream.url) as (reader, writer):
        writer.write(b"PUT /v1/blobs/b HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
        _, _, body = await answer_of(reader)

    assert upstream.bodies == [data]
    assert body == data


async def test_a_stream_passes_piece_by_piece_and_ends_where_it_ends(upstream):
    pieces = b"5\r\nhello\r\n3;x=y\r\nyou\r\n0\r\nTrailer: t\r\n\r\n"
    upstream.answers.put_nowait(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + pieces)
    upstream.answers.put_nowait(OK)
    async with connected(upstream.url) as (reader, writer):
        writer.write(b"GET /v1/jobs/j/events HTTP/1.1\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readuntil(b"0\r\n\r\n")
        writer.write(b"GET /v1/jobs/j HTTP/1.1\r\n\r\n")
        again = await answer_of(reader)

    assert b"transfer-encoding: chunked" in head
    assert body == b"5\r\nhello\r\n3\r\nyou\r\n0\r\n\r\n"
    assert again[2] == b"hi"


async def test_a_client_that_leaves_ends_the_request_behind_the_relay(upstream):
    async with connected(upstream.url) as (_, writer):
        writer.write(b"GET /v1/jobs/j/outcome HTTP/1.1\r\n\r\n")
        await upstream.heads.get()
        writer.close()
        upstream.answers.put_nowait(b"")
        async with asyncio.timeout(10):
            await upstream.left.wait()

    assert upstream.heads.empty()


async def test_a_client_that_writes_no_more_gets_its_answer(upstream):
    async with connected(upstream.url) as (reader, writer):
        writer.write(b"GET /v1/jobs/j/outcome HTTP/1.1\r\n\r\n")
        writer.write_eof()
        await upstream.heads.get()
        upstream.answers.put_nowait(OK)
        status, _, body = await answer_of(reader)
        rest = await reader.read()

    assert (status, body, rest) == (200, b"hi", b"")


async def test_a_client_that_leaves_in_its_body_ends_the_request(upstream):
    async with connected(upstream.url) as (_, writer):
        writer.write(b"POST /v1/functions/f/calls HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf")
        await upstream.heads.get()
        writer.close()
        async with asyncio.timeout(10):
            await upstream.left.wait()

    assert upstream.bodies == []


async def test_no_control_plane_is_said_and_may_be_tried_again():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        async with connected(url) as (reader, writer):
            writer.write(b"GET /v1/jobs/j HTTP/1.1\r\n\r\n")

            assert await refusal_of(reader) == (503, "unavailable", True)


async def test_a_connection_that_breaks_before_the_answer_is_said_and_not_called_repeatable(upstream):
    upstream.answers.put_nowait((b"",))
    async with connected(upstream.url) as (reader, writer):
        writer.write(b"POST /v1/functions/f/calls HTTP/1.1\r\nContent-Length: 0\r\n\r\n")

        assert await refusal_of(reader) == (502, "answer_lost", False)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nno size\r\n",
    ],
)
async def test_an_answer_that_breaks_off_breaks_off_for_user_code_too(upstream, answer):
    upstream.answers.put_nowait((answer,))
    async with connected(upstream.url) as (reader, writer), asyncio.timeout(10):
        writer.write(b"GET /v1/jobs/j HTTP/1.1\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")

        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(10_000)


async def test_user_code_cannot_smuggle_a_second_request_behind_a_body(upstream):
    upstream.answers.put_nowait(OK)
    hidden = b"GET /v1/keys HTTP/1.1\r\nAuthorization: Bearer lk_forged\r\n\r\n"
    async with connected(upstream.url) as (reader, writer):
        writer.write(b"GET /v1/jobs/j HTTP/1.1\r\n\r\n" + hidden)
        await answer_of(reader)
        upstream.answers.put_nowait(OK)
        await answer_of(reader)
        heads = [await upstream.heads.get() for _ in range(2)]

    assert all(f"authorization: Bearer {TOKEN}" in head for head in heads)
    assert not any("lk_forged" in head for head in heads)


async def test_no_request_follows_an_answer_that_came_before_the_end_of_the_body(upstream):
    upstream.reads_bodies = False
    upstream.answers.put_nowait(OK)
    async with connected(upstream.url) as (reader, writer):
        writer.write(b"POST /v1/functions/f/calls HTTP/1.1\r\nContent-Length: 1000\r\n\r\nhalf")
        status, headers, _ = await answer_of(reader)
        writer.write(b"GET /v1/jobs/j HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(10):
            await upstream.left.wait()

    assert (status, headers["connection"]) == (200, "close")
    assert upstream.heads.qsize() == 1
