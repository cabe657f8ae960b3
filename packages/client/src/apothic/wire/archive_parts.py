"""An archive told as parts of another one and new bytes: the body of an upload that sends only what changed.

One frame (`frames.py`): the head is `{"base": digest, "parts": [[offset, size], ...]}`, the body all new bytes in their
order. An offset is a place in the base; null takes the next new bytes. What is copied from the base comes in the order
in which it lies there, so that a server reads the base once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from apothic.wire.frames import FrameError, decode_frame, encode_frame
from apothic.wire.limits import ARCHIVE_PACKED_MAX, ARCHIVE_PARTS_MAX

PARTS_TYPE = "application/vnd.apothic.archive-parts"


class Part(NamedTuple):
    """A stretch of an archive.

    Attributes:
        offset: Where it lies in the base; None when it is new.
        size: Its bytes, at least one.
    """

    offset: int | None
    size: int


def encode_parts(base: str, parts: Sequence[Part], new: bytes) -> bytes:
    """Return the body of an upload; `new` holds the bytes of all new parts."""
    return encode_frame({"base": base, "parts": parts}, new)


def decode_parts(body: bytes) -> tuple[str, list[Part], bytes]:
    """Return the digest of the base as it was sent, the parts, and the new bytes.

    Raises:
        FrameError: The body is none, or its parts make no archive; the text says which rule they break.
    """
    head, new = decode_frame(body)
    if head.keys() != {"base", "parts"} or not isinstance(head["base"], str):
        raise FrameError("expected a head with base and parts")
    parts = _read(head["parts"])
    if sum(part.size for part in parts if part.offset is None) != len(new):
        raise FrameError("the new parts are not as long as the new bytes")
    if sum(part.size for part in parts) > ARCHIVE_PACKED_MAX:
        raise FrameError(f"the parts make more than {ARCHIVE_PACKED_MAX} bytes")
    end = 0
    for offset, size in parts:
        if offset is not None:
            if offset < end:
                raise FrameError("what is copied must come in the order of the base, nothing twice")
            end = offset + size
    return head["base"], parts, new


def _read(value: Any) -> list[Part]:
    pairs = cast("list[Any]", value) if isinstance(value, list) else []
    if not 0 < len(pairs) <= ARCHIVE_PARTS_MAX:
        raise FrameError(f"expected 1 to {ARCHIVE_PARTS_MAX} parts")
    return [_part(pair) for pair in pairs]


def _part(pair: Any) -> Part:
    values = cast("list[Any]", pair) if isinstance(pair, list) else []
    match values:
        case [offset, size] if _is_whole(size, 1) and (offset is None or _is_whole(offset, 0)):
            return Part(offset, size)
        case _:
            raise FrameError("expected each part as an offset or null and a size of at least 1")


def _is_whole(number: object, smallest: int) -> bool:
    return type(number) is int and smallest <= number <= ARCHIVE_PACKED_MAX
