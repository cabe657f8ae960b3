"""A client that speaks HTTP to the listener's own connection in process: the same requests as over ASGI, as bytes.

What the connection answers without ASGI is answered so here; a request whose body is given is sent in one piece.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, cast

import httptools
import uvicorn
from uvicorn.server import ServerState

from apothic_server.api.shared.connection import Connection
from apothic_server.testing.asgi import AsgiClient, Exchange, Message


@dataclass(frozen=True)
class WireClient(AsgiClient):
    """As `AsgiClient`, with a connection of its own for every request."""

    def as_holder_of(self, token: str | None) -> WireClient:
        return WireClient(self.app, token)

    async def _run(self, scope: Message, exchange: Exchange) -> None:
        config = uvicorn.Config(
            cast("Any", self.app), http=Connection, lifespan="off", log_config=None, proxy_headers=False
        )
        config.load()
        state = ServerState()
        connection = Connection(config, state, {})
        transport = _Transport(connection, exchange)
        connection.connection_made(transport)
        first = None if exchange.incoming.empty() else exchange.incoming.get_nowait()
        is_chunked = (first is None or bool(first["body"])) and not _has_length(scope)
        head = _head(scope, is_chunked=is_chunked)
        try:
            connection.data_received(head if first is None else head + _body(first, is_chunked=is_chunked))
            while (message := await exchange.incoming.get())["type"] != "http.disconnect":
                connection.data_received(_body(message, is_chunked=is_chunked))
        finally:
            connection.connection_lost(None)
            await asyncio.gather(*state.tasks, return_exceptions=True)
            exchange.sent.put_nowait(None)


class _Transport(asyncio.Transport):
    """Takes what the connection writes, and reads it as a client does."""

    def __init__(self, connection: Connection, exchange: Exchange) -> None:
        super().__init__()
        self._connection = connection
        self._exchange = exchange
        self._is_closing = False
        self._headers: list[tuple[bytes, bytes]] = []
        self._parser = httptools.HttpResponseParser(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._parser.feed_data(data)

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._exchange.sent.put_nowait(None)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._is_closing

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._connection

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        self._exchange.sent.put_nowait(
            {"type": "http.response.start", "status": status, "headers": self._headers, "more_body": True}
        )

    def on_body(self, body: bytes) -> None:
        self._exchange.sent.put_nowait({"type": "http.response.body", "body": body, "more_body": True})

    def on_message_complete(self) -> None:
        self._exchange.sent.put_nowait({"type": "http.response.body", "body": b"", "more_body": False})


def _has_length(scope: Message) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])


def _head(scope: Message, *, is_chunked: bool) -> bytes:
    query: bytes = scope["query_string"]
    target = scope["raw_path"] + (b"?" + query if query else b"")
    lines = [b"%b %b HTTP/1.1\r\n" % (scope["method"].encode(), target), b"host: cloud.test\r\n"]
    lines += [b"%b: %b\r\n" % pair for pair in scope["headers"]]
    if is_chunked:
        lines.append(b"transfer-encoding: chunked\r\n")
    return b"".join((*lines, b"\r\n"))


def _body(message: Message, *, is_chunked: bool) -> bytes:
    data: bytes = message.get("body", b"")
    if not is_chunked:
        return data
    piece = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
    return piece if message.get("more_body", False) else piece + b"0\r\n\r\n"
