"""The socket through which the user code of one sandbox reaches the control plane, and who stands at it.

Each zygote has a folder of its own with a Unix socket in it. Who connects is told by the kernel: the process id of the
peer, as this process sees it, leads up to the runner it belongs to, however deep user code nested its own processes. A
process that belongs to no runner gets nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from pathlib import Path

from apothic.wire.limits import HEADER_BLOCK_MAX
from apothic_worker import journal
from apothic_worker.attempt import Caller
from apothic_worker.folders import remove
from apothic_worker.heads import Refused
from apothic_worker.processes import parent_of
from apothic_worker.relay import Connection, Relay

SOCKET = "api.sock"
BACKLOG = 128
ACCEPTS_MAX = 32
"""Connections taken in one go, before other work gets its turn."""

ACCEPT_PAUSE_S = 0.5
"""Rest after an accept that failed, for example because this process has no descriptor left."""

ANCESTORS_MAX = 1_000
_CREDENTIALS = struct.Struct("3i")


class Door:
    """Listens until closed.

    Args:
        folder: Made for it, mode 0700; shown to the sandbox, read-only.
    """

    def __init__(self, folder: Path, relay: Relay) -> None:
        self.folder = folder
        self._relay = relay
        self._loop = asyncio.get_running_loop()
        self._callers: dict[int, Caller] = {}
        self._open: dict[Caller, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        folder.mkdir(mode=0o700)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        bind_below(self._socket, folder, SOCKET)
        self._socket.listen(BACKLOG)
        self._loop.add_reader(self._socket.fileno(), self._acceptable)
        self._pause: asyncio.TimerHandle | None = None

    @property
    def path(self) -> Path:
        """The socket."""
        return self.folder / SOCKET

    def admit(self, pid: int, caller: Caller) -> None:
        """Know a runner by its first process, and forget those that are gone; they had no calls left."""
        self._callers = {known: other for known, other in self._callers.items() if parent_of(known)}
        self._callers[pid] = caller

    def close(self) -> None:
        """Close the socket and every connection, and remove the folder; closing twice is fine."""
        if self._pause is not None:
            self._pause.cancel()
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
        for task in self._tasks:
            task.cancel()
        remove(self.folder)

    def _acceptable(self) -> None:
        for _ in range(ACCEPTS_MAX):
            try:
                peer, _ = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                journal.warning("door.not_accepting", reason=str(error))
                self._loop.remove_reader(self._socket.fileno())
                self._pause = self._loop.call_later(ACCEPT_PAUSE_S, self._resume)
                return
            task = asyncio.ensure_future(self._serve(peer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _resume(self) -> None:
        self._loop.add_reader(self._socket.fileno(), self._acceptable)

    async def _serve(self, peer: socket.socket) -> None:
        caller = self.caller_of(peer_pid(peer))
        if caller is None:
            peer.close()
            return
        self._open[caller] = self._open.get(caller, 0) + 1
        try:
            await self._relay_for(caller, peer)
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]

    async def _relay_for(self, caller: Caller, peer: socket.socket) -> None:
        peer.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=peer, limit=HEADER_BLOCK_MAX)
        connection = Connection(self._relay, caller, reader, writer)
        try:
            if self._open[caller] > caller.connections_max:
                await connection.refuse(_crowded(caller.connections_max))
            else:
                await connection.serve()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def caller_of(self, pid: int) -> Caller | None:
        """Return the runner that a process belongs to, None for any other process."""
        for _ in range(ANCESTORS_MAX):
            caller = self._callers.get(pid)
            if caller is not None or pid <= 1:
                return caller
            pid = parent_of(pid)
        return None


def peer_pid(peer: socket.socket) -> int:
    """Return the process at the other end, as the kernel names it here."""
    return _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[0]


def bind_below(sock: socket.socket, folder: Path, name: str) -> None:
    """Bind below `folder` by its descriptor, so that a long path does not exceed what an address can hold."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.bind(f"/proc/self/fd/{descriptor}/{name}")
    finally:
        os.close(descriptor)


def _crowded(bound: int) -> Refused:
    detail = f"This runner has {bound} connections to the control plane open already; use fewer at once."
    return Refused(503, "too_many_connections", detail, is_retryable=True)
