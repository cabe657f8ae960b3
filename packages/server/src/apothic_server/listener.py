"""The HTTP listener: one socket, uvicorn's protocol code, our event loop and our signals."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator
from typing import Any

import uvicorn

from apothic.wire.limits import LINK_FRAME_MAX
from apothic_server.api.links.socket import LinkSocket
from apothic_server.api.shared.connection import Connection
from apothic_server.domain.errors import PlatformError

GRACE_S = 10
"""Open requests get this long when the process stops."""

BACKLOG = 2048
"""Connections that wait to be accepted."""


class PortError(PlatformError):
    """The address cannot be listened on."""

    code = "port_in_use"


class _Server(uvicorn.Server):
    """Leaves signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class Listener:
    """Serves an ASGI app on one bound socket.

    Args:
        grace_s: Whole seconds that open requests get when it stops.
    """

    def __init__(self, app: Any, bound: socket.socket, *, grace_s: int = GRACE_S) -> None:
        config = uvicorn.Config(
            app,
            http=Connection,
            ws=LinkSocket,
            ws_max_size=LINK_FRAME_MAX,
            ws_per_message_deflate=False,
            ws_ping_interval=20.0,
            ws_ping_timeout=20.0,
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=grace_s,
        )
        self._server = _Server(config)
        self._bound = bound
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to accept connections; those that come before the first turn of the loop wait."""
        self._bound.listen(BACKLOG)
        self._task = asyncio.create_task(self._server.serve(sockets=[self._bound]), name="listener")

    async def stop(self) -> None:
        """Accept no more, give open requests their time, close."""
        task, self._task = self._task, None
        if task is not None:
            self._server.should_exit = True
            await asyncio.gather(task, return_exceptions=True)


def bind(host: str, port: int) -> socket.socket:
    """Return a bound socket; port 0 takes a free one.

    Raises:
        PortError: Somebody else listens there, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        detail = f"cannot listen on {host} port {port}: {error.strerror}; stop what uses it or choose another --port"
        raise PortError(detail) from None
    return bound


def url_of(bound: socket.socket) -> str:
    """Return the http URL of a bound socket."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
