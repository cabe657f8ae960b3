"""The runner's connection to its worker: frames in, frames out."""

from __future__ import annotations

import socket
import threading
from collections import deque
from typing import Any

from apothic.wire.frames import HEAD_MAX, PREFIX, FrameError, FrameReader, encode_frame
from apothic.wire.limits import VALUE_MAX

Frame = tuple[dict[str, Any], bytes]

_FRAME_MAX = VALUE_MAX + HEAD_MAX + PREFIX
_RECEIVE_MAX = 64 * 1024
"""Larger ones would be mapped into memory and unmapped again at each call."""

_OF_CALL = ("items_taken", "take_back")


class Channel:
    """A stream socket that carries frames. One thread receives; any thread may send."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._frames = FrameReader(size_max=_FRAME_MAX)
        self._ready: deque[Frame] = deque()
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """Descriptor to wait on for `receive_ready`."""
        return self._sock.fileno()

    def send(self, head: dict[str, Any], body: bytes = b"") -> None:
        """Send one frame; blocks while the worker does not read.

        Raises:
            OSError: The worker is gone, or user code closed the socket.
        """
        frame = encode_frame(head, body)
        with self._lock:
            self._sock.sendall(frame)

    def receive(self) -> Frame | None:
        """Wait for the next frame; None when the worker closed the connection or it is unusable."""
        while not self._ready:
            if not self._read(0):
                return None
        return self._ready.popleft()

    def receive_ready(self) -> list[Frame] | None:
        """Return the frames that are here already, without waiting; None when the connection is over."""
        if not self._read(socket.MSG_DONTWAIT):
            return None
        frames = list(self._ready)
        self._ready.clear()
        return frames

    def receive_of_call(self, *, wait: bool) -> list[dict[str, Any]]:
        """Return the heads of the `items_taken` and `take_back` frames that are here; others stay for `receive`.

        Args:
            wait: Wait until something comes.

        Raises:
            ConnectionResetError: The connection is over.
        """
        if not self._read(0 if wait else socket.MSG_DONTWAIT):
            raise ConnectionResetError("the worker closed the connection")
        if not self._ready:
            return []
        found = [head for head, _ in self._ready if head.get("kind") in _OF_CALL]
        if found:
            self._ready = deque(frame for frame in self._ready if frame[0].get("kind") not in _OF_CALL)
        return found

    def _read(self, flags: int) -> bool:
        try:
            data = self._sock.recv(_RECEIVE_MAX, flags)
        except BlockingIOError:
            return True
        except OSError:
            return False
        try:
            self._ready.extend(self._frames.feed(data))
        except FrameError:
            return False
        return bool(data)
