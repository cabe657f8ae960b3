"""The smallest HTTP server of Python's fast parts: an asyncio protocol, httptools' parser, uvloop. Echoes bodies."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import httptools
import uvloop


class Echo(asyncio.Protocol):
    """Answers every request with its body."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._body = b""
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(self._body)}\r\n\r\n"
        self._transport.write(head.encode() + self._body)
        self._body = b""


async def main() -> None:
    """Serve until ended by a signal."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
