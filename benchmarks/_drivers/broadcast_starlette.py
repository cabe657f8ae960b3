"""The same broadcaster through uvicorn (uvloop, httptools) and Starlette: a streaming response and a queue for each."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

readers: set[asyncio.Queue[bytes]] = set()


async def events(_: Request) -> StreamingResponse:
    """Answer with the stream."""
    return StreamingResponse(_pieces(), media_type="text/event-stream")


async def _pieces() -> AsyncGenerator[bytes]:
    queue: asyncio.Queue[bytes] = asyncio.Queue(1_000)
    readers.add(queue)
    try:
        while True:
            yield await queue.get()
    finally:
        readers.discard(queue)


async def publish(request: Request) -> Response:
    """Give the body to all who read the stream."""
    event = b"event: tick\ndata: " + await request.body() + b"\n\n"
    for queue in readers:
        queue.put_nowait(event)
    return Response(status_code=204)


if __name__ == "__main__":
    app = Starlette(routes=[Route("/events", events), Route("/publish", publish, methods=["POST"])])
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="error",
        timeout_keep_alive=3600,  # the connection idles while others are measured
    )
