"""Records that wait for a flush, folded per job.

A job's row is written at most once per flush. Records of one job that follow each other exactly — each expects the
status and the fence that the one before leaves behind — fold into one row write whose path holds every status passed.
A record that does not follow stays behind its forerunner for a later flush, so records of one job are never reordered.
"""

from __future__ import annotations

from asyncio import Future
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


class Part:
    """One record and whoever wants to know what became of it."""

    __slots__ = ("listener", "record", "waiter")

    def __init__(
        self, record: Record, waiter: Future[bool] | None = None, listener: Callable[[bool], None] | None = None
    ) -> None:
        self.record = record
        self.waiter = waiter
        self.listener = listener

    def settle(self, applied: bool) -> None:
        """Tell that the record was applied, or refused by its guard."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(applied)
        self._tell(applied)

    def fail(self, error: Exception) -> None:
        """Tell that the record was not applied because of `error`; a listener hears only `False`."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_exception(error)
        self._tell(False)

    def _tell(self, applied: bool) -> None:
        # A listener that fails must not take the writer, and with it every other record, along.
        try:
            if self.listener is not None:
                self.listener(applied)
        except Exception:
            log.exception("writer.listener_failed")


class Pending:
    """Everything that one flush writes to one job.

    Attributes:
        row: Parameters of the statement.
        parts: The records behind it, in order; more than one when folded.
        since: Monotonic time of the first record.
        has_waiter: Somebody waits for one of the parts, or for one queued behind.
        behind: Records of the same job that could not be folded, for later flushes.
        has_items: It appends items; such a record is never folded.
    """

    __slots__ = (
        "_fence",
        "_letter",
        "_org",
        "behind",
        "has_items",
        "has_waiter",
        "is_new",
        "job",
        "parts",
        "row",
        "since",
        "size",
    )

    def __init__(self, part: Part, row: Row, since: float, size: int) -> None:
        record = part.record
        self.row = row
        self.parts = [part]
        self.since = since
        self.has_waiter = part.waiter is not None
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
        self.has_waiter = self.has_waiter or part.waiter is not None
        self.size += size
        self._advance(change)

    def alone(self) -> list[Pending]:
        """Return each part as a row write of its own, in order."""
        return [Pending(part, row_of(part.record), self.since, 0) for part in self.parts]

    def settle(self, applied: bool) -> None:
        for part in self.parts:
            part.settle(applied)

    def fail(self, error: Exception) -> None:
        for part in self.parts:
            part.fail(error)

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
        head.has_waiter = head.has_waiter or part.waiter is not None
        last = _last(head)
        if isinstance(record, JobChange) and last.follows(record, row):
            last.fold(part, record, row, size)
            self.folded += 1
        else:
            last.behind = Pending(part, row, now, size)
        return size

    def take(self, before: float, records_max: int) -> list[Pending]:
        """Remove and return what a flush writes now: what has a waiter or is older than `before`, sorted by key."""
        chosen = list(islice((head for head in self if head.has_waiter or head.since <= before), records_max))
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

    def oldest(self) -> float | None:
        """Return when the record that waits longest came; None when the queue is empty."""
        return min((head.since for head in self), default=None)

    def has_waiter(self) -> bool:
        return any(head.has_waiter for head in self)


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


def _last(head: Pending) -> Pending:
    while head.behind is not None:
        head = head.behind
    return head
