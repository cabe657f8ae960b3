"""The ASGI application of a face: runs each request through the gate and its handler, and sends what comes out.

Written for few allocations and one `send` per part, because the hot routes pass here (D13).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import aclosing
from typing import Any, Protocol

from apothic_server.api.shared.direct import Direct
from apothic_server.api.shared.errors import ClientGoneError, UpgradeRequired, error_response, internal_response
from apothic_server.api.shared.gate import Authenticate, Over, admit
from apothic_server.api.shared.operations import Operation, Receive, Scope, Send, operation_table
from apothic_server.api.shared.response import Last, Pieces, Response, headers_of
from apothic_server.api.shared.router import NO_PATH, Router
from apothic_server.domain.access import Audience
from apothic_server.domain.errors import NotFound, PlatformError, Unavailable
from apothic_server.services.alarm import Alarm

CLIENT_GONE = 499
"""Status in logs and metrics of a request whose answer was not sent whole: the client left, or it was cut."""


class Log(Protocol):
    """The part of a structlog logger that a face uses."""

    def is_enabled_for(self, level: int) -> bool: ...
    def debug(self, event: str, **fields: Any) -> Any: ...
    def info(self, event: str, **fields: Any) -> Any: ...
    def error(self, event: str, **fields: Any) -> Any: ...
    def exception(self, event: str, **fields: Any) -> Any: ...


READER_IDLE_S = 30.0
"""A reader of a streamed answer that takes nothing for this long is cut off (G5.7)."""

BAD_STATUS = 400

Observe = Callable[[str, int, float], None]
"""Told about every request when it is done: operation id, status, seconds."""


def observe_nothing(operation: str, status: int, seconds: float) -> None:
    """Count no requests."""


class Face:
    """ASGI application over an operation table.

    Args:
        operations: The table.
        authenticate: Turns a well-formed token into its holder.
        make_request_id: Gives each request its id.
        log: Gets one `request.done` per request, without anything a client chose.
        over: Says when user code is answered no further.
        observe: Counts requests.
        clock: Seconds, for durations.

    Attributes:
        reader_idle_s: A reader of a streamed answer that takes nothing for so many seconds is cut off (G5.7).
        direct: Answers what it can of the face's requests without ASGI.

    Raises:
        StartRefusedError: The table contradicts itself.
    """

    def __init__(
        self,
        operations: Iterable[Operation],
        *,
        authenticate: Authenticate,
        make_request_id: Callable[[], str],
        log: Log,
        over: Over = lambda _: None,
        observe: Observe = observe_nothing,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.operations = operation_table(operations)
        self._router = Router(self.operations.values())
        self._authenticate = authenticate
        self._over = over
        self._make_request_id = make_request_id
        self._log = log
        self._observe = observe
        self._clock = clock
        self.reader_idle_s = READER_IDLE_S
        self.direct: Direct | None = None
        self._leaves_out: bool | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._serve_http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._serve_websocket(scope, receive, send)
        else:
            raise RuntimeError(f"no {scope['type']} here")

    async def _serve_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = self.begun()
        await self._serve(exchange, self._answer(exchange, scope, receive), scope, send)

    def begun(self) -> Exchange:
        """Return what is known of a request that begins now."""
        return Exchange(self._make_request_id(), self._clock())

    async def go_on(
        self, exchange: Exchange, operation: Operation, response: Awaitable[Response], scope: Scope, send: Send
    ) -> None:
        """Answer a request that was admitted, and begun to be answered, without ASGI."""
        await self._serve(exchange, self._told(exchange, operation, response), scope, send)

    async def _serve(self, exchange: Exchange, answer: Coroutine[Any, Any, Response], scope: Scope, send: Send) -> None:
        status, response = CLIENT_GONE, None
        try:
            response = await answer
            is_head = scope["method"] == "HEAD"
            sending = _send(response, exchange.id, send, is_head=is_head, idle_s=self.reader_idle_s)
            await (sending if exchange.over is None else _until(exchange.over, sending))
            status = response.status
        except ClientGoneError:
            pass
        except asyncio.CancelledError:
            if response is not None:
                raise
            # The process stops, and what is open got its time.
            stopping = error_response(Unavailable("the server is stopping; try again", retry_after_s=1), exchange.id)
            await _send(stopping, exchange.id, send, is_head=scope["method"] == "HEAD", idle_s=self.reader_idle_s)
            status = stopping.status
        except Unavailable as error:  # told once by who is away; here it is the reason in the line of the request
            exchange.code = error.code
        except Exception:
            self._log.exception("request.cut", op=exchange.operation, request_id=exchange.id)
        finally:
            self.done(exchange, status)

    async def _answer(self, exchange: Exchange, scope: Scope, receive: Receive) -> Response:
        operation = None
        try:
            operation, params = self._router.find(scope["method"], scope["raw_path"])
            exchange.operation, exchange.is_frequent = operation.id, operation.is_frequent
            request = await admit(operation, params, scope, receive, self._authenticate, exchange.id, self._over)
            exchange.over = request.over
            if operation.policy.audience is not Audience.PUBLIC:
                exchange.org = request.actor.org
            if operation.handler is None:
                raise UpgradeRequired("This address speaks WebSocket only.")
            response = await operation.handler(request)
        except ClientGoneError:
            raise
        except Exception as error:
            response = self._refusal(error, exchange)
        return self._documented(operation, response, exchange)

    async def _told(self, exchange: Exchange, operation: Operation, response: Awaitable[Response]) -> Response:
        try:
            found = await response
        except ClientGoneError:
            raise
        except Exception as error:
            found = self._refusal(error, exchange)
        return self._documented(operation, found, exchange)

    def _refusal(self, error: Exception, exchange: Exchange) -> Response:
        is_ours = isinstance(error, PlatformError)
        response = error_response(error, exchange.id) if is_ours else internal_response(exchange.id)
        if response.status == 500:
            self._log.exception("request.failed", op=exchange.operation, request_id=exchange.id)
        return response

    def _documented(self, operation: Operation | None, response: Response, exchange: Exchange) -> Response:
        if operation is None or response.status in operation.statuses:
            return response
        self._log.error("request.undocumented_status", op=operation.id, status=response.status, request_id=exchange.id)
        return internal_response(exchange.id)

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(self._make_request_id(), self._clock())
        try:
            operation, params = self._router.find("GET", scope["raw_path"])
            exchange.operation, exchange.is_frequent = operation.id, operation.is_frequent
            if operation.upgrade is None:
                raise NotFound(NO_PATH)
            request = await admit(operation, params, scope, receive, self._authenticate, exchange.id)
        except Exception as error:
            response = self._refusal(error, exchange)
            await _refuse_websocket(response, exchange.id, scope, receive, send)
            self.done(exchange, response.status)
            return
        exchange.org = request.actor.org
        try:
            await operation.upgrade(scope, receive, send, request.actor)
        finally:
            self.done(exchange, 101)

    def _is_quiet(self) -> bool:
        """Whether the log leaves out what is told at debug; asked once, for asking costs more than a line left out."""
        if self._leaves_out is None:
            self._leaves_out = not self._log.is_enabled_for(logging.DEBUG)
        return self._leaves_out

    def done(self, exchange: Exchange, status: int) -> None:
        """A request is over, answered with `status`."""
        seconds = self._clock() - exchange.began
        self._observe(exchange.operation, status, seconds)
        if exchange.is_frequent and status < BAD_STATUS and self._is_quiet():
            return
        told = {} if exchange.code is None else {"code": exchange.code}
        tell = self._log.debug if exchange.is_frequent and status < BAD_STATUS else self._log.info
        tell(
            "request.done",
            op=exchange.operation,
            status=status,
            ms=round(seconds * 1000, 3),
            org=exchange.org,
            request_id=exchange.id,
            **told,
        )


class Exchange:
    """What the log line of one request says."""

    __slots__ = ("began", "code", "id", "is_frequent", "operation", "org", "over")

    def __init__(self, request_id: str, began: float) -> None:
        self.id = request_id
        self.began = began
        self.operation = "none"
        self.is_frequent = False
        self.org: str | None = None
        self.code: str | None = None
        self.over: asyncio.Future[None] | None = None


async def _until(over: asyncio.Future[None], sending: Coroutine[Any, Any, None]) -> None:
    """Send an answer, but cut it when the attempt of the user code that reads it is over."""
    task = asyncio.ensure_future(sending)
    try:
        await asyncio.wait((task, over), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _send(response: Response, request_id: str, send: Send, *, is_head: bool, idle_s: float) -> None:
    start: dict[str, Any] = {"type": "http.response.start", "status": response.status}
    if is_head:
        await send({**start, "headers": [(b"x-request-id", request_id.encode()), *response.headers]})
        await send({"type": "http.response.body", "body": b""})
        return
    start["headers"] = headers_of(response, request_id)
    if response.stream is None:
        await send(start)
        await send({"type": "http.response.body", "body": response.body})
        return
    async with aclosing(response.stream) as pieces:
        await send(start)
        is_ended = await _send_pieces(pieces, send, response.reader_idle_s or idle_s)
    if not is_ended:
        await send({"type": "http.response.body", "body": b""})


async def _send_pieces(pieces: Pieces, send: Send, idle_s: float) -> bool:
    """Send pieces, each within `idle_s`; return whether the end of the answer went with the last of them."""
    loop = asyncio.get_running_loop()
    limit = asyncio.timeout(None)
    alarm = Alarm(lambda: limit.reschedule(loop.time()))
    try:
        async with limit:
            async for piece in pieces:
                alarm.set(loop.time() + idle_s)
                is_last = isinstance(piece, Last)
                await send({"type": "http.response.body", "body": piece, "more_body": not is_last})
                alarm.stop()
                if is_last:
                    return True
    except TimeoutError:
        if not limit.expired():
            raise
        raise ClientGoneError from None  # what a reader does is no fault of the server: one line in the log
    finally:
        alarm.close()
    return False


async def _refuse_websocket(response: Response, request_id: str, scope: Scope, receive: Receive, send: Send) -> None:
    await receive()  # the connect message comes before any answer
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = headers_of(response, request_id)
    await send({"type": "websocket.http.response.start", "status": response.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": response.body})
