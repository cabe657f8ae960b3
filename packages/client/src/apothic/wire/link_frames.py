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
_MASK_SIZE = 4
_SHORT_MAX, _MEDIUM, _LONG = 125, 126, 127
_SHORT_HEAD, _MEDIUM_HEAD, _LONG_HEAD = struct.Struct(">BB"), struct.Struct(">BBH"), struct.Struct(">BBQ")


class Cut(NamedTuple):
    """One frame of the other side: its bytes, and what it says when it is a whole binary message."""

    frame: bytes
    message: bytes | None


class FrameCutter:
    """Cuts what the other side sends after the handshake into frames.

    Args:
        size_max: Longest frame that is waited for, in bytes; what is announced to be longer is given on at once.
        of_client: The other side is a client, so its messages are masked; those of a server are not.
    """

    def __init__(self, *, size_max: int, of_client: bool) -> None:
        self._size_max = size_max
        self._masked = _MASKED if of_client else 0
        self._rest = bytearray()
        self._needed = 0

    def feed(self, data: bytes) -> list[Cut]:
        """Add bytes and return the frames that are whole now, in order."""
        if not self._rest and (start := self._start_of_one(data)):
            return [Cut(data, self._content(data, start, len(data)) if self._masked else data[start:])]
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
            is_message = data[at] == WHOLE_MESSAGE and data[at + 1] & _MASKED == self._masked
            found.append(Cut(data[at:end], self._content(data, start, end) if is_message else None))
            at = end
        return found

    def _content(self, data: bytes, start: int, end: int) -> bytes:
        if not self._masked:
            return data[start:end]
        return _masked(data[start + _MASK_SIZE : end], data[start : start + _MASK_SIZE])

    def _bounds(self, data: bytes, at: int) -> tuple[int, int]:
        """Return where a frame's content, with its mask, begins and ends as far as is known; 0 for one too long."""
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
        return start, start + length + (_MASK_SIZE if data[at + 1] & _MASKED else 0)

    def _start_of_one(self, data: bytes) -> int:
        """Return where the content begins when `data` is exactly one message below 64 KiB, as most are; else 0."""
        size = len(data)
        if size < 8 or data[0] != WHOLE_MESSAGE:
            return 0
        length = data[1] ^ self._masked
        start = 2 if length <= _SHORT_MAX else 4
        if length == _MEDIUM:
            length = data[2] << 8 | data[3]
        elif length > _SHORT_MAX:
            return 0
        return start if start + length + (_MASK_SIZE if self._masked else 0) == size else 0


def message_head(size: int) -> bytes:
    """Return the head of a server's frame with a whole binary message of `size` bytes."""
    return _head(size, 0)


def encode_message(message: bytes) -> bytes:
    """Return a client's frame with a whole binary message, masked as all that clients send."""
    mask = os.urandom(_MASK_SIZE)
    return _head(len(message), _MASKED) + mask + _masked(message, mask)


def _head(size: int, masked: int) -> bytes:
    if size <= _SHORT_MAX:
        return _SHORT_HEAD.pack(WHOLE_MESSAGE, masked | size)
    if size < 1 << 16:
        return _MEDIUM_HEAD.pack(WHOLE_MESSAGE, masked | _MEDIUM, size)
    return _LONG_HEAD.pack(WHOLE_MESSAGE, masked | _LONG, size)


def _masked(message: bytes, mask: bytes) -> bytes:
    """Return a message with its mask put on, or taken off."""
    size = len(message)
    key = int.from_bytes((mask * (size // _MASK_SIZE + 1))[:size], "little")
    return (int.from_bytes(message, "little") ^ key).to_bytes(size, "little")
