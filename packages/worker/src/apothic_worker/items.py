"""Items that generators yield: checked, because user code may speak on our socket, and kept within their window."""

from __future__ import annotations

import re
from collections import deque
from typing import Any

import msgspec

from apothic.wire.items import unpack_pickles
from apothic.wire.limits import ITEM_BATCH_MAX, ITEM_OVERHEAD, ITEM_WINDOW_BYTES
from apothic.wire.link import Items

_PYTHON = re.compile(r"3\.[0-9]{1,2}")
_decode = msgspec.json.Decoder(list[msgspec.Raw]).decode


class ItemWindow:
    """What one attempt has yielded and the server has not taken yet."""

    def __init__(self) -> None:
        self._next = 0
        self._waiting: deque[tuple[int, int]] = deque()
        self._bytes = 0

    def add(self, key: tuple[str, int], head: dict[str, Any], body: bytes) -> Items:
        """Return what an `items` frame reports.

        Raises:
            KeyError, ValueError, TypeError: The frame is forged: no batch, out of order, or beyond the window.
        """
        found = Items(*key, head["first"], head["count"], head["encoding"], body, head.get("python"))
        check(found)
        if found.first_ordinal != self._next:
            raise ValueError("a batch of items is out of order")
        weight = len(body) + ITEM_OVERHEAD * found.count
        self._next += found.count
        self._bytes += weight
        self._waiting.append((self._next, weight))
        if self._bytes > ITEM_WINDOW_BYTES + ITEM_BATCH_MAX:
            raise ValueError("more items than fit the window")
        return found

    def taken(self, upto: int) -> None:
        """The items below this ordinal are at the server."""
        while self._waiting and self._waiting[0][0] <= upto:
            self._bytes -= self._waiting.popleft()[1]


def check(batch: Items) -> None:
    """Refuse a batch whose data is not what it says.

    Raises:
        ValueError, TypeError: It is not.
    """
    if batch.encoding == "json":
        found = len(_decode(batch.data))
        is_array = batch.data[:1] == b"[" and batch.data[-1:] == b"]"
    elif batch.encoding == "pickle":
        found, is_array = len(unpack_pickles(batch.data)), True
    else:
        raise ValueError("unknown encoding of items")
    if not is_array or found != batch.count or found < 1 or len(batch.data) > ITEM_BATCH_MAX:
        raise ValueError("a batch of items does not hold what it says")
    check_python(batch.python)


def check_python(python: str | None) -> None:
    """Refuse what is neither None nor a `major.minor` of Python.

    Raises:
        ValueError, TypeError: It is neither.
    """
    if python is not None and not _PYTHON.fullmatch(python):
        raise ValueError("an encoded value names no version of Python")
