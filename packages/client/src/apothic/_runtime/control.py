"""The zygote's connection to its worker: one message is one frame; descriptors travel beside it."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Any

from apothic.wire.frames import FrameError, decode_frame, encode_frame

_MESSAGE_MAX = 64 * 1024
_DESCRIPTORS_MAX = 8


@dataclass(frozen=True)
class Message:
    """A frame of the worker.

    Attributes:
        head: The frame's head; `kind` says what it is.
        descriptors: Descriptors that came with it, closed on exec; whoever takes the message closes them.
    """

    head: dict[str, Any]
    descriptors: list[int]

    def close(self) -> None:
        """Close the descriptors."""
        for descriptor in self.descriptors:
            os.close(descriptor)


class Control:
    """The control socket: `SOCK_SEQPACKET`, so messages keep their bounds."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._sock = socket.socket(fileno=descriptor)

    def fileno(self) -> int:
        """Descriptor to wait on for `receive`."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close this process's end."""
        self._sock.close()

    def send(self, **head: Any) -> None:
        """Send one message; a worker that is gone is noticed by `receive`."""
        try:
            self._sock.send(encode_frame(head))
        except OSError:
            return

    def receive(self) -> Message | None:
        """Return the next message; None when the worker is gone or does not speak the protocol."""
        try:
            data, descriptors, _, _ = socket.recv_fds(
                self._sock, _MESSAGE_MAX, _DESCRIPTORS_MAX, socket.MSG_CMSG_CLOEXEC
            )
            return Message(decode_frame(data)[0], descriptors) if data else None
        except (OSError, FrameError):
            return None
