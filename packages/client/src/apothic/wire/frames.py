"""Length-prefixed frames with a JSON head: the shape of call bodies, streamed outcomes and runner messages.

    u32 size of all that follows | u32 size of the head | head, a JSON object in UTF-8 | body, raw bytes

Both numbers are big-endian. A frame is self-contained: a reader needs no other state than the bytes not used yet.
"""

from __future__ import annotations

import struct
from typing import Any

from apothic.wire.compact_json import encoder, from_text

_SIZES = struct.Struct(">II")
_to_text = encoder()
PREFIX = _SIZES.size
HEAD_MAX = 256 * 1024


class FrameError(ValueError):
    """The bytes are not a frame: a size is impossible or the head is not a JSON object."""


def encode_frame(head: dict[str, Any], body: bytes = b"") -> bytes:
    """Return one frame. `head` must be JSON; `body` is carried as it is."""
    text = _to_text(head).encode()
    return b"".join((_SIZES.pack(4 + len(text) + len(body), len(text)), text, body))


def join_frame(head: bytes, body: bytes = b"") -> bytes:
    """Return one frame whose head is JSON text already."""
    return b"".join((_SIZES.pack(4 + len(head) + len(body), len(head)), head, body))


def decode_frame(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return head and body of `data`, which must be exactly one frame.

    Raises:
        FrameError: `data` is anything else.
    """
    head, body = split_frame(data)
    return _head(head), body


def split_frame(data: bytes) -> tuple[bytes, bytes]:
    """Return the head of exactly one frame as it is, and its body.

    Raises:
        FrameError: The sizes are not those of one frame.
    """
    if len(data) < PREFIX:
        raise FrameError("expected exactly one frame")
    size, head_size = _SIZES.unpack_from(data)
    if size + 4 != len(data) or head_size > HEAD_MAX or head_size + 4 > size:
        raise FrameError("expected exactly one frame")
    head_end = PREFIX + head_size
    return data[PREFIX:head_end], data[head_end:]


class FrameReader:
    """Cuts a byte stream into frames.

    Args:
        size_max: Largest frame accepted, in bytes; a larger announced size raises at once.
    """

    def __init__(self, *, size_max: int) -> None:
        self._size_max = size_max
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes received that do not make a whole frame yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[tuple[dict[str, Any], bytes]]:
        """Add bytes and return the frames completed by them, in order.

        Raises:
            FrameError: A size is impossible or a head is not a JSON object; the stream cannot be used further.
        """
        buffer = self._buffer
        if not buffer and PREFIX <= len(data) <= self._size_max and _SIZES.unpack_from(data)[0] + 4 == len(data):
            return [decode_frame(data)]  # as most pieces are that come over a quiet connection
        buffer += data
        found: list[tuple[dict[str, Any], bytes]] = []
        start = 0
        while len(buffer) - start >= PREFIX:
            size, head_size = _SIZES.unpack_from(buffer, start)
            if size + 4 > self._size_max or head_size > HEAD_MAX or head_size + 4 > size:
                raise FrameError("impossible frame size")
            end = start + 4 + size
            if len(buffer) < end:
                break
            head_end = start + PREFIX + head_size
            found.append((_head(bytes(buffer[start + PREFIX : head_end])), bytes(buffer[head_end:end])))
            start = end
        del buffer[:start]
        return found


def _head(data: bytes) -> dict[str, Any]:
    try:
        head: Any = from_text(data.decode())
    except (ValueError, RecursionError) as error:
        raise FrameError("the head is not JSON") from error
    if not isinstance(head, dict):
        raise FrameError("the head is not a JSON object")
    return head  # pyright: ignore[reportUnknownVariableType]
