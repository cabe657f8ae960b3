"""Records that wait for a flush, folded per job.

A job's row is written at most once per flush. Records of one job that follow each other exactly — each expects the
status and the fence that the one before leaves behind — fold into one row write whose path holds every status passed.
A record that does not follow stays behind its forerunner for a later flush, so records of one job are never reordered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import TypeAlias

import structlog

from apothic.wire.ids import JobId
from apothic_server.domain.jobs import LETTERS, JobChange, NewItems, NewJob
from apothic_server.store.rows import EVENTS, Row, change_row, items_row, merge, new_row, size_of

log = structlog.get_logger(__name__)

Record: TypeAlias = NewJob | JobChange | NewItems

FOLDED_EVENTS_MAX = 1024 * 1024
"""Longest text of events that one row write appends; a record beyond it waits for the next flush."""


Answer: TypeAlias = bool | Exception
"""What became of a record: on disk, refused by its guard, or why neither can be said."""


class Part:
    """One record and whoever wants to know what became of it.

    Args:
        tell: Called once with the answer.
        is_waited: Somebody waits for the answer, so it is part of the next flush, whoever causes that.
        within_s: A flush starts within so many seconds, for this record if for no other.
        ride_after_s: It joins a flush that others cause once it is so old.
    """

    __slots__ = ("is_waited", "record", "ride_after_s", "tell", "within_s")

    def __init__(
        self,
        record: Record,
        tell: Callable[[Answer], None] = lambda _: None,
        *,
        is_waited: bool = False,
        within_s: float = 0.0,
        ride_after_s: float = 0.0,
    ) -> None:
        self.record = record
        self.tell = tell
        self.is_waited = is_waited
        self.within_s = within_s
        self.ride_after_s = ride_after_s

    def answer(self, answer: Answer) -> None:
        """Tell what became of the record."""
        # A listener that fails must not take the writer, and with it every other record, along.
        try:
            self.tell(answer)
        except Exception:
            log.exception("writer.listener_failed")


class Pending:
    """Everything that one flush writes to one job.

    Attributes:
        row: Parameters of the statement.
        parts: The records behind it, in order; more than one when folded.
        since: Monotonic time of the first record.
        due: Monotonic time by which a flush starts for it, or for what is queued behind.
        rides_at: Monotonic time from which it joins any flush.
        has_waiter: Somebody waits for one of the parts, or for one queued behind.
        behind: Records of the same job that could not be folded, for later flushes.
        has_items: It appends items; such a record is never folded.
    """

    __slots__ = (
        "_fence",
        "_letter",
        "_org",
        "behind",
        "due",
        "has_items",
        "has_waiter",
        "is_new",
        "job",
        "parts",
        "rides_at",
        "row",
        "since",
        "size",
    )

    def __init__(self, part: Part, row: Row, since: float, size: int) -> None:
        record = part.record
        self.row = row
        self.parts = [part]
        self.since = since
        self.due = since + part.within_s
        self.rides_at = since + part.ride_after_s
        self.has_waiter = part.is_waited
        self.behind: Pending | None = None
        self.size = size
        self._org = record.org
        self.has_items = isinstance(record, NewItems)
        if isinstance(record, NewJob):
            self.is_new, self.job, self._letter, self._fence = True, record.id, "q", 0
        else:
            self.is_new, self.job, self._letter = False, record.job, LETTERS[record.expect_status]
            self._fence = record.expect_fence
            if isinstance(record, JobChange):
                self._advance(record)

    def follows(self, change: JobChange, row: Row) -> bool:
        """Whether `change` expects exactly what this row write leaves behind."""
        mine, its = self.row.get("guard_term"), change.term
        return (
            not self.has_items
            and change.expect_fence == self._fence
            and LETTERS[change.expect_status] == self._letter
            and change.path[:1] in ("", self._letter)
            and change.org == self._org
            and (mine is None or its is None or mine == its)
            and (change.key is None or not (self.is_new or "key_digest" in self.row))
            and len(self.row[EVENTS]) + len(row[EVENTS]) <= FOLDED_EVENTS_MAX
        )

    def fold(self, part: Part, change: JobChange, row: Row, size: int) -> None:
        """Add a change for which `follows` holds."""
        merge(self.row, row)
        self.parts.append(part)
        self.size += size
        self._advance(change)

    def alone(self) -> list[Pending]:
        """Return each part as a row write of its own, in order."""
        return [Pending(part, row_of(part.record), self.since, 0) for part in self.parts]

    def settle(self, applied: bool) -> None:
        for part in self.parts:
            part.answer(applied)

    def fail(self, error: Exception) -> None:
        for part in self.parts:
            part.answer(error)

    def _advance(self, change: JobChange) -> None:
        if change.path:
            self._letter = change.path[-1]
        if change.fields.fence is not None:
            self._fence = change.fields.fence


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

    def __iter__(self) -> Iterator[Pending]:
        return iter(self._heads.values())

    def add(self, part: Part, now: float) -> int:
        """Queue a record and return about how many bytes it has.

        Raises:
            UnwritableRecord: The record cannot be stored; the queue is unchanged.
        """
        record, row = part.record, row_of(part.record)
        job = record.id if isinstance(record, NewJob) else record.job
        size = size_of(row)
        self.records += 1
        self.size_bytes += size
        head = self._heads.get(job)
        if head is None:
            self._heads[job] = Pending(part, row, now, size)
            return size
        last = _hurried(head, part.is_waited, now + part.within_s)
        if isinstance(record, JobChange) and last.follows(record, row):
            last.fold(part, record, row, size)
            self.folded += 1
        else:
            last.behind = Pending(part, row, now, size)
        return size

    def take(self, now: float, records_max: int) -> list[Pending]:
        """Remove and return what a flush writes now: what has a waiter or is old enough to ride, sorted by key."""
        chosen = list(islice((head for head in self if head.has_waiter or head.rides_at <= now), records_max))
        for head in chosen:
            self.records -= len(head.parts)
            self.size_bytes -= head.size
            if head.behind is None:
                del self._heads[head.job]
            else:
                self._heads[head.job] = head.behind
                head.behind = None
        chosen.sort(key=_key)
        return chosen

    def due(self) -> float | None:
        """Return when the next flush is to start; None when the queue is empty."""
        return min((head.due for head in self), default=None)


def row_of(record: Record) -> Row:
    """Return the statement parameters of one record."""
    match record:
        case NewJob():
            return new_row(record)
        case NewItems():
            return items_row(record)
        case JobChange():
            return change_row(record)


def _key(pending: Pending) -> str:
    return pending.job


def _hurried(head: Pending, is_waited: bool, due: float) -> Pending:
    """Have what is queued of a job written as soon as what comes now asks for; return the last of it."""
    last = head
    while True:
        last.has_waiter = last.has_waiter or is_waited
        last.due = min(last.due, due)
        if last.behind is None:
            return last
        last = last.behind
