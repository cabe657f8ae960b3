"""Writes a batch until each of its records has a true answer, whatever happens to the store meanwhile."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, zip_longest

import structlog

from apothic_server.domain.errors import Unavailable
from apothic_server.failpoints import fp
from apothic_server.store.flush import Connect, FlushConnection, Trouble, trouble_of
from apothic_server.store.pending import Pending

TRIES_MAX = 10
"""Tries of a flush that the store aborts with 40001 or 40P01, before its records are tried separately."""

REDIAL_FIRST_S, REDIAL_MAX_S = 0.02, 1.0

log = structlog.get_logger(__name__)


class PoisonRecord(Exception):
    """The store rejected this record for its data; `__cause__` is the store's error. Nothing of it was applied."""


class OutcomeUnknown(Unavailable):
    """The store was lost while the record was being written and did not come back in time to tell what became of it."""


@dataclass(slots=True)
class Counters:
    """What a writer has done since it was made.

    Attributes:
        flushes: Batches taken from the queue.
        commits: Transactions that the store was asked to make durable, with or without success.
        records: Records appended.
        folded: Records that became part of another record's row write.
        refused: Records whose guard did not match.
        poisoned: Records that the store rejected for their data.
        retries: Flushes repeated after 40001 or 40P01.
        reconnects: Connections made after one was lost.
        bytes: About how many bytes the appended records had.
    """

    flushes: int = 0
    commits: int = 0
    records: int = 0
    folded: int = 0
    refused: int = 0
    poisoned: int = 0
    retries: int = 0
    reconnects: int = 0
    bytes: int = 0


class Losses:
    """Losses of one batch that follow each other: a store that can be reached and takes nothing, such as a full disk.

    Args:
        clock: Monotonic seconds.
        deadline_s: How long the batch is tried again.
    """

    def __init__(self, clock: Callable[[], float], deadline_s: float) -> None:
        self._clock = clock
        self._deadline_s = deadline_s
        self._since: float | None = None
        self._pause_s = REDIAL_FIRST_S

    def forget(self) -> None:
        """Something was written."""
        self._since, self._pause_s = None, REDIAL_FIRST_S

    async def after(self, left: list[list[Pending]], error: Exception) -> list[list[Pending]]:
        """Return what to try again of what is known not to be on disk, after a pause; nothing once it is late."""
        now = self._clock()
        if self._since is None:
            self._since = now
            return left
        if now < self._since + self._deadline_s:
            await asyncio.sleep(self._pause_s)
            self._pause_s = min(self._pause_s * 2, REDIAL_MAX_S)
            return left
        for pending in chain.from_iterable(left):
            pending.answer(_given_up(error, was_sent=False))
        return []


class Flusher:
    """Holds the writer's connection, renews it, and applies batches through it. Not for concurrent use.

    Args:
        connect: Opens the connection.
        clock: Monotonic seconds.
        flush_number: Gives each flush a number of 63 bits that is not used twice.
        commit_delay_s: Added before each commit.
        away_deadline_s: How long a batch waits for a store that is away.
        statement_timeout_s: Bound of one statement.
        counters: Counted into.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        clock: Callable[[], float],
        flush_number: Callable[[], int],
        commit_delay_s: float,
        away_deadline_s: float,
        statement_timeout_s: float,
        counters: Counters,
    ) -> None:
        self._connect = connect
        self._clock = clock
        self._flush_number = flush_number
        self._before_commit = _delay(commit_delay_s) if commit_delay_s > 0 else None
        self._away_deadline_s = away_deadline_s
        self._statement_timeout_s = statement_timeout_s
        self._counters = counters
        self._link: FlushConnection | None = None

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection that looks usable."""
        return self._link is not None and self._link.is_open

    async def open(self) -> None:
        """Connect, once.

        Raises:
            Unavailable: The store is away.
        """
        link: FlushConnection | None = None
        try:
            connection = await self._connect()
            link = FlushConnection(connection, timeout_s=self._statement_timeout_s, before_commit=self._before_commit)
            await link.prepare()
        except BaseException as error:
            if link is not None:
                link.abandon()
            if isinstance(error, Exception) and trouble_of(error) is Trouble.LOST:
                raise Unavailable("the store is away", retry_after_s=1) from error
            raise
        self._link = link

    async def close(self) -> None:
        """Disconnect; does nothing without a connection."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def write(self, batch: list[Pending]) -> None:
        """Write a batch; afterwards each of its records has its answer."""
        groups = deque([batch])
        tries, losses = 0, Losses(self._clock, self._away_deadline_s)
        while groups:
            group, number = groups.popleft(), self._flush_number()
            try:
                done = await self._try(group, number)
            except Exception as error:
                match trouble_of(error):
                    case Trouble.AGAIN if tries < TRIES_MAX:
                        tries += 1
                        self._counters.retries += 1
                        groups.appendleft(group)
                    case Trouble.LOST:
                        left = await self._recover(group, number, error)
                        groups.extendleft(reversed(await losses.after(left, error)))
                    case _:
                        tries = 0
                        groups.extendleft(reversed(self._divide(group, error)))
            else:
                tries = 0
                losses.forget()
                groups.extendleft(reversed(self._settle(group, done)))

    async def _try(self, group: list[Pending], number: int) -> set[str]:
        if self._link is None:
            raise Unavailable("the store is away", retry_after_s=1)
        self._counters.commits += 1
        await fp("writer.taken")
        written = await self._link.write(group, number)
        await fp("writer.committed")
        return written

    def _settle(self, group: list[Pending], done: set[str]) -> list[list[Pending]]:
        """Answer a group that was written. A refused fold goes on, record by record: its beginning may still fit."""
        folds: list[Pending] = []
        for pending in group:
            if pending.job in done:
                pending.answer(True)
            elif len(pending.parts) > 1:
                folds.append(pending)
            else:
                self._counters.refused += 1
                pending.answer(False)
        return _rounds(folds)

    def _divide(self, group: list[Pending], error: Exception) -> list[list[Pending]]:
        """Return the smaller groups to try after a group was rejected for its data."""
        if len(group) > 1:
            middle = len(group) // 2
            return [group[:middle], group[middle:]]
        if len(group[0].parts) > 1:
            return _rounds(group)
        self._counters.poisoned += 1
        state = getattr(error, "sqlstate", None)
        log.error("writer.poison_record", job=group[0].job, error=type(error).__name__, sqlstate=state)
        poison = PoisonRecord(f"the store rejected a record of job {group[0].job}")
        poison.__cause__ = error
        group[0].answer(poison)
        return []

    async def _recover(self, group: list[Pending], number: int, error: Exception) -> list[list[Pending]]:
        """Reconnect and find out what became of the flush that was lost; return what is still to be written."""
        lost = self._drop(error)
        # A batch that was never sent has waited for the store since its first record came.
        since = self._clock() if lost else min(pending.since for pending in group)
        pause_s = REDIAL_FIRST_S
        while True:
            try:
                return await self._look_up(group, number, lost)
            except Exception as again:  # Whatever it is, the records need an answer in the end.
                self._drop(again)
                error = again
            if self._clock() >= since + self._away_deadline_s:
                break
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, REDIAL_MAX_S)
        for pending in group:
            pending.answer(_given_up(error, was_sent=lost is not None))
        return []

    async def _look_up(
        self, group: list[Pending], number: int, lost: tuple[int, datetime] | None
    ) -> list[list[Pending]]:
        if self._link is None:
            await self.open()
            self._counters.reconnects += 1
        link = self._link
        if link is None or lost is None:
            return [group]
        await link.end_backend(lost)
        done = await link.written_by(group, number)
        # One commit held the whole group: either all of it was judged, or nothing was written and all may be repeated.
        return self._settle(group, done) if done else [group]

    def _drop(self, error: Exception) -> tuple[int, datetime] | None:
        link, self._link = self._link, None
        if link is None:
            return None
        log.warning("writer.connection_lost", error=type(error).__name__)
        link.abandon()
        return link.backend


def _given_up(error: Exception, *, was_sent: bool) -> Unavailable:
    kind, detail = (
        (OutcomeUnknown, "the store was lost during the write") if was_sent else (Unavailable, "the store is away")
    )
    raised = kind(detail, retry_after_s=1)
    raised.__cause__ = error
    return raised


def _rounds(folds: list[Pending]) -> list[list[Pending]]:
    """Take folded writes apart: the first records of all of them, then the second ones, and so on."""
    singles = zip_longest(*(fold.alone() for fold in folds))
    return [[pending for pending in layer if pending is not None] for layer in singles]


def _delay(delay_s: float) -> Callable[[], Awaitable[None]]:
    async def wait() -> None:
        await asyncio.sleep(delay_s)

    return wait
