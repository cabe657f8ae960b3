"""How far a chunk is: what became of its items so far, and what they wrote.

The runtime says both, and user code may speak in its place: nothing is believed that does not fit the order.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from apothic.wire import chunks
from apothic.wire.limits import CHUNK_ITEMS_MAX, CHUNK_OUTCOMES_MAX, CHUNK_OUTPUT_MAX, MIB, VALUE_MAX
from apothic.wire.link import Assign, ChunkOrder, ChunkResult, ItemOutput, LogLine
from apothic.wire.runner import error_to_json
from apothic_worker.failures import error_of_user
from apothic_worker.items import check_python
from apothic_worker.lines import AttemptLog, Clock

KEPT_OUTPUT_MAX = MIB
"""Bytes of output of one chunk that are kept; it was asked to end long before, so one item wrote most of it."""

_LINE_OVERHEAD = 64
_KINDS = frozenset((*chunks.ENCODINGS, chunks.ERROR))


def holds_its_items(order: Assign) -> bool:
    """Whether the arguments of an order are those of the items that it names; true when it names none."""
    if order.items is None:
        return True
    try:
        return 0 < order.items.count <= CHUNK_ITEMS_MAX and chunks.count(order.arguments.data) == order.items.count
    except ValueError:
        return False


class ChunkLog:
    """Output of the items of a chunk, by item; an attempt's log, of which nothing leaves before the end.

    What the runtime saw being printed has the number of its item. What came past it belongs to an item whose end is
    told next, so it is given to the last of these: that was the slow one.

    Args:
        clock: Stamps the lines.
        count: Items of the chunk.
        on_much: Called once when the output has grown to `CHUNK_OUTPUT_MAX`.
    """

    def __init__(self, clock: Clock, count: int, on_much: Callable[[], None]) -> None:
        self._count = count
        self._on_much = on_much
        self._printed, self._item = AttemptLog(clock), 0
        self._piped = AttemptLog(clock)
        self._loose: list[LogLine] = []
        self._kept: dict[int, list[LogLine]] = {}
        self._bytes = 0
        self._dropped = 0

    def print(self, item: int, stream: str, data: bytes) -> None:
        """Add what an item printed.

        Raises:
            ValueError: There is no such item.
        """
        if type(item) is not int or not 0 <= item < self._count:
            raise ValueError("output of an item that is none")
        if item != self._item:
            self._flush_printed()
            self._item = item
        if self._dropped:
            self._dropped += len(data)
            return
        self._printed.write(stream, data)
        self._keep(self._printed.take(), self._of(item))

    def write(self, stream: str, data: bytes) -> None:
        """Add bytes that the runtime did not see."""
        if self._dropped:
            self._dropped += len(data)
            return
        self._piped.write(stream, data)
        self._keep(self._piped.take(), self._loose)

    def note(self, text: str) -> None:
        """Add a remark of ours."""
        self._piped.note(text)

    def take(self) -> list[LogLine]:
        """Return nothing: the lines go with the end."""
        return []

    def close(self) -> list[LogLine]:
        """Return nothing: the lines go with the end."""
        return []

    def ended(self, last: int) -> None:
        """Items up to this one have ended: what the runtime did not see belongs to it."""
        self._keep(self._piped.close(), self._loose)
        if self._loose:
            self._of(last).extend(self._loose)
            self._loose = []

    def result(self, done: int) -> list[ItemOutput]:
        """Return what was written, by item, when so many items have ended."""
        self._flush_printed()
        self.ended(min(done, self._count - 1))
        found = {item: self._kept[item] for item in sorted(self._kept) if self._kept[item]}
        if self._dropped:
            text = f"{self._dropped} bytes of output dropped: items that are executed together keep {KEPT_OUTPUT_MAX}"
            lines = found[max(found)]
            lines.append(LogLine("system", lines[-1].at_ms, text))
        return [ItemOutput(item, sorted(lines, key=lambda line: line.at_ms)) for item, lines in found.items()]

    def _flush_printed(self) -> None:
        if lines := self._printed.close():
            self._keep(lines, self._of(self._item))

    def _of(self, item: int) -> list[LogLine]:
        return self._kept.setdefault(item, [])

    def _keep(self, lines: list[LogLine], into: list[LogLine]) -> None:
        for line in lines:
            size = len(line.text) + _LINE_OVERHEAD
            if self._bytes + size > KEPT_OUTPUT_MAX:
                self._dropped += len(line.text) + 1
                continue
            if self._bytes < CHUNK_OUTPUT_MAX <= self._bytes + size:
                self._on_much()
            self._bytes += size
            into.append(line)


@dataclass
class Chunk:
    """What became of the items of an order.

    Attributes:
        order: Which items.
        log: What they wrote.
        is_asked_back: The runtime was told to leave what it has not begun.
        done: Items that have ended.
    """

    order: ChunkOrder
    log: ChunkLog
    is_asked_back: bool = False
    done: int = 0
    _failed: list[int] = field(default_factory=list[int])
    _parts: list[bytes] = field(default_factory=list[bytes])
    _bytes: int = 0
    _python: str | None = None

    def add(self, head: dict[str, Any], body: bytes, *, may_stop: bool) -> bool:
        """Take a `done` frame; true when it is the last one.

        Args:
            head: Says how many items.
            body: Their outcomes.
            may_stop: Whether the chunk is being stopped, so that it may end before its last item.

        Raises:
            KeyError, ValueError, TypeError, AttributeError: User code forged it.
        """
        entries, is_last = chunks.unpack(body), head["is_last"]
        left = self.order.count - self.done - len(entries)
        last_size = len(entries[-1]) + chunks.ENTRY_OVERHEAD if entries else 0
        is_full = self._bytes + len(body) >= CHUNK_OUTCOMES_MAX
        if head["kind"] != "done" or head["count"] != len(entries) or left < 0 or type(is_last) is not bool:
            raise ValueError("outcomes of items that are none")
        if is_last != (left == 0) and not (is_last and (may_stop or is_full or self.is_asked_back)):
            raise ValueError("a chunk ends with its last item, unless it was asked to end before")
        if not (entries or is_last) or self._bytes + len(body) - last_size >= CHUNK_OUTCOMES_MAX:
            raise ValueError("outcomes that are too many or none")
        check_python(head["python"])
        self._python = head["python"] or self._python
        self._take(entries, body)
        return is_last

    def result(self) -> ChunkResult:
        """Return what is reported of the items."""
        output = self.log.result(self.done)
        return ChunkResult(self.done, self._failed, b"".join(self._parts), output, self._python)

    def _take(self, entries: list[bytes], body: bytes) -> None:
        kinds = {entry[:1] for entry in entries}
        if not kinds <= _KINDS or max(map(len, entries), default=0) > VALUE_MAX + 1:
            raise ValueError("an outcome of an item is none")
        if chunks.ERROR in kinds:
            body = chunks.pack(_checked(entry) if entry[:1] == chunks.ERROR else entry for entry in entries)
            self._failed += [self.done + n for n, entry in enumerate(entries) if entry[:1] == chunks.ERROR]
        if entries:
            self.done += len(entries)
            self.log.ended(self.done - 1)
            self._parts.append(body)
            self._bytes += len(body)


def _checked(entry: bytes) -> bytes:
    """Return the error of an item as user code may have it."""
    error = error_to_json(error_of_user(json.loads(entry[1:])))
    return chunks.ERROR + json.dumps(error, separators=(",", ":")).encode()
