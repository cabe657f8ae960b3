"""One HTTP connection: uvicorn's protocol, with bounds on what a peer may send before a request means anything.

The parser itself keeps header lines of any length and number. So bytes are counted from outside: whatever arrived since
the parser last gave something away (a whole head, a piece of a body) is what it may be holding.

A request that arrives in one piece, with nothing unusual about it, may be answered directly (`api.shared.direct`).
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from apothic.wire.limits import HEADER_BLOCK_MAX
from apothic_server.api.shared.bodies import announces_body
from apothic_server.api.shared.direct import Answering, App, direct_of
from apothic_server.api.shared.response import Response, headers_of

HELD_MAX = 4 * HEADER_BLOCK_MAX
"""Bytes held in the parser; a head between `HEADER_BLOCK_MAX` and this still gets the gate's answer."""

HEAD_TIMEOUT_S = 30.0
"""Time for a connection that answers nothing now to bring a whole request head."""


class Connection(HttpToolsProtocol):
    """Ends with 431 when a head is too long, without an answer when trailers are or when no head comes in time.

    Attributes:
        head_timeout_s: As `HEAD_TIMEOUT_S`.
        memory: As `direct.Line`.
    """

    head_timeout_s = HEAD_TIMEOUT_S
    memory: object = None
    _held = 0
    _is_head = False
    """Whether the header lines that come belong to a head; those after a body are trailers, which mean nothing."""
    _timer: asyncio.TimerHandle | None = None
    _body: bytes | None = None
    """Of a request that may be answered directly, as far as it came."""
    _answer: Answering | None = None
    """The direct answer under way."""
    _running: RequestResponseCycle | None = None
    """The last one that a task has answered; uvicorn knows only the newest, behind which requests may wait."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._direct = direct_of(cast("Any", self).app)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first head."""
        super().connection_made(cast("asyncio.Transport", transport))  # uvloop's is no subclass
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer; nobody waits for the answer."""
        self._wait_no_more()
        super().connection_lost(exc)
        running, self._running = self._running, None
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.left()

    def shutdown(self) -> None:
        """The server stops: what is still not answered after its time is ended by its task."""
        if self._answer is not None:
            self._answer.hand_over()
        super().shutdown()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; nothing is fed once the connection is being closed."""
        if self.transport.is_closing():
            return
        self._held += len(data)
        super().data_received(data)
        if self._body is not None:
            self._take_ordinary_way()  # the rest of it is still to come
        if self._held > HELD_MAX and not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif not self._is_answering() and not self._is_upgraded:
            self._wait()

    def on_message_begin(self) -> None:
        """A head begins; what only the ordinary way needs is made there."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._is_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """A line of the head; the parser leaves blanks after a value, which are no part of it."""
        if self._is_head:
            name, value = name.lower(), value.rstrip(b" \t")
            self.headers.append((name, value))
            if name == b"expect":
                self.expect_100_continue = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._held = 0
        self._is_head = False
        self._wait_no_more()
        if self._may_be_direct():
            self._body = b""
            return
        is_ignored = cast("Any", self.parser).should_upgrade() and not self._should_upgrade()
        if is_ignored and announces_body(dict(self.headers)):
            raise ValueError("the parser would take the body for the next request")  # answered 400
        self._begin_cycle()
        if is_ignored:
            self.cycle.keep_alive = False  # for the parser what follows is no request

    def respond(self, response: Response, request_id: str) -> bool:
        """As `direct.Line`."""
        answer = self._sendable()
        if answer is None:
            return False
        self.transport.writelines((self._head(response.status, headers_of(response, request_id)), response.body))
        self._complete(answer)
        return True

    def begin(self, response: Response, request_id: str) -> bool:
        """As `direct.Line`."""
        answer = self._sendable()
        if answer is None:
            return False
        answer.is_begun = True
        headers = [*headers_of(response, request_id, is_whole=False), (b"transfer-encoding", b"chunked")]
        head = self._head(response.status, headers)
        self.transport.writelines((head, b"%x\r\n" % len(response.body), response.body, b"\r\n"))
        return True

    def end(self, piece: bytes) -> bool:
        """As `direct.Line`."""
        answer = self._sendable()
        if answer is None:
            return False
        self.transport.writelines((b"%x\r\n" % len(piece), piece, b"\r\n0\r\n\r\n"))
        self._complete(answer)
        return True

    def hand_over(self, app: App) -> None:
        """As `direct.Line`."""
        answer, self._answer = self._answer, None
        assert answer is not None
        cycle = RequestResponseCycle(
            scope=cast("Any", {"type": "http", "method": "POST"}),
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=answer.keep_alive,
            on_response=self.on_response_complete,
        )
        cycle.more_body = False
        if answer.is_begun:
            cycle.response_started = cycle.chunked_encoding = True
        if cast("Any", self.cycle) is answer:
            self.cycle = cycle
        self._start_asgi_task(cycle, app)

    def _sendable(self) -> Answering | None:
        return None if self.flow.write_paused or self.transport.is_closing() else self._answer

    def _head(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
        """Return the head of a direct answer, as uvicorn makes it."""
        if self._answer is not None and not self._answer.keep_alive:
            headers.append((b"connection", b"close"))
        lines = [b"%b: %b\r\n" % pair for pair in (*self.server_state.default_headers, *headers)]
        return b"".join((STATUS_LINE[status], *lines, b"\r\n"))

    def _complete(self, answer: Answering) -> None:
        self._answer = None
        answer.response_complete = True
        if not answer.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _may_be_direct(self) -> bool:
        direct, parser = self._direct, cast("Any", self.parser)
        return (
            direct is not None
            and not self._is_answering()
            and direct.takes(parser.get_method(), self.url)
            and parser.get_http_version() == "1.1"
            and parser.should_keep_alive()
            and not parser.should_upgrade()
            and not self.expect_100_continue
        )

    def _should_upgrade(self) -> bool:
        """Whether the connection becomes a WebSocket: by a GET, with nothing to answer before it."""
        return (
            cast("Any", self.parser).get_method() == b"GET" and not self._is_answering() and super()._should_upgrade()
        )

    def _begin_cycle(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()  # makes the scope, whose headers are `self.headers`
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        super().on_headers_complete()

    def _take_ordinary_way(self) -> None:
        body, self._body = self._body, None
        self._begin_cycle()
        if body:
            super().on_body(body)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        cycle.transport = _Answer(cycle, self.loop)
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        """A piece of the body left the parser."""
        self._held = 0
        if self._body is None:
            super().on_body(body)
        else:
            self._body += body

    def on_message_complete(self) -> None:
        """The request is whole; what follows is the next one."""
        self._held = 0
        body = self._body
        if body is not None and self._direct is not None:
            answer = self._direct.begin(self, self.url, self.headers, body)
            if answer is not None:
                self._body = None
                self._answer = answer
                self.cycle = cast("Any", answer)
                return
            self._take_ordinary_way()
        super().on_message_complete()

    @property
    def _is_upgraded(self) -> bool:
        """Whether another protocol has taken the connection over: it brings no further heads."""
        return self.transport.get_protocol() is not self

    def _is_answering(self) -> bool:
        cycle: Any = self.cycle
        return cycle is not None and not cycle.response_complete

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.head_timeout_s, self._too_slow)

    def _wait_no_more(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if not self._is_answering():
            self.transport.close()

    def _refuse(self, status: HTTPStatus) -> None:
        if self._is_answering():
            self.transport.abort()
            return
        text = f"The request's headers exceed {HEADER_BLOCK_MAX} bytes.\n"
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: text/plain; charset=utf-8\r\n"
        self.transport.write(f"{head}content-length: {len(text)}\r\nconnection: close\r\n\r\n{text}".encode())
        self.transport.close()


class _Answer:
    """The transport of one answer: its head leaves with what follows it, in one write that wakes the client once."""

    __slots__ = ("_cycle", "_has_begun", "_head", "_loop", "_on_response", "_transport")

    def __init__(self, cycle: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._cycle = cycle
        self._loop = loop
        self._transport: asyncio.Transport = cycle.transport
        self._has_begun = False
        self._head: bytes | None = None
        self._on_response = cycle.on_response
        cycle.on_response = self._complete

    def write(self, data: bytes) -> None:
        """Send; the head waits for the body, of unknown length for no longer than this turn of the loop."""
        head, self._head = self._head, None
        if head is not None:
            self._transport.writelines((head, data))
        elif self._has_begun or not self._cycle.response_started:
            self._transport.write(data)
        else:
            self._has_begun = True
            self._head = data
            if self._cycle.chunked_encoding:
                self._loop.call_soon(self._push)

    def close(self) -> None:
        """Close the connection once all is sent."""
        self._push()
        self._transport.close()

    def is_closing(self) -> bool:
        """Whether the connection is closed or being closed."""
        return self._transport.is_closing()

    def _complete(self) -> None:
        self._push()
        self._on_response()

    def _push(self) -> None:
        head, self._head = self._head, None
        if head is not None and not self._transport.is_closing():
            self._transport.write(head)
