"""The outcomes of a group's items, without I/O: read in the order of their ends, each taken once.

One streamed answer carries them. When it breaks, it is asked for again from the first item that is missing; what comes
a second time is passed over. It may be read while inputs are still being sent, on a connection of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from apothic._calls import SILENCE_S_MAX, finish, parsed
from apothic._connection import Answer
from apothic._core import Core, Lost
from apothic._exchange import RESUMES_MAX, open_stream
from apothic._groups import GroupInfo
from apothic._http import Request
from apothic._operations import part, target
from apothic._parse import build
from apothic._steps import Pause, Steps
from apothic.errors import CloudNotRunning, ConnectionLostError, JobTimeoutError, ProtocolError, UnavailableError
from apothic.wire import chunks
from apothic.wire.frames import HEAD_MAX, PREFIX, FrameReader
from apothic.wire.limits import GROUP_ITEMS_MAX, MIB
from apothic.wire.values import OUTCOMES_TYPE

READY_S = 0.001
"""How long a look at what has come waits for it."""

_FRAME_MAX = PREFIX + HEAD_MAX + 16 * MIB
_READY_PIECES_MAX = 64

Take = Callable[[int, bytes, "str | None"], None]
"""Takes the outcome of one item: its number, its entry (`apothic.wire.chunks`), and which Python a pickle needs."""


class OutcomeReader:
    """Gives each outcome of one group to `take`, once.

    Args:
        deadline: When reading ends with an error, on the core's clock.
        timeout_s: What that error says.

    Attributes:
        end: The group as it ended; None until then.
    """

    def __init__(self, core: Core, group_id: str, take: Take, deadline: float, timeout_s: float) -> None:
        self.end: GroupInfo | None = None
        self._core = core
        self._group_id = group_id
        self._take = take
        self._deadline = deadline
        self._timeout_s = timeout_s
        self._seen = bytearray()
        self._answer: Answer | None = None
        self._frames = FrameReader(size_max=_FRAME_MAX)
        self._losses = 0

    def more(self, patience_s: float = math.inf) -> Steps[bool]:
        """Take what comes next; False when the group has ended. Returns too when nothing came within `patience_s`.

        Raises:
            JobTimeoutError: The deadline passed; the group goes on.
            UnavailableError: The outcomes could not be read on.
            ProtocolError: What came are no outcomes.
        """
        began_at = self._core.clock()
        while self.end is None:
            left_s = patience_s - (self._core.clock() - began_at)
            if left_s <= 0 < patience_s:
                return True
            try:
                answer = yield from self._opened()
                data = yield from self._receive(answer, left_s)
                if data is None:
                    return True
                self._losses = 0
                if self._took(data):
                    break
            except Lost as lost:
                self.close()
                yield from self._pause(lost)
            except (CloudNotRunning, ConnectionLostError, UnavailableError) as error:
                raise self._given_up(error) from error
        if self.end is not None and self._answer is not None:
            yield from finish(self._answer)
            self.close()
        return self.end is None

    def take_ready(self) -> Steps[None]:
        """Take what has come already."""
        for _ in range(_READY_PIECES_MAX):
            if self.end is not None:
                return
            answer = yield from self._opened()
            try:
                data = yield from answer.read(READY_S)
            except (Lost, TimeoutError) as error:
                if isinstance(error, Lost):
                    self.close()
                return
            if not data:
                self.close()
                return
            self._took(data)

    def missing(self) -> Iterator[int]:
        """Yield the numbers of the items that got no outcome before the group ended."""
        items = 0 if self.end is None else self.end.items
        self._reach(items)
        place = self._seen.find(0)
        while 0 <= place < items:
            yield place
            place = self._seen.find(0, place + 1)

    def expired(self) -> JobTimeoutError:
        """Return the error for reading that ended before the group."""
        limit = f"within {self._timeout_s:g} s" if self._timeout_s else "yet"
        return JobTimeoutError(f"{self._group_id} has not ended {limit}; it goes on.", job_id=self._group_id)

    def close(self) -> None:
        """Close the connection, so that the server sees that nobody reads any more; twice is fine."""
        if self._answer is not None:
            self._answer.close_unless_finished()
            self._answer = None

    def _opened(self) -> Steps[Answer]:
        if self._answer is None:
            first = self._seen.find(0)
            begin = str(len(self._seen) if first < 0 else first)
            path = target(self._core, f"/v1/groups/{part(self._group_id)}/outcomes", {"from": begin})
            request = Request("GET", path, (("Accept", OUTCOMES_TYPE),), is_repeatable=True)
            self._answer = yield from open_stream(
                self._core, request, self._deadline, tries_max=RESUMES_MAX, content_type=OUTCOMES_TYPE
            )
            self._frames = FrameReader(size_max=_FRAME_MAX)
        return self._answer

    def _receive(self, answer: Answer, patience_s: float) -> Steps[bytes | None]:
        """Return the next bytes; None when none came within `patience_s`.

        Raises:
            Lost: The stream broke or was silent for too long.
        """
        left_s = self._deadline - self._core.clock()
        if left_s <= 0:
            raise self.expired()
        wait_s = min(left_s, patience_s, SILENCE_S_MAX)
        try:
            data = yield from answer.read(max(READY_S, wait_s))
        except TimeoutError as error:
            if self._core.clock() >= self._deadline:
                raise self.expired() from None
            if patience_s <= SILENCE_S_MAX:
                return None
            raise Lost(error, was_sent=True) from None
        if not data:
            raise Lost(ConnectionResetError("the stream ended before the group"), was_sent=True)
        return data

    def _took(self, data: bytes) -> bool:
        """Take what the bytes complete; False when that is nothing."""
        found = False
        for head, body in parsed(self._frames.feed, data):
            kind = head.get("kind")
            if kind == "outcomes":
                parsed(self._take_all, head, body)
            elif kind == "end":
                self.end = build(GroupInfo, head.get("group"))
            elif kind != "keep_alive":
                raise ProtocolError(f"The server's stream does not fit: an unknown record {str(kind)[:40]!r}.")
            found = found or kind != "keep_alive"
        return found

    def _take_all(self, head: dict[str, Any], body: bytes) -> None:
        entries = chunks.unpack(body)
        python = head.get("python")
        numbers = _numbers(head, len(entries))
        self._reach(max(numbers, default=-1) + 1)
        for number, entry in zip(numbers, entries, strict=True):
            if not self._seen[number]:
                self._seen[number] = 1
                self._take(number, entry, python)

    def _reach(self, items: int) -> None:
        """Make room for the marks of so many items."""
        if len(self._seen) < items:
            self._seen.extend(bytes(items - len(self._seen)))

    def _pause(self, lost: Lost) -> Steps[None]:
        self._losses += 1
        if self._losses >= RESUMES_MAX:
            text = f"The outcomes of {self._group_id} break off again and again: {lost.cause}. It may go on."
            raise UnavailableError(text) from lost.cause
        pause_s = self._core.pause_s(self._losses)
        if self._core.clock() + pause_s >= self._deadline:
            raise self.expired()
        yield Pause(pause_s)

    def _given_up(self, error: CloudNotRunning | ConnectionLostError | UnavailableError) -> Exception:
        if self._core.clock() >= self._deadline:
            return self.expired()
        return type(error)(f"{error} ({self._group_id} may go on.)", code=error.code, retryable=error.retryable)


def _numbers(head: dict[str, Any], count: int) -> list[int] | range:
    """Return the numbers of the items that a record is about."""
    numbers: list[int] | range
    numbers = head["indexes"] if "indexes" in head else range(head["first"], head["first"] + head["count"])
    if len(numbers) != count or not (isinstance(numbers, range) or {type(number) for number in numbers} <= {int}):
        raise ValueError("numbers and outcomes of items do not fit")
    if count and not 0 <= min(numbers) <= max(numbers) < GROUP_ITEMS_MAX:
        raise ValueError("a number of an item is impossible")
    return numbers
