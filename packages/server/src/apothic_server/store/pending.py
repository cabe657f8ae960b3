"""Records that wait for a flush, folded per job.

A job's row is written at most once per flush. Records of one job that follow each other exactly — each expects the
status and the fence that the one before leaves behind — fold into one row write whose path holds every status passed.
A record that does not follow stays behind its forerunner for a later flush, so records of one job are never reordered.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, TypeAlias

import structlog

from apothic.wire.ids import JobId
from apothic_server.domain.jobs import JobChange, NewItems, NewJob
from apothic_server.store.rows import Row, row_of, size_of

log = structlog.get_logger(__name__)

Record: TypeAlias = NewJob | JobChange | NewItems

FOLDED_BYTES_MAX = 1024 * 1024
"""Most bytes of the records that one row write is folded of; a record beyond it waits for the next flush."""

Answer: TypeAlias = bool | Exception
"""What became of a record: on disk, refused by its guard, or why neither can be said."""


class Part:
    """One record and whoever wants to know what became of it.

    Args:
        tell: Called once with the answer; for a quiet record with whether it is on disk.
        is_waited: Somebody waits for the answer, so it is part of the next flush, whoever causes that.
        within_s: A flush starts within so many seconds, for this record if for no other.
        ride_after_s: It joins a flush that others cause once it is so old.
    """

    __slots__ = ("is_waited", "record", "ride_after_s", "tell", "within_s")

    def __init__(
        self,
        record: Record,
        tell: Callable[[Answer], None] | None = None,
        is_waited: bool = False,
        within_s: float = 0.0,
        ride_after_s: float = 0.0,
    ) -> None:
        self.record = record
        self.tell = tell
        self.is_waited = is_waited
        self.within_s = within_s
        self.ride_after_s = ride_after_s


class Pending:
    """Everything that one flush writes to one job.

    Attributes:
        parts: The records of it, in order; more than one when folded.
        size: About how many bytes they have.
        since: Monotonic time of the first record.
        due: Monotonic time by which a flush starts for it, or for what is queued behind.
        rides_at: Monotonic time from which it joins any flush.
        has_waiter: Somebody waits for one of the parts, or for one queued behind.
        behind: Records of the same job that could not be folded, for later flushes.
        is_new: It inserts the job.
        has_items: It appends items; such a record is never folded.
    """

    __slots__ = (
        "_fence",
        "_has_key",
        "_letter",
        "_row",
        "_term",
        "behind",
        "due",
        "has_items",
        "has_waiter",
        "is_new",
        "job",
        "org",
        "parts",
        "rides_at",
        "since",
        "size",
    )

    def __init__(self, part: Part, since: float, size: int) -> None:
        record = part.record
        self.parts = [part]
        self.size = size
        self.since = since
        self.due = since + part.within_s
        self.rides_at = since + part.ride_after_s
        self.has_waiter = part.is_waited
        self.behind: Pending | None = None
        self.org = record.org
        self.is_new = self.has_items = self._has_key = False
        self._term: int | None = None
        self._row: Row | None = None
        if type(record) is NewJob:
            self.is_new, self.job, self._letter, self._fence = True, record.id, "q", 0
            self._has_key, self._term = True, record.term
        elif type(record) is JobChange:
            self.job, self._letter, self._fence = record.job, record.expect_status.letter, record.expect_fence
            self._leave_behind(record)
        else:
            self.has_items, self.job, self._letter, self._fence = True, record.job, "", record.expect_fence

    @property
    def row(self) -> Row:
        """The row write, unless it appends items; made when it is first asked for.

        Raises:
            ValueError: A record holds what is no JSON.
        """
        if self._row is None:
            records: list[Any] = [part.record for part in self.parts]
            self._row = row_of(records[0], records[1:])
        return self._row

    def fold(self, part: Part, change: JobChange, size: int) -> bool:
        """Add a change if it expects exactly what this row write leaves behind; return whether it does."""
        term = change.term
        if not (
            change.expect_fence == self._fence
            and change.expect_status.letter == self._letter
            and (not change.path or change.path[0] == self._letter)
            and change.org == self.org
            and (term is None or self._term is None or self._term == term)
            and (change.key is None or not self._has_key)
            and self.size + size <= FOLDED_BYTES_MAX
        ):
            return False
        self.parts.append(part)
        self.size += size
        self._leave_behind(change)
        return True

    def alone(self) -> list[Pending]:
        """Return each part as a row write of its own, in order."""
        return [Pending(part, self.since, 0) for part in self.parts]

    def answer(self, answer: Answer) -> None:
        """Tell what became of the records."""
        for part in self.parts:
            if part.tell is None:
                continue
            # A listener that fails must not take the writer, and with it every other record, along.
            try:
                part.tell(answer if part.is_waited else answer is True)
            except Exception:
                log.exception("writer.listener_failed")

    def _leave_behind(self, change: JobChange) -> None:
        if change.path:
            self._letter = change.path[-1]
        if change.fields.fence is not None:
            self._fence = change.fields.fence
        if change.term is not None:
            self._term = change.term
        if change.key is not None:
            self._has_key = True


class PendingQueue:
    """The records of a writer that no flush has taken yet.

    Attributes:
        records: How many there are.
        size_bytes: About how much memory they hold.
        folded: Records folded into another one since the start.
    """

    def __init__(self) -> None:
        self.records = 0
        self.size_bytes = 0
        self.folded = 0
        self._heads: dict[JobId, Pending] = {}

    def add(self, part: Part, now: float) -> int:
        """Queue a record and return about how many bytes it has.

        Raises:
            UnwritableRecord: The record cannot be stored; the queue is unchanged.
        """
        record = part.record
        size = size_of(record)
        job = record.id if type(record) is NewJob else record.job
        self.records += 1
        self.size_bytes += size
        head = self._heads.get(job)
        if head is None:
            self._heads[job] = Pending(part, now, size)
            return size
        last = _hurried(head, part, now)
        if type(record) is JobChange and last.fold(part, record, size):
            self.folded += 1
        else:
            last.behind = Pending(part, now, size)
        return size

    def take(self, now: float, records_max: int) -> list[Pending]:
        """Remove and return what a flush writes now: what has a waiter or is old enough to ride, sorted by key."""
        heads = self._heads
        chosen = [head for head in heads.values() if head.has_waiter or head.rides_at <= now][:records_max]
        for head in chosen:
            self.records -= len(head.parts)
            self.size_bytes -= head.size
            if head.behind is None:
                del heads[head.job]
            else:
                heads[head.job] = head.behind
                head.behind = None
        chosen.sort(key=_key)
        return chosen

    def due(self) -> float | None:
        """Return when the next flush is to start; None when the queue is empty."""
        return min([head.due for head in self._heads.values()], default=None)


_key = attrgetter("job")


def _hurried(head: Pending, part: Part, now: float) -> Pending:
    """Have what is queued of a job written as soon as what comes now asks for; return the last of it."""
    last, due, rides_at = head, now + part.within_s, now + part.ride_after_s
    while True:
        if part.is_waited:
            last.has_waiter = True
        if due < last.due:
            last.due = due
        if rides_at < last.rides_at:  # what is due and may not ride would be asked for without end
            last.rides_at = rides_at
        if last.behind is None:
            return last
        last = last.behind
