"""Whole messages as WebSocket frames, which nearly all that passes a link is: cut and made without a protocol machine.

A frame that is anything else (control, fragment, text, too long, malformed) is left to the machine as it came.
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

WHOLE_MESSAGE = 0x82
"""First byte of a binary message in one frame."""

_MASKED = 0x80
_SHORT_MAX, _MEDIUM = 125, 126
_MEDIUM_HEAD, _LONG_HEAD = struct.Struct(">BBH"), struct.Struct(">BBQ")


class Cut(NamedTuple):
    """One frame of the other side: its bytes, and what it says when it is a whole binary message."""

    frame: bytes
    message: bytes | None


class FrameCutter:
    """Cuts what a server sends after the handshake into frames.

    Args:
        size_max: Longest frame that is waited for, in bytes; what is announced to be longer is given on at once.
    """

    def __init__(self, *, size_max: int) -> None:
        self._size_max = size_max
        self._rest = bytearray()
        self._needed = 0

    def feed(self, data: bytes) -> list[Cut]:
        """Add bytes and return the frames that are whole now, in order."""
        if not self._rest and (start := _start_of_one(data)):
            return [Cut(data, data[start:])]
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return []
            data = bytes(self._rest)
            self._rest.clear()
        found: list[Cut] = []
        at, size = 0, len(data)
        while at < size:
            start, end = self._bounds(data, at)
            if end < start:
                found.append(Cut(data[at:], None))
                return found
            if end > size:
                self._rest += data[at:]
                self._needed = end - at
                return found
            is_message = data[at] == WHOLE_MESSAGE and not data[at + 1] & _MASKED
            found.append(Cut(data[at:end], data[start:end] if is_message else None))
            at = end
        return found

    def _bounds(self, data: bytes, at: int) -> tuple[int, int]:
        """Return where the content of a frame begins and ends, as far as it is known; the end is 0 for one too long."""
        if len(data) < at + 2:
            return at, at + 2
        length, start = data[at + 1] & ~_MASKED, at + 2
        if length > _SHORT_MAX:
            start += 2 if length == _MEDIUM else 8
            if len(data) < start:
                return at, start
            length = int.from_bytes(data[at + 2 : start], "big")
        if length > self._size_max:
            return start, 0
        return start, start + length + (4 if data[at + 1] & _MASKED else 0)


def _start_of_one(data: bytes) -> int:
    """Return where the content begins when `data` is exactly one message of less than 64 KiB, as most are; else 0."""
    size = len(data)
    if size < 4 or data[0] != WHOLE_MESSAGE:
        return 0
    length = data[1]
    if length <= _SHORT_MAX:
        return 2 if length == size - 2 else 0
    return 4 if length == _MEDIUM and data[2] << 8 | data[3] == size - 4 else 0


def encode_message(message: bytes) -> bytes:
    """Return a client's frame with a whole binary message, masked as all that clients send."""
    size, mask = len(message), os.urandom(4)
    if size <= _SHORT_MAX:
        head = bytes((WHOLE_MESSAGE, _MASKED | size))
    elif size < 1 << 16:
        head = _MEDIUM_HEAD.pack(WHOLE_MESSAGE, _MASKED | _MEDIUM, size)
    else:
        head = _LONG_HEAD.pack(WHOLE_MESSAGE, _MASKED | _MEDIUM + 1, size)
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "little")
    return head + mask + (int.from_bytes(message, "little") ^ key).to_bytes(size, "little")
