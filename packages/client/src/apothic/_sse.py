"""Server-sent events, without I/O: whole events out of bytes in any cut.

The reader is stricter than browsers, because only our server is on the other side: lines end with a line feed, an event
has exactly one `id` (its index), one `event` (its kind) and one line of `data`, and nothing is larger than a bound.
Comments and fields that are not known here are passed over.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from apothic.wire.limits import MIB

SSE_TYPE = "text/event-stream"
EVENT_MAX = 2 * MIB
"""Largest event in bytes; a result of `VALUE_MAX` as base64 text fits."""

_INDEX = re.compile(r"-1|0|[1-9][0-9]{0,18}")
_KNOWN = frozenset({"id", "event", "data"})


class MalformedEventError(ValueError):
    """The bytes are no event, or one that is too large."""


class Received(NamedTuple):
    """One event as it came; `data` is not decoded."""

    event_index: int
    kind: str
    data: str


class EventParser:
    """Gives whole events; use another one for another connection.

    Args:
        size_max: Largest event in bytes.
    """

    def __init__(self, *, size_max: int = EVENT_MAX) -> None:
        self._size_max = size_max
        self._rest = b""

    def feed(self, data: bytes) -> list[Received]:
        """Add received bytes and return the events that they complete, in order.

        Raises:
            MalformedEventError: The bytes are no events; nothing further can be read.
        """
        *blocks, self._rest = (self._rest + data).split(b"\n\n")
        if len(self._rest) > self._size_max:
            raise MalformedEventError(f"an event is larger than {self._size_max:,} bytes")
        found = [self._event(block) for block in blocks]
        return [event for event in found if event is not None]

    def _event(self, block: bytes) -> Received | None:
        """Return the event in `block`, None when it holds comments only."""
        if len(block) > self._size_max:
            raise MalformedEventError(f"an event is larger than {self._size_max:,} bytes")
        fields = _fields(block)
        if not fields:
            return None
        if len(fields) < len(_KNOWN):
            raise MalformedEventError("an event lacks its id, kind or data")
        if not _INDEX.fullmatch(fields["id"]) or not fields["event"]:
            raise MalformedEventError("an event has a malformed id or kind")
        return Received(int(fields["id"]), fields["event"], fields["data"])


def _fields(block: bytes) -> dict[str, str]:
    if b"\r" in block:
        raise MalformedEventError("a line ends with a carriage return")
    try:
        lines = block.decode().split("\n")
    except UnicodeDecodeError:
        raise MalformedEventError("an event is not UTF-8") from None
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if name in fields:
            raise MalformedEventError(f"an event has two lines {name!r}")
        if name in _KNOWN:
            fields[name] = value.removeprefix(" ")
    return fields
