"""A function called for many items, without I/O: inputs sent in segments as they are made, outcomes read meanwhile.

The group is made when its first segment leaves, so that a first item that cannot be sent costs nothing. Inputs are
never collected: a segment leaves when it is full, or when making items takes long. While the server has no room for
more, outcomes are read. A group whose inputs were not all sent can never end; who leaves it so cancels it, unless it
has a key by which it is found again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

from apothic import _groups
from apothic._connection import INTERRUPT_GRACE_S
from apothic._core import Core
from apothic._exchange import RESUMES_MAX, failure, perform
from apothic._groups import GroupInfo, checked_key, checked_stop
from apothic._http import Request, Response
from apothic._operations import read
from apothic._outcomes import OutcomeReader, Take
from apothic._ranges import seconds
from apothic._results import encode_item
from apothic._steps import Pause, Say, Steps
from apothic.errors import (
    ApothicError,
    CloudNotRunning,
    ConnectionLostError,
    InvalidRequestError,
    JobTimeoutError,
    UnavailableError,
)
from apothic.wire import chunks
from apothic.wire.limits import CHUNK_INPUTS_MAX, CHUNK_ITEMS_MAX

SEND_AFTER_S = 0.02
"""A segment that is not full leaves when making its items took so long."""

LOOK_AFTER_S = 0.05
"""Pause between looks at outcomes while inputs are sent."""

ROOM_S_MAX = 5.0
"""Longest pause before inputs are offered again that the server had no room for."""

_OUT_OF_REACH = (UnavailableError, ConnectionLostError, CloudNotRunning)


class Wishes(NamedTuple):
    """What callers may say about a map, checked.

    Attributes:
        spread: Each item holds all positional arguments.
        key: Finds the group again; None for none.
        stop_after: Failed items after which the group is cancelled; None for no such limit.
        timeout_s: Bound of all the sending and waiting; infinity for none.
    """

    spread: bool = False
    key: str | None = None
    stop_after: int | None = None
    timeout_s: float = float("inf")

    @staticmethod
    def of(*, spread: bool, key: Any, stop_after: Any, timeout_s: Any) -> Wishes:
        """Return checked wishes; InvalidRequestError when one is malformed."""
        return Wishes(spread, checked_key(key), checked_stop(stop_after), seconds("timeout_s", timeout_s))


class Segment(NamedTuple):
    """Packed inputs of consecutive items."""

    first: int
    items: int
    data: bytes
    python: str | None


class MapCall:
    """One group, from its first input to its last outcome.

    Args:
        take: Takes each outcome, in the order in which items end.
        needs_group: Make a group also when there are no items.

    Attributes:
        group_id: Empty until the group was made.
        is_fed: No more inputs are wanted: all were sent, or the group has ended before.
    """

    def __init__(self, core: Core, function_id: str, wishes: Wishes, take: Take, *, needs_group: bool = False) -> None:
        self.group_id = ""
        self.is_fed = False
        self._core = core
        self._wishes = wishes
        self._take = take
        self._needs_group = needs_group or wishes.key is not None
        self._deadline = core.clock() + wishes.timeout_s
        self._request = _groups.create_request(core, function_id, wishes.spread, wishes.key, wishes.stop_after)
        self._reader: OutcomeReader | None = None
        self._was_asked_for = False
        self._was_interrupted = False
        self._is_closed = False
        self._there = 0
        self._next = 0
        self._entries: list[bytes] = []
        self._size = 0
        self._python: str | None = None
        self._sent_at = self._looked_at = core.clock()

    @property
    def wants_group_first(self) -> bool:
        """Whether the group has to be looked for before any item is made."""
        return self._wishes.key is not None

    @property
    def has_unsent(self) -> bool:
        """Whether something was added that was not sent yet."""
        return bool(self._entries)

    @property
    def items(self) -> int:
        """How many items the group has, as far as this process knows."""
        return max(self._next, self._there)

    def begin(self) -> Steps[None]:
        """Make the group, or find the one with the key; Ctrl-C is obeyed once its id is known."""
        if self.group_id:
            return
        request = self._request._replace(on_interrupt=self._defer_interrupt, is_again=self._was_asked_for)
        self._was_asked_for = True
        try:
            response = yield from perform(self._core, request, timeout_s=self._left_s())
        except _OUT_OF_REACH as error:
            if self._was_interrupted:
                raise KeyboardInterrupt from error
            raise
        self._begun(read(self._core, response, GroupInfo, 201, 200))
        if self._was_interrupted:
            raise KeyboardInterrupt

    def add(self, item: Any) -> bool:
        """Take one more item to call the function for; True when it is time to `send`.

        Raises:
            SerializationError, TooLargeError: The item cannot be sent; the message tells its number.
            InvalidRequestError: It holds no positional arguments.
        """
        number = self._next
        if number < self._there:
            self._next += 1
            return False
        value = encode_item(_spread(item, number) if self._wishes.spread else item, number)
        self._next += 1
        self._entries.append(chunks.KINDS[value.encoding] + value.data)
        self._size += len(value.data) + 1 + chunks.ENTRY_OVERHEAD
        self._python = self._python or value.python
        is_full = len(self._entries) >= CHUNK_ITEMS_MAX or self._size >= CHUNK_INPUTS_MAX
        return is_full or self._core.clock() - self._sent_at >= SEND_AFTER_S

    def send(self, *, looks: bool = True) -> Steps[None]:
        """Send what was added, and wait until the server has room for it.

        Args:
            looks: Read outcomes meanwhile; False when somebody else does.
        """
        yield from self.begin()
        for segment in self._segments():
            if not self.is_fed:
                yield from self._upload(segment, looks=looks)
        self._sent_at = self._core.clock()
        if looks and self._reader is not None and self._sent_at - self._looked_at >= LOOK_AFTER_S:
            yield from self._reader.take_ready()
            self._looked_at = self._core.clock()
            self.is_fed = self.is_fed or self._reader.end is not None

    def close(self, *, looks: bool = True) -> Steps[None]:
        """Send the rest and say that this was all. Without items there is no group, unless one is needed."""
        if self._entries or self._needs_group:
            yield from self.send(looks=looks)
        if self.group_id and not self.is_fed:
            response = yield from self._insist(_groups.close_request(self._core, self.group_id, self._next))
            if response.status != 200:
                error = failure(self._core, response)
                if error.code != "group_closed":
                    raise error
            self._is_closed = True
        self.is_fed = True

    def more(self) -> Steps[bool]:
        """Take what comes next; False when all outcomes were taken."""
        if self._reader is None:
            return False
        return (yield from self._reader.more())

    def missing(self) -> Iterator[tuple[int, GroupInfo]]:
        """Yield the numbers of items that the group ended before, with the group."""
        if self._reader is not None and self._reader.end is not None:
            for number in self._reader.missing():
                yield number, self._reader.end

    def stop_reading(self) -> None:
        """Close the connection that outcomes come on."""
        if self._reader is not None:
            self._reader.close()

    def leave(self, error: BaseException) -> Steps[None]:
        """Cancel the group if nobody will need it; says what became of it where the error does not."""
        self.stop_reading()
        if not self.group_id and self._was_asked_for:
            yield from self._find_again()
        has_ended = self._reader is not None and self._reader.end is not None
        is_late = isinstance(error, JobTimeoutError)
        if not self.group_id or has_ended or isinstance(error, _OUT_OF_REACH) or (self._is_closed and is_late):
            return
        if self._wishes.key is not None:
            yield Say(f"apothic: left {self.group_id}; the same call with its key goes on")
            return
        yield from cancel_group(self._core, self.group_id)
        if is_late:
            text = f"{self.group_id} did not get all its items within {self._wishes.timeout_s:g} s; it was cancelled."
            error.args = (text,)

    def _begun(self, group: GroupInfo) -> None:
        self.group_id = group.id
        self._there = group.items
        self.is_fed = self._is_closed = group.total is not None or group.status in _groups.FINAL
        self._reader = OutcomeReader(self._core, group.id, self._take, self._deadline, self._wishes.timeout_s)

    def _find_again(self) -> Steps[None]:
        """Ask once more for the group whose making was interrupted."""
        try:
            request = self._request._replace(is_again=True)
            response = yield from perform(self._core, request, timeout_s=INTERRUPT_GRACE_S)
            self._begun(read(self._core, response, GroupInfo, 201, 200))
        except ApothicError:
            yield Say("apothic: the making of a group was interrupted; it may exist, without items")

    def _upload(self, segment: Segment, *, looks: bool) -> Steps[None]:
        first, items, data, python = segment
        request = _groups.inputs_request(self._core, self.group_id, first, items, data, python)
        while not self.is_fed:
            response = yield from self._insist(request)
            if response.status == 200:
                return
            error = failure(self._core, response)
            if error.code == "group_closed":
                self.is_fed = True
            elif error.code == "group_full":
                yield from self._wait_for_room(_advice_s(response), looks=looks)
            else:
                raise error

    def _insist(self, request: Request) -> Steps[Response]:
        """Return the answer to a request that may be sent again and again, also while the server is away for long."""
        request = request._replace(waits_for_room=False)
        for tries in itertools.count(1):
            self._check_time()
            try:
                response = yield from perform(self._core, request, timeout_s=self._left_s())
            except _OUT_OF_REACH as error:
                self._check_time()
                if tries >= RESUMES_MAX:
                    raise type(error)(f"{error} ({self.group_id} may go on.)", code=error.code) from error
            else:
                if response.status not in {409, 429, 503} or tries >= RESUMES_MAX:
                    return response
                error = failure(self._core, response)
                if not error.retryable or error.code == "group_full":
                    return response
            yield Pause(self._core.pause_s(tries))
        raise AssertionError("endless")

    def _wait_for_room(self, pause_s: float, *, looks: bool) -> Steps[None]:
        until = self._core.clock() + pause_s
        if self._reader is None or not looks:
            yield Pause(pause_s)
            return
        while (left_s := until - self._core.clock()) > 0 and not self.is_fed:
            self.is_fed = not (yield from self._reader.more(left_s))

    def _check_time(self) -> None:
        if self._reader is not None and self._core.clock() >= self._deadline:
            raise self._reader.expired()

    def _left_s(self) -> float:
        return max(0.001, min(self._core.timeout_s, self._deadline - self._core.clock()))

    def _segments(self) -> Iterator[Segment]:
        """Cut what was added into segments within their bounds, and forget it."""
        entries, python = self._entries, self._python
        first = self._next - len(entries)
        self._entries, self._size, self._python = [], 0, None
        begin, size = 0, 0
        for place, entry in enumerate(entries):
            own = len(entry) + chunks.ENTRY_OVERHEAD
            if place > begin and size + own > CHUNK_INPUTS_MAX:
                yield Segment(first + begin, place - begin, chunks.pack(entries[begin:place]), python)
                begin, size = place, 0
            size += own
        if entries:
            yield Segment(first + begin, len(entries) - begin, chunks.pack(entries[begin:]), python)

    def _defer_interrupt(self) -> bool:
        """Note the first Ctrl-C before the id is known; False when it must be obeyed now."""
        if self._was_interrupted:
            return False
        self._was_interrupted = True
        return True


def cancel_group(core: Core, group_id: str) -> Steps[None]:
    """Ask for the end of a group that its caller leaves; says so when that fails."""
    try:
        yield from _groups.cancel(core, group_id)
    except KeyboardInterrupt:
        yield Say(f"apothic: left {group_id}; it may still run, `apothic group cancel {group_id}` ends it")
        raise
    except ApothicError as error:
        yield Say(f"apothic: {group_id} could not be cancelled: {error}")


def _spread(item: Any, number: int) -> list[Any]:
    """Return the positional arguments that an item of `starmap` holds."""
    if isinstance(item, (str, bytes)):
        raise InvalidRequestError(f"item {number} of starmap is text, not a list or tuple of arguments")
    try:
        return list(item)
    except TypeError as error:
        kind = type(item).__qualname__
        text = f"item {number} of starmap is of type {kind}, not a list or tuple of arguments"
        raise InvalidRequestError(text) from error


def _advice_s(response: Response) -> float:
    advice = response.headers.get("retry-after", "")
    return min(float(advice[:9]), ROOM_S_MAX) if advice.isascii() and advice.isdigit() else 1.0
