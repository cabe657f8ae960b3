"""One HTTP connection: uvicorn's protocol, with bounds on what a peer may send before a request means anything.

The parser itself keeps header lines of any length and number. So bytes are counted from outside: whatever arrived since
the parser last gave something away (a whole head, a piece of a body) is what it may be holding.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from apothic.wire.limits import HEADER_BLOCK_MAX

HELD_MAX = 4 * HEADER_BLOCK_MAX
"""Bytes held in the parser; a head between `HEADER_BLOCK_MAX` and this still gets the gate's answer."""

HEAD_TIMEOUT_S = 30.0
"""Time for a connection that answers nothing now to bring a whole request head."""


class Connection(HttpToolsProtocol):
    """Ends with 431 when a head is too long, without an answer when trailers are or when no head comes in time.

    Attributes:
        head_timeout_s: As `HEAD_TIMEOUT_S`.
    """

    head_timeout_s = HEAD_TIMEOUT_S
    _held = 0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first head."""
        super().connection_made(cast("asyncio.Transport", transport))  # uvloop's is no subclass
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; nothing is fed once the connection is being closed."""
        if self.transport.is_closing():
            return
        self._held += len(data)
        super().data_received(data)
        if self._held > HELD_MAX and not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif not self._is_answering() and not self._is_upgraded:
            self._wait()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._held = 0
        self._wait_no_more()
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        cycle.transport = _Answer(cycle, self.loop)
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        """A piece of the body left the parser."""
        self._held = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole; what follows is the next one."""
        self._held = 0
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
