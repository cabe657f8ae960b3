"""A client that drives an ASGI application in process, the way an HTTP server would, without sockets or sleeps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, MutableMapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]
Headers = dict[str, str] | Sequence[tuple[str, str]]


class CutError(Exception):
    """The application ended without finishing its answer; a server would close the connection."""


@dataclass(frozen=True)
class Answer:
    """A whole answer.

    Attributes:
        headers: Names in lower case; repeated ones joined by a comma.
    """

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Exchange:
    """One request under way.

    Attributes:
        incoming: What the application will receive.
        sent: What the application sent and nobody has read yet; None is its end.
        status: Known after `start`.
        headers: Known after `start`.
        is_whole: The end of the answer was read.
    """

    incoming: asyncio.Queue[Message] = field(default_factory=asyncio.Queue[Message])
    sent: asyncio.Queue[Message | None] = field(default_factory=asyncio.Queue[Message | None])
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict[str, str])
    is_whole: bool = False

    def disconnect(self) -> None:
        """Close the client's side."""
        self.incoming.put_nowait({"type": "http.disconnect"})

    def send_body(self, data: bytes, *, more: bool) -> None:
        """Send a piece of the request's body."""
        self.incoming.put_nowait({"type": "http.request", "body": data, "more_body": more})

    async def start(self) -> int:
        """Wait for the answer's head; return its status."""
        if not self.status:
            message = await self._next()
            if message["type"] != "http.response.start":
                raise AssertionError(f"the answer began with {message['type']}")
            self.status, self.headers = message["status"], _readable(message["headers"])
        return self.status

    async def piece(self) -> bytes | None:
        """Wait for the next piece of the body; None at its end."""
        await self.start()
        if self.is_whole:
            return None
        message = await self._next()
        self.is_whole = not message.get("more_body", False)
        data: bytes = message.get("body", b"")
        return None if self.is_whole and not data else data

    async def answer(self) -> Answer:
        """Wait for the whole answer."""
        await self.start()
        pieces: list[bytes] = []
        while (piece := await self.piece()) is not None:
            pieces.append(piece)
        return Answer(self.status, self.headers, b"".join(pieces))

    async def _next(self) -> Message:
        message = await self.sent.get()
        if message is None:
            self.sent.put_nowait(None)
            raise CutError
        return message


@dataclass(frozen=True)
class AsgiClient:
    """Sends requests to `app`; `token` goes along as a bearer token unless a request brings its own header."""

    app: App
    token: str | None = None

    def as_holder_of(self, token: str | None) -> AsgiClient:
        """Return a client with another token."""
        return AsgiClient(self.app, token)

    async def request(
        self, method: str, target: str | bytes, *, headers: Headers = (), body: bytes = b"", json: Any = None
    ) -> Answer:
        """Send one request with a whole body and return the whole answer.

        Raises:
            CutError: The application did not finish its answer.
        """
        async with self.open(method, target, headers=headers, body=body, json=json) as exchange:
            return await exchange.answer()

    @asynccontextmanager
    async def open(
        self,
        method: str,
        target: str | bytes,
        *,
        headers: Headers = (),
        body: bytes | None = b"",
        json: Any = None,
    ) -> AsyncGenerator[Exchange]:
        """Send one request and hand out the exchange; leaving closes the connection.

        Args:
            target: Path and query as they stand in the request line.
            body: None leaves the body to `Exchange.send_body`.
            json: Sent as the body, with its content type.
        """
        pairs = _pairs(headers)
        if json is not None:
            body = _encode(json)
            pairs.append((b"content-type", b"application/json"))
        if body:
            pairs.append((b"content-length", str(len(body)).encode()))
        exchange = Exchange()
        if body is not None:
            exchange.send_body(body, more=False)
        task = asyncio.ensure_future(self._run(_scope("http", method, target, self._with_token(pairs)), exchange))
        try:
            yield exchange
        finally:
            exchange.disconnect()
            await task

    async def connect(self, target: str | bytes, *, headers: Headers = ()) -> list[Message]:
        """Ask for a WebSocket and close it at once; return every message the application sent."""
        sent: list[Message] = []
        incoming: asyncio.Queue[Message] = asyncio.Queue()
        incoming.put_nowait({"type": "websocket.connect"})
        incoming.put_nowait({"type": "websocket.disconnect", "code": 1000})

        async def send(message: Message) -> None:
            sent.append(message)

        scope = _scope("websocket", None, target, self._with_token(_pairs(headers)))
        await self.app({**scope, "extensions": {"websocket.http.response": {}}}, incoming.get, send)
        return sent

    def _with_token(self, pairs: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        if self.token is None or any(name == b"authorization" for name, _ in pairs):
            return pairs
        return [*pairs, (b"authorization", b"Bearer " + self.token.encode())]

    async def _run(self, scope: Message, exchange: Exchange) -> None:
        async def send(message: Message) -> None:
            exchange.sent.put_nowait(message)

        try:
            await self.app(scope, exchange.incoming.get, send)
        finally:
            exchange.sent.put_nowait(None)


def _scope(kind: str, method: str | None, target: str | bytes, headers: list[tuple[bytes, bytes]]) -> Message:
    raw = target.encode("latin-1") if isinstance(target, str) else target
    path, _, query = raw.partition(b"?")
    scope: Message = {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": "http" if kind == "http" else "ws",
        "path": unquote(path.decode("latin-1")),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8400),
    }
    if method is not None:
        scope["method"] = method
    return scope


def _pairs(headers: Headers) -> list[tuple[bytes, bytes]]:
    items = headers.items() if isinstance(headers, dict) else headers
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in items]


def _encode(value: Any) -> bytes:
    return json.dumps(value).encode()


def _readable(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found
