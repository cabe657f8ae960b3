"""The smallest broadcaster: an asyncio protocol, httptools' parser, uvloop, one write for each who reads."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import httptools
import uvloop

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
DONE = b"HTTP/1.1 204 No Content\r\n\r\n"
readers: set[Any] = set()


class Broadcast(asyncio.Protocol):
    """Answers GET with the stream, and gives the body of a POST to all who read it."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._body = b""
        self._parser = httptools.HttpRequestParser(self)

    def connection_lost(self, exc: Exception | None) -> None:
        readers.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._parser.get_method() == b"GET":
            self._transport.write(STREAM)
            readers.add(self._transport)
            return
        event = b"event: tick\ndata: " + self._body + b"\n\n"
        for reader in readers:
            reader.write(event)
        self._transport.write(DONE)
        self._body = b""


async def main() -> None:
    """Serve until ended by a signal."""
    server = await asyncio.get_running_loop().create_server(Broadcast, "127.0.0.1", int(sys.argv[1]), backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
