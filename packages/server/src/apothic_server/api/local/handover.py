"""Takes and gives large values on a Unix socket (`apothic.wire.handover`)."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from apothic.wire.frames import FrameError, FrameReader, encode_frame
from apothic.wire.handover import HEAD_MAX, SILENCE_S_MAX, SOCKET
from apothic_server.api.shared.gate import authorise
from apothic_server.api.shared.services import Services
from apothic_server.domain.access import Actor, Audience, Policy
from apothic_server.domain.errors import PlatformError

AT_ONCE = 32
"""Connections served at once; further ones are refused, and their values take the way over HTTP."""

BACKLOG = 128
_READ = Policy(Audience.KEY, "jobs:read", attempts=True)
_WRITE = Policy(Audience.KEY, "jobs:write", attempts=True)

log = structlog.get_logger("apothic.handover")


class Handover:
    """Listens in the data folder from `start` to `stop`.

    Args:
        folder: The data folder; nobody else runs a server on it.
        services: Knows callers and values.
    """

    def __init__(self, folder: Path, services: Services) -> None:
        self.path = folder / SOCKET
        self._services = services
        self._tasks: set[asyncio.Task[None]] = set()
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Begin to listen; what an earlier server left is removed."""
        self.path.unlink(missing_ok=True)
        found = self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        folder = os.open(self.path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            found.bind(f"/proc/self/fd/{folder}/{SOCKET}")  # the folder's path may be longer than an address
        finally:
            os.close(folder)
        self.path.chmod(0o600)
        found.listen(BACKLOG)
        asyncio.get_running_loop().add_reader(found.fileno(), self._acceptable)

    async def stop(self) -> None:
        """Listen no more and end what is open; stopping twice is fine."""
        found, self._socket = self._socket, None
        if found is None:
            return
        asyncio.get_running_loop().remove_reader(found.fileno())
        found.close()
        self.path.unlink(missing_ok=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _acceptable(self) -> None:
        assert self._socket is not None
        try:
            peer, _ = self._socket.accept()
        except OSError:
            return
        peer.setblocking(False)
        if len(self._tasks) >= AT_ONCE:
            peer.close()
            return
        task = asyncio.ensure_future(self._serve(peer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, peer: socket.socket) -> None:
        with peer:
            try:
                await self._obey(peer)
            except PlatformError as error:
                log.info("handover.refused", code=error.code)
                with suppress(OSError):
                    peer.send(encode_frame({"kind": "refused", "code": error.code}))
            except (OSError, FrameError, KeyError, TypeError, ValueError, AttributeError) as error:
                log.info("handover.broken", reason=type(error).__name__)

    async def _obey(self, peer: socket.socket) -> None:
        head = await _head(peer)
        policy = _WRITE if head["kind"] == "put" else _READ
        headers = {b"authorization": head["authorization"].encode(), b"x-apothic-attempt": head["attempt"].encode()}
        actor = await authorise(policy, headers, self._services.authenticate)
        assert actor is not None
        if head["kind"] == "put":
            await self._put(actor, peer, int(head["size_bytes"]))
        elif head["kind"] == "open":
            lent = await self._services.values.lend(actor, str(head["sha256"]))
            try:
                answer = encode_frame({"kind": "file", "is_read_only": lent.is_read_only})
                socket.send_fds(peer, [answer], [lent.descriptor])
            finally:
                os.close(lent.descriptor)

    async def _put(self, actor: Actor, peer: socket.socket, size: int) -> None:
        if size < 1:
            raise ValueError("no size")
        values = self._services.values
        await values.check_room(actor, size)
        peer.send(encode_frame({"kind": "go"}))
        peer.settimeout(SILENCE_S_MAX)
        taking = asyncio.ensure_future(values.take(actor, lambda view: _read(peer, view), size_bytes=size))
        try:
            sha256 = await asyncio.shield(taking)
        except asyncio.CancelledError:
            with suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for bytes
            await asyncio.gather(taking, return_exceptions=True)
            raise
        peer.send(encode_frame({"kind": "stored", "sha256": sha256, "size_bytes": size}))


def _read(peer: socket.socket, view: memoryview) -> int:
    """Return how many bytes came into `view`; none also when the sender is silent or gone."""
    try:
        return peer.recv_into(view)
    except OSError:
        return 0


async def _head(peer: socket.socket) -> dict[str, Any]:
    loop, frames = asyncio.get_running_loop(), FrameReader(size_max=HEAD_MAX)
    async with asyncio.timeout(SILENCE_S_MAX):
        while True:
            data = await loop.sock_recv(peer, HEAD_MAX)
            if not data:
                raise FrameError("no frame")
            heads = frames.feed(data)
            if heads:
                return heads[0][0]
