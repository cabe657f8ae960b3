"""The batching writer: every change of a job reaches the disk through it (one per process).

Rules:

- *Commit when someone waits.* A record appended with a waiter starts a flush, or waits for others as long as its sender
  allows; a quiet one waits up to `FLUSH_DELAY_S` for a flush or for a later record of its job to fold into. A blocking
  call — inserted, granted and started quietly, ended with a waiter — is one row write in one commit.
- *Group commit.* One flush at a time; what arrives meanwhile forms the next one.
- *The store judges.* Each record names the status and the fence it expects; the answer is True (on disk) or False
  (refused, nothing changed). A folded write that is refused is taken apart, and its records are tried one by one.
- *A bad record stands alone.* When the store rejects a batch for its data, the batch is halved until the culprit is
  found; it gets `PoisonRecord`, all others are applied.
- *Answers are true.* When the connection is lost, the old server process is ended, the marks of the flush are looked
  up, and only what is not on disk is written again. If the store stays away, waiters get `Unavailable`, or
  `OutcomeUnknown` when their record had been sent.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

from apothic_server.domain.errors import Unavailable
from apothic_server.domain.jobs import NewJob
from apothic_server.store.flush import Connect
from apothic_server.store.flusher import Counters, Flusher, OutcomeUnknown, PoisonRecord
from apothic_server.store.pending import Answer, Part, Pending, PendingQueue, Record
from apothic_server.store.rows import UnwritableRecord

__all__ = ["Counters", "OutcomeUnknown", "PoisonRecord", "UnwritableRecord", "Writer"]

FLUSH_DELAY_S = 0.005
"""Longest time that a quiet record waits for a flush."""

RIDE_AFTER_S = 0.002
"""A quiet record joins a flush that others started once it is this old; a younger one may still fold with its successor
and save a row write."""

FLUSH_RECORDS_MAX = 2_000
RECORDS_MAX = 100_000
BYTES_MAX = 128 * 1024 * 1024
"""Bounds of the queue. New jobs are refused at half of them, so that work under way can still be ended."""

AWAY_DEADLINE_S = 10.0
"""Records that waited this long for a store that is away fail."""

STATEMENT_TIMEOUT_S = 8.0


class Writer:
    """See the module's text. All methods belong to the event loop that called `start`.

    Args:
        connect: Opens the writer's own connection, as the tables' owner.
        clock: Monotonic seconds.
        flush_number: Gives each flush a number of 63 bits that is not used twice.
        commit_delay_s: Added before each commit; for benchmarks.
        away_deadline_s: See `AWAY_DEADLINE_S`.
        statement_timeout_s: Bound of one statement; a flush that exceeds it counts as lost.
        records_max: Bound of the queue.
        bytes_max: Bound of the queue.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        clock: Callable[[], float] = time.monotonic,
        flush_number: Callable[[], int] = lambda: random.getrandbits(63),
        commit_delay_s: float = 0.0,
        away_deadline_s: float = AWAY_DEADLINE_S,
        statement_timeout_s: float = STATEMENT_TIMEOUT_S,
        records_max: int = RECORDS_MAX,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        self.counters = Counters()
        self._flusher = Flusher(
            connect,
            clock=clock,
            flush_number=flush_number,
            commit_delay_s=commit_delay_s,
            away_deadline_s=away_deadline_s,
            statement_timeout_s=statement_timeout_s,
            counters=self.counters,
        )
        self._clock = clock
        self._away_deadline_s = away_deadline_s
        self._records_max = records_max
        self._bytes_max = bytes_max
        self._queue = PendingQueue()
        self._is_due = False
        self._sleeper: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._is_flushing = False
        self._is_stopping = False

    @property
    def is_connected(self) -> bool:
        """Whether the writer has a connection that looks usable."""
        return self._flusher.is_connected

    @property
    def is_flushing(self) -> bool:
        """Whether a batch is on its way to the store."""
        return self._is_flushing

    @property
    def waiting(self) -> int:
        """Records that no flush has taken yet."""
        return self._queue.records

    async def start(self) -> None:
        """Connect and begin to write. Does nothing when started already.

        Raises:
            Unavailable: The store is away.
        """
        if self._task is not None:
            return
        await self._flusher.open()
        self._is_stopping = False
        self._task = asyncio.create_task(self._run(), name="writer")

    async def stop(self) -> None:
        """Write what is queued, then disconnect. New records are refused from now on. Does nothing when stopped."""
        self._is_stopping = True
        self._wake()
        task = self._task
        if task is not None:
            await asyncio.shield(task)
            self._task = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self._flusher.close()

    def append(self, record: Record) -> asyncio.Future[bool]:
        """Queue a record that somebody waits for; a flush starts at once.

        Returns:
            Its answer: True when it is on disk, False when its guard did not match and nothing changed. It raises
            `PoisonRecord` when the store rejected the record and `Unavailable` when the store stayed away.

        Raises:
            UnwritableRecord: The record cannot be stored.
            Unavailable: The queue is full, or the writer does not run.
        """
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.append_told(record, lambda answer: _resolve(waiter, answer))
        return waiter

    def append_told(self, record: Record, on_answer: Callable[[Answer], None], *, within_s: float = 0.0) -> None:
        """As `append`, with `on_answer` called in the event loop instead, as soon as the answer is known.

        Args:
            on_answer: It must not block, and is never called before this returns.
            within_s: Seconds that the record may wait for others, 0 or more; it is written with the first that cannot.

        Raises:
            UnwritableRecord: The record cannot be stored.
            Unavailable: The queue is full, or the writer does not run.
        """
        self._add(Part(record, on_answer, True, within_s))

    def append_quietly(
        self, record: Record, on_settled: Callable[[bool], None] | None = None, *, patience_s: float = 0.0
    ) -> None:
        """Queue a record that nobody waits for; it is written within `FLUSH_DELAY_S` or with a later record of its job.

        Args:
            on_settled: Called once in the event loop, with True when the record is on disk, else with False. It must
                not block.
            patience_s: Seconds that it may take longer, 0 or more.

        Raises:
            UnwritableRecord: The record cannot be stored.
            Unavailable: The queue is full, or the writer does not run.
        """
        tell: Any = on_settled  # a quiet record is told nothing but True and False
        self._add(Part(record, tell, False, FLUSH_DELAY_S + patience_s, RIDE_AFTER_S + patience_s))

    def _add(self, part: Part) -> None:
        if self._task is None or self._is_stopping:
            raise Unavailable("the server is stopping", retry_after_s=1)
        share = 2 if type(part.record) is NewJob else 1
        queue, counters, now = self._queue, self.counters, self._clock()
        if queue.records * share >= self._records_max or queue.size_bytes * share >= self._bytes_max:
            raise Unavailable("too much waits to be stored", retry_after_s=1)
        counters.bytes += queue.add(part, now)
        counters.records += 1
        counters.folded = queue.folded
        self._flush_at(now, now + part.within_s)

    def _flush_at(self, now: float, at: float) -> None:
        """See to it that a flush starts at `at`; at once when that is not after `now`."""
        if at <= now:
            self._wake()
            return
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = asyncio.get_running_loop().call_later(at - now, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._queue.records:
            self._wake()

    def _wake(self) -> None:
        self._is_due = True
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._is_stopping or self._queue.records:
            if not self._is_due:
                self._sleeper = loop.create_future()
                await self._sleeper
            self._is_due, self._sleeper = False, None
            batch = self._take()
            if batch:
                self.counters.flushes += 1
                self._is_flushing = True
                await self._flusher.write(batch)
                self._is_flushing = False
            self._plan_next()

    def _take(self) -> list[Pending]:
        now = float("inf") if self._is_stopping else self._clock()
        return self._queue.take(now, FLUSH_RECORDS_MAX)

    def _plan_next(self) -> None:
        """See to it that the loop wakes up for what is still queued."""
        due = self._queue.due()
        if due is not None:
            now = self._clock()
            self._flush_at(now, now if self._is_stopping else due)


def _resolve(waiter: asyncio.Future[bool], answer: Answer) -> None:
    if waiter.done():
        return
    if isinstance(answer, bool):
        waiter.set_result(answer)
    else:
        waiter.set_exception(answer)
