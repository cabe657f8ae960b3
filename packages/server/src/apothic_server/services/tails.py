"""What the watchers of one stream share: its newest events in memory, and one of them who reads for all.

A wake-up calls one watcher of those who wait. It reads the store, the tail grows, and the others are told: they find
the same batch there. Who is called and goes away instead, or fails, leaves the reading to the next one. No wake-up has
to come: every `REREAD_S` one of them reads in any case (G5.6).
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

from apothic.wire.ids import OrgId
from apothic.wire.limits import KIB
from apothic_server.domain.streams import StreamRef
from apothic_server.domain.views import Batch, ItemRun, Streamed
from apothic_server.services.runs import rest_of
from apothic_server.store.streams import PAGE_BYTES

REREAD_S = 5.0
PAGE = 500
TAIL_EVENTS_MAX = 1_000
"""Newest events that a watched stream keeps in memory for all its watchers."""

TAIL_ITEM_BYTES_MAX = 512 * KIB
"""Newest items that a watched stream keeps in memory for all its watchers."""

TOLD_AT_ONCE = 100
"""Watchers that are woken before others get a turn of the process."""


class Tail:
    """The newest events of one watched stream, in memory; for watchers of its org.

    Args:
        org: Whose watchers.
        stream: What they watch.
        reread_s: As `REREAD_S`.

    Attributes:
        users: Open watches.
        hints: Grows whenever the store may hold something new.
        newest: The index up to which it knows the stream; None when it knows nothing.
        lock: Held while the store is read: one reading at a time for each stream.
    """

    def __init__(self, org: OrgId, stream: StreamRef, reread_s: float = REREAD_S) -> None:
        self.org = org
        self.stream = stream
        self.users = 0
        self.newest: int | None = None
        self.lock = asyncio.Lock()
        self._reread_s = reread_s
        self._events: deque[Streamed | ItemRun] = deque()
        self._item_bytes = 0
        self._is_final = False
        self._front: Batch | None = None
        self._given: tuple[int, Batch] | None = None
        self.hints = 1
        self._seen = 0
        self._is_being_read = False
        self._waiting: dict[asyncio.Future[None], None] = {}
        self._to_tell: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def has_unread(self) -> bool:
        """Whether the store may hold something after `newest` that nobody reads now."""
        return self.hints != self._seen and not self._is_being_read

    def wake(self) -> None:
        """Something may have been committed: let one of those who wait read it."""
        self.hints += 1
        self._call_one()

    @contextmanager
    def reading(self, after: int) -> Generator[None]:
        """Read what follows an index: at the front for all who wait; when that fails, another one is called."""
        if self.newest is not None and after < self.newest:
            yield
            return
        seen, self._is_being_read = self.hints, True
        try:
            yield
            self._seen = seen
        finally:
            self._is_being_read = False
            if self.has_unread:
                self._call_one()

    async def wait(self, waiter: asyncio.Future[None]) -> None:
        """Return when there is something to read or to have, or when somebody resolves `waiter`."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._reread_s, self._read_again)
        self._waiting[waiter] = None
        try:
            await waiter
        except BaseException:
            if self.has_unread:
                self._call_one()
            raise
        finally:
            del self._waiting[waiter]

    def after(self, index: int) -> Batch | None:
        """Return what the tail holds after `index`; None when it does not reach back that far, or knows nothing yet."""
        if self.newest is None or index > self.newest:
            return None
        if index == self.newest:
            return self._front
        if self._given is None or self._given[0] != index:
            found = self._after(index)
            if found is None:
                return None
            self._given = index, found
        return self._given[1]

    def extend(self, after: int, batch: Batch) -> None:
        """Take in what was read after an index at the front, and tell those who wait if there is anything.

        A reader beyond the front takes the tail along; those behind it read for themselves.
        """
        if self.newest is not None and after < self.newest:
            return
        if after != self.newest:
            self.forget()
        self._events.extend(batch.events)
        self._item_bytes += sum(map(item_bytes, batch.events))
        while len(self._events) > TAIL_EVENTS_MAX or (self._item_bytes > TAIL_ITEM_BYTES_MAX and len(self._events) > 1):
            self._item_bytes -= item_bytes(self._events.popleft())
        self.newest, self._is_final, self._given = batch.last_index, batch.is_final, None
        self._front = Batch((), batch.last_index, batch.is_final)
        self.hints += batch.has_more
        if batch.events or batch.is_final:
            self._tell_all()

    def forget(self) -> None:
        """Know nothing any more, and let everybody who waits read."""
        self._events.clear()
        self._item_bytes, self.newest, self._given = 0, None, None
        self._tell_all()

    def close(self) -> None:
        """Nobody watches any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _after(self, index: int) -> Batch | None:
        if not self._events or index + 1 < self._events[0].index:
            return None
        place = bisect_right(self._events, index, key=_last_index)
        events = list(_lightest(islice(self._events, place, place + PAGE)))
        if isinstance(events[0], ItemRun):
            events[0] = rest_of(events[0], index)
        last = events[-1].last_index
        return Batch(tuple(events), last, self._is_final and last == self.newest)

    def _call_one(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
                return

    def _tell_all(self) -> None:
        is_telling = bool(self._to_tell)
        self._to_tell = deque(self._waiting)
        if self._to_tell and not is_telling:
            self._tell_some()

    def _tell_some(self) -> None:
        for _ in range(min(TOLD_AT_ONCE, len(self._to_tell))):
            resolve(self._to_tell.popleft())
        if self._to_tell:
            asyncio.get_running_loop().call_soon(self._tell_some)

    def _read_again(self) -> None:
        self._timer = None
        self.wake()


def resolve(waiter: asyncio.Future[None]) -> None:
    """Let who waits go on; twice is fine."""
    if not waiter.done():
        waiter.set_result(None)


def item_bytes(event: Streamed | ItemRun) -> int:
    """Return the bytes of a run's items; 0 for another event."""
    return len(event.data) if isinstance(event, ItemRun) else 0


def _lightest(events: Iterable[Streamed | ItemRun]) -> Iterator[Streamed | ItemRun]:
    """Yield events up to and with the one that exceeds a page's bytes, so that a slow reader holds on to few (G5.7)."""
    bytes_left = PAGE_BYTES
    for event in events:
        yield event
        if isinstance(event, ItemRun):
            bytes_left -= len(event.data)
        else:
            bytes_left -= 128 + sum(len(text) for text in event.data.values() if isinstance(text, str))
        if bytes_left <= 0:
            return


def _last_index(event: Streamed | ItemRun) -> int:
    return event.last_index
