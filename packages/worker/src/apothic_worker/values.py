"""Large values on this machine: arguments fetched once for the runners of a zygote, results uploaded from files.

Every file is one without a name in the scratch folder, so none is left behind however this process ends. Runners get
descriptors over the socket `values.sock` beside the one to the control plane; requests are made as their attempts, and
what ends an attempt ends its transfers (`apothic_worker.transfers`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from apothic.wire.attempts import VALUES_SOCKET
from apothic.wire.frames import FrameError, decode_frame, encode_frame
from apothic.wire.large import Reference
from apothic_worker import journal
from apothic_worker.attempt import Caller, Key
from apothic_worker.door import BACKLOG, Door, bind_below, peer_pid
from apothic_worker.handover import Handover
from apothic_worker.transfers import TransferRefused, Transfers

KEPT_BYTES_MAX = 8 * 1024**3
"""Fetched values beyond this are forgotten, those used longest ago first; runners that have one keep it."""

AT_ONCE = 16
PER_CALLER_MAX = 16
MESSAGE_MAX = 4096


class Values:
    """The files, and the threads that move them.

    Args:
        scratch: Folder on a disk; nothing in it gets a name.
        transfers: Moves what has to come here or to go.
        handover: Takes and gives values when the server is on this machine.
        floor_bytes: A value is not fetched when less than this would be free on the disk afterwards.
    """

    def __init__(self, scratch: Path, transfers: Transfers, handover: Handover, *, floor_bytes: int = 0) -> None:
        self._scratch = scratch
        self._transfers = transfers
        self._handover = handover
        self._floor_bytes = floor_bytes
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="values")
        self._kept: OrderedDict[tuple[Door, str], tuple[int, int]] = OrderedDict()
        self._locks: dict[tuple[Door, str], asyncio.Lock] = {}

    async def open(self, door: Door, attempt: Key, reference: Reference, stop: threading.Event) -> int:
        """Return a read-only descriptor of a value for runners behind a door, which all belong to one org.

        Raises:
            TransferRefused: There is no such value, or no room for it.
        """
        key = (door, reference.sha256)
        async with self._locks.setdefault(key, asyncio.Lock()):
            if key not in self._kept:
                descriptor = await self._run(self._fetch, attempt, reference, stop)
                self._kept[key] = (descriptor, reference.size_bytes)
            self._kept.move_to_end(key)
        self._locks.pop(key, None)
        descriptor = os.open(f"/proc/self/fd/{self._kept[key][0]}", os.O_RDONLY | os.O_CLOEXEC)
        self._forget_beyond(KEPT_BYTES_MAX)
        return descriptor

    def make(self) -> int:
        """Return the descriptor of a new file."""
        return os.open(self._scratch, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)

    async def connect(self, attempt: Key, size_bytes: int) -> int | None:
        """Return a connection on which the server waits for a value of an attempt; None when there is none."""
        return await self._run(self._handover.connect, attempt, size_bytes)

    async def upload(self, descriptor: int, attempt: Key, reference: Reference, stop: threading.Event) -> None:
        """Upload the bytes of a file, which a runner may have written wrongly: the control plane compares the digest.

        Raises:
            TransferRefused: It does not take them.
        """
        await self._run(self._transfers.send, descriptor, attempt, reference, stop)

    def forget(self, door: Door) -> None:
        """Forget what was fetched for the runners behind a door."""
        for key in [key for key in self._kept if key[0] is door]:
            os.close(self._kept.pop(key)[0])

    async def _run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def _forget_beyond(self, size_max: int) -> None:
        while len(self._kept) > 1 and sum(size for _, size in self._kept.values()) > size_max:
            _, (descriptor, _) = self._kept.popitem(last=False)
            os.close(descriptor)

    def _make_for(self, reference: Reference) -> int:
        free = os.statvfs(self._scratch)
        if free.f_bavail * free.f_frsize - reference.size_bytes < self._floor_bytes:
            raise TransferRefused("the disk of this machine has no room for the value")
        return self.make()

    def _fetch(self, attempt: Key, reference: Reference, stop: threading.Event) -> int:
        handed = self._handover.open(attempt, reference, lambda: self._make_for(reference))
        if handed is not None:
            return handed
        descriptor = self._make_for(reference)
        try:
            self._transfers.fetch(descriptor, attempt, reference, stop)
            os.fchmod(descriptor, 0o400)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


class ValuesDoor:
    """The socket of one zygote's runners for large values; beside its door, whose callers may use it.

    Each connection is for one value: `open` answers a file with it; `send` answers a connection to the server to send
    it on, or nothing; `make` answers an empty file, which `upload` on the same connection uploads.
    """

    def __init__(self, door: Door, values: Values) -> None:
        self._door = door
        self._values = values
        self._loop = asyncio.get_running_loop()
        self._open: dict[Caller, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        bind_below(self._socket, door.folder, VALUES_SOCKET)
        self._socket.listen(BACKLOG)
        self._loop.add_reader(self._socket.fileno(), self._acceptable)

    def close(self) -> None:
        """Close the socket and every connection; closing twice is fine."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
        for task in self._tasks:
            task.cancel()
        self._values.forget(self._door)

    def _acceptable(self) -> None:
        try:
            peer, _ = self._socket.accept()
        except OSError as error:
            if not isinstance(error, BlockingIOError):
                journal.warning("values.not_accepting", reason=str(error))
            return
        peer.setblocking(False)
        task = asyncio.ensure_future(self._serve(peer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, peer: socket.socket) -> None:
        with peer:
            caller = self._door.caller_of(peer_pid(peer))
            if caller is None or self._open.get(caller, 0) >= PER_CALLER_MAX:
                return
            self._open[caller] = self._open.get(caller, 0) + 1
            try:
                await self._obey(caller, peer)
            except (OSError, FrameError, ValueError, KeyError, TypeError) as error:
                journal.warning("values.broken", reason=repr(error))
            finally:
                self._open[caller] -= 1
                if not self._open[caller]:
                    del self._open[caller]

    async def _obey(self, caller: Caller, peer: socket.socket) -> None:
        made: int | None = None
        try:
            while data := await self._loop.sock_recv(peer, MESSAGE_MAX):
                head = decode_frame(data)[0]
                attempt = caller.attempt_of(str(head.get("call") or ""))
                if attempt is None:
                    _answer(peer, {"kind": "refused", "reason": "no call that runs asks for this value"})
                    return
                if head["kind"] == "send":
                    stream = await self._values.connect(attempt, int(head["size_bytes"]))
                    try:
                        _answer(peer, {"kind": "done"}, *([] if stream is None else [stream]))
                    finally:
                        if stream is not None:
                            os.close(stream)
                    continue
                if head["kind"] == "make" and made is None:
                    made = self._values.make()
                    _answer(peer, {"kind": "done"}, made)
                    continue
                reference = Reference.parse(f"{head['sha256']} {head['size_bytes']}".encode())
                try:
                    await self._transfer(peer, str(head["kind"]), made, attempt, reference)
                except TransferRefused as refused:
                    _answer(peer, {"kind": "refused", "reason": str(refused)})
        finally:
            if made is not None:
                os.close(made)

    async def _transfer(
        self, peer: socket.socket, kind: str, made: int | None, attempt: Key, reference: Reference
    ) -> None:
        stop = threading.Event()
        gone = asyncio.ensure_future(self._loop.sock_recv(peer, 1))
        gone.add_done_callback(lambda _: stop.set())
        try:
            if kind == "upload" and made is not None:
                await self._values.upload(made, attempt, reference, stop)
                _answer(peer, {"kind": "done"})
            elif kind == "open":
                descriptor = await self._values.open(self._door, attempt, reference, stop)
                try:
                    _answer(peer, {"kind": "done"}, descriptor)
                finally:
                    os.close(descriptor)
            else:
                raise ValueError("unexpected message about a large value")
        finally:
            gone.cancel()
            stop.set()
            await asyncio.gather(gone, return_exceptions=True)


def _answer(peer: socket.socket, head: dict[str, Any], *descriptors: int) -> None:
    with contextlib.suppress(BlockingIOError, BrokenPipeError):
        socket.send_fds(peer, [encode_frame(head)], descriptors)
