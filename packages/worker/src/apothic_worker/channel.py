"""The worker's end of a runner's socket: frames in and out without waiting, and the peer's process id."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any

from apothic.wire.frames import HEAD_MAX, PREFIX, FrameError, FrameReader, encode_frame
from apothic.wire.limits import VALUE_MAX
from apothic_worker.output import waiting

Frame = tuple[dict[str, Any], bytes]
FRAME_MAX = VALUE_MAX + HEAD_MAX + PREFIX
_READ_MAX = 64 * 1024
_CREDENTIALS = struct.Struct("iII")


class Channel:
    """One stream socket driven by the loop.

    Args:
        on_frame: Called with each frame in order.
        on_end: Called once when the other side closed it or broke the framing.
    """

    def __init__(self, on_frame: Callable[[Frame], None], on_end: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_frame = on_frame
        self._on_end = on_end
        self._frames = FrameReader(size_max=FRAME_MAX)
        self._unsent = bytearray()
        self._socket, self.peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._is_open = True
        self._is_over = False
        self._received = 0
        self.peer_pid: int | None = None
        """The sender of the first bytes, as this process sees it: the kernel says so, not the runner."""
        self._loop.add_reader(self._socket.fileno(), self._readable)

    def send(self, head: dict[str, Any], body: bytes = b"") -> None:
        """Send one frame; what does not fit now follows when it does."""
        if not self._is_open:
            return
        data = encode_frame(head, body)
        if self._unsent:
            self._unsent += data
            return
        sent = self._try_send(data)
        if sent < len(data) and self._is_open:
            self._unsent += data[sent:]
            self._loop.add_writer(self._socket.fileno(), self._writable)

    def drain(self) -> None:
        """Take what has been sent so far; for a peer that is gone. Whoever sends in its place is not waited for."""
        left = waiting(self._socket.fileno()) if self._is_open else 0
        while left > 0 and self._is_open and not self._is_over:
            self._received = 0
            self._readable()
            if not self._received:
                return
            left -= self._received

    def close(self) -> None:
        """Close this end; nothing is called afterwards."""
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()
        self.peer.close()

    def _try_send(self, data: bytes | bytearray) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)

    def _writable(self) -> None:
        del self._unsent[: self._try_send(self._unsent)]
        if not self._unsent:
            self._loop.remove_writer(self._socket.fileno())

    def _readable(self) -> None:
        try:
            data = self._receive()
            frames = self._frames.feed(data)
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, FrameError):
            data, frames = b"", []
        self._received = len(data)
        for frame in frames:
            if self._is_open:
                self._on_frame(frame)
        if not data and self._is_open and not self._is_over:
            self._is_over = True
            self._loop.remove_reader(self._socket.fileno())
            self._on_end()

    def _receive(self) -> bytes:
        if self.peer_pid is not None:
            return self._socket.recv(_READ_MAX)
        data, ancillary, _, _ = self._socket.recvmsg(_READ_MAX, socket.CMSG_SPACE(_CREDENTIALS.size))
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                self.peer_pid = _CREDENTIALS.unpack(content[: _CREDENTIALS.size])[0]
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
        return data
