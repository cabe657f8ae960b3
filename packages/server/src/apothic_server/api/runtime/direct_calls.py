"""Calls by function id whose outcome is streamed, answered without ASGI: the common way (`api.shared.direct`).

What stands between the bytes of such a request and its job is done in one go, by the functions that the gate and the
handler use. Whatever needs more than memory, is refused or is unusual takes the ordinary way from its beginning. The
answer is the outcome in one write; when there is something to say before it, the handler of calls goes on.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from apothic.wire.attempts import ATTEMPT_HEADER
from apothic.wire.ids import FunctionId, JobId
from apothic.wire.limits import HEADER_BLOCK_MAX, KEEP_ALIVE_S
from apothic.wire.values import OUTCOME_TYPE
from apothic_server.api.runtime.arguments import read_arguments
from apothic_server.api.runtime.calls import AT_ONCE_S, CallHandlers, wants_stream
from apothic_server.api.runtime.outcomes import outcome_frame
from apothic_server.api.runtime.records import function_key
from apothic_server.api.shared.asgi import CLIENT_GONE, Exchange, Face
from apothic_server.api.shared.bodies import check_body_headers
from apothic_server.api.shared.direct import Answering, Line
from apothic_server.api.shared.idempotency import read_key, request_key
from apothic_server.api.shared.operations import Receive, Scope, Send
from apothic_server.api.shared.request import Request
from apothic_server.api.shared.response import raw_response
from apothic_server.api.shared.services import Services
from apothic_server.domain.access import Actor
from apothic_server.domain.errors import PlatformError
from apothic_server.domain.idempotency import RequestKey
from apothic_server.domain.views import Outcome, Submitted

Later = Callable[[float, Callable[[], object]], asyncio.Handle]
"""Calls something after some seconds, unless the handle is cancelled."""

OPERATION, _PARAMETER = "call_function", "function_id"
_BEFORE, _AFTER = b"/v1/functions/", b"/calls"
_NAME = re.compile(rb"functions:[0-9a-z]+")
_VARYING = (b"idempotency-key", b"content-length")
_LENGTH_MAX = 18
_ROOM = 1024
"""For the headers that vary."""
_UNUSUAL = frozenset({ATTEMPT_HEADER.lower().encode(), b"transfer-encoding"})


class DirectCalls:
    """Begins calls.

    Args:
        handlers: Goes on with those whose outcome takes its time.
        later: Tests decide through it when time passes.
    """

    def __init__(self, face: Face, services: Services, handlers: CallHandlers, *, later: Later | None = None) -> None:
        self._face = face
        self._services = services
        self._handlers = handlers
        self._operation = face.operations[OPERATION]
        self._route = self._operation.route
        self._later = later

    def takes(self, method: bytes, url: bytes) -> bool:
        """As `direct.Direct`."""
        return method == b"POST" and url.startswith(_BEFORE) and url.endswith(_AFTER)

    def begin(self, line: Line, url: bytes, headers: list[tuple[bytes, bytes]], body: bytes) -> Answering | None:
        """As `direct.Direct`."""
        exchange = self._face.begun()
        try:
            admitted = self._admitted(line, url, headers, len(body))
            if admitted is None:
                return None
            shape, actor, given = admitted
            value, asked = read_arguments(body, shape.media_type), read_key(given)
            key = None if asked is None else request_key(asked, self._route, shape.params, shape.media_type, body)
        except Exception:
            return None  # the ordinary way refuses it
        try:
            call = self._services.jobs.submit_now(actor, shape.function, value, key=key)
        except PlatformError:
            return None
        except Exception as error:
            call = _failed(error)
        if call is None:
            return None
        exchange.operation, exchange.is_frequent = self._operation.id, self._operation.is_frequent
        exchange.org = actor.org
        later = self._later or asyncio.get_running_loop().call_later
        request = Request(
            id=exchange.id,
            params=shape.params,
            query={},
            headers=given,
            media_type=shape.media_type,
            body_max=self._operation.body_max,
            actor=actor,
            receive=_nothing_more,
        )
        answer = _Call(self._face, self._handlers, later, line, exchange, request, call, key)
        answer.wait()
        return answer

    def _admitted(
        self, line: Line, url: bytes, headers: list[tuple[bytes, bytes]], body_size: int
    ) -> tuple[_Shape, Actor, dict[bytes, bytes]] | None:
        """As `gate.admit`: return what the head means, the caller and the headers; None for the ordinary way."""
        given = dict(headers)
        if len(given) != len(headers) or body_size > self._operation.body_max:
            return None
        varying = [(name, given.pop(name)) for name in _VARYING if name in given]
        shape = line.memory
        if not isinstance(shape, _Shape) or shape.url != url or shape.given != given:
            shape = line.memory = self._shape(url, given)
            if shape is None:
                return None
        actor = self._services.recognise(given.get(b"authorization", b""))
        if actor is None:
            return None
        if actor is not shape.actor:
            if self._operation.policy.refusal(actor) is not None:
                return None
            shape.actor = actor
        given.update(varying)
        return (shape, actor, given) if len(given.get(b"content-length", b"")) <= _LENGTH_MAX else None

    def _shape(self, url: bytes, given: dict[bytes, bytes]) -> _Shape | None:
        size = len(url) + sum(map(len, given)) + sum(map(len, given.values()))
        name = url[len(_BEFORE) : -len(_AFTER)]
        is_usual = size <= HEADER_BLOCK_MAX - _ROOM and _UNUSUAL.isdisjoint(given)
        if not is_usual or _NAME.fullmatch(name) is None or not wants_stream(given):
            return None
        params = {_PARAMETER: name.decode()}
        media_type = check_body_headers(given, self._operation.accepts, self._operation.body_max)
        return _Shape(url, dict(given), function_key(params[_PARAMETER]), params, media_type)


@dataclass(slots=True)
class _Shape:
    """What the head of a request means; the next one on its connection mostly differs in its key and length alone.

    Attributes:
        given: Headers without those.
        actor: Whom the operation's policy admitted last.
    """

    url: bytes
    given: dict[bytes, bytes]
    function: FunctionId
    params: dict[str, str]
    media_type: str
    actor: Actor | None = None


class _Call(Answering):
    """One call under way."""

    __slots__ = (
        "_call",
        "_exchange",
        "_face",
        "_handlers",
        "_is_waiting",
        "_key",
        "_later",
        "_line",
        "_request",
        "_timer",
    )

    def __init__(
        self,
        face: Face,
        handlers: CallHandlers,
        later: Later,
        line: Line,
        exchange: Exchange,
        request: Request,
        call: Submitted,
        key: RequestKey | None,
    ) -> None:
        super().__init__()
        self._face = face
        self._handlers = handlers
        self._later = later
        self._line = line
        self._exchange = exchange
        self._request = request
        self._call = call
        self._key = key
        self._timer: asyncio.Handle | None = None
        self._is_waiting = True

    def wait(self) -> None:
        """Wait for the outcome; after `AT_ONCE_S` for it or for the job to be durable."""
        self._call.outcome.add_done_callback(self._ended)
        self._timer = self._later(AT_ONCE_S, self._late)

    def left(self) -> None:
        """As `Answering`."""
        self._over(CLIENT_GONE)

    def hand_over(self) -> None:
        """As `Answering`; also for what a task can do better."""
        self._wait_no_more()
        self._line.hand_over(self._go_on)

    async def _go_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, operation = self._request.received_by(receive), self._face.operations[OPERATION]
        rest = self._handlers.go_on(request, self._call, self._key, is_accepted_told=self.is_begun)
        await self._face.go_on(self._exchange, operation, rest, scope, _without_head(send) if self.is_begun else send)

    def _ended(self, outcome: asyncio.Future[Outcome]) -> None:
        if not self._is_waiting:
            return  # the client left in the same turn of the loop, or a task goes on
        if _has_failed(outcome) or _has_failed(self._call.accepted):
            self.hand_over()
            return
        frame = outcome_frame(outcome.result())
        if self.is_begun:
            is_sent = self._line.end(frame)
        else:
            is_sent = self._line.respond(raw_response(frame, OUTCOME_TYPE), self._exchange.id)
        if is_sent:
            self._over(200)
        else:
            self.hand_over()

    def _late(self) -> None:
        accepted = self._call.accepted
        if accepted.done():
            self._accepted(accepted)
        else:
            accepted.add_done_callback(self._accepted)

    def _accepted(self, accepted: asyncio.Future[None]) -> None:
        if not self._is_waiting or self._call.outcome.done():
            return  # as above, or `_ended` is called next
        if _has_failed(accepted):
            self.hand_over()
            return
        first = raw_response(self._handlers.accepted(self._request.actor, self._call), OUTCOME_TYPE)
        if self._line.begin(first, self._exchange.id):
            self._timer = self._later(KEEP_ALIVE_S, self.hand_over)
        else:
            self.hand_over()

    def _over(self, status: int) -> None:
        self._wait_no_more()
        self._call.leave()
        self._face.done(self._exchange, status)

    def _wait_no_more(self) -> None:
        self._is_waiting = False
        if self._timer is not None:
            self._timer.cancel()
        self._call.outcome.remove_done_callback(self._ended)
        self._call.accepted.remove_done_callback(self._accepted)


def _without_head(send: Send) -> Send:
    """Return what sends the rest of an answer whose head has left."""

    async def send_rest(message: MutableMapping[str, Any]) -> None:
        if message["type"] != "http.response.start":
            await send(message)

    return send_rest


def _has_failed(future: asyncio.Future[Any]) -> bool:
    return future.done() and (future.cancelled() or future.exception() is not None)


def _failed(error: Exception) -> Submitted:
    """Return a call that came to nothing for a fault of ours; as one that could not be stored, it is told why."""
    loop = asyncio.get_running_loop()
    accepted: asyncio.Future[None] = loop.create_future()
    accepted.set_exception(error)
    accepted.exception()
    return Submitted(JobId(""), accepted, loop.create_future())


async def _nothing_more() -> MutableMapping[str, Any]:
    raise AssertionError("nobody receives from a request that is answered directly")
