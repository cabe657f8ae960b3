"""The same echo through uvicorn (uvloop, httptools) and Starlette."""

from __future__ import annotations

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


async def echo(request: Request) -> Response:
    """Answer with the body."""
    return Response(await request.body(), media_type="application/json")


if __name__ == "__main__":
    app = Starlette(routes=[Route("/echo", echo, methods=["POST"])])
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
