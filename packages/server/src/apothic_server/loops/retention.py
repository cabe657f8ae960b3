"""Keeps what grows within its bounds: event streams, live and ended (G5.4), idempotency keys (G6.1), former workers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

from apothic.wire.ids import JobId
from apothic.wire.limits import ITEMS_KEPT_MAX
from apothic_server.ports.clock import Clock
from apothic_server.store import streams as rows
from apothic_server.store.connection import Connection
from apothic_server.store.database import Database
from apothic_server.store.enrolment import forget_removed
from apothic_server.store.idempotency import forget_keys

EVENTS_MAX = 10_000
"""Newest events kept of the stream of a live job."""

KEPT_AFTER_END = timedelta(days=7)
"""Events of an ended job are kept this long; its result, errors and end as long as the job."""

BYTES_MAX = 16 * 1024 * 1024
"""Data kept of the newest events of a live job; items of generators have bounds of their own."""

WEIGHED_FROM = 128
"""Streams with fewer events cannot exceed `BYTES_MAX`: a line has at most 16 KiB before it is written as JSON."""

KEYS_KEPT = timedelta(hours=24)
"""An idempotency key is kept this long after its work was complete."""

WORKERS_KEPT = timedelta(days=30)
"""Starts of workers that ended, and workers that were removed, are kept this long: as long as their jobs."""

PAGE = 100
STARTS_PAGE = 1_000
KEYS_PAGE = 10_000
SEGMENTS_PAGE = 1_000
Find = Callable[[Connection, str], Awaitable[list[rows.Trim]]]


class Retention:
    """One step trims every stream that is too long, too large or too old, and forgets old keys and workers.

    Args:
        item_bytes_max: Bytes of items kept of one job, at least 8 MiB.
    """

    def __init__(self, database: Database, clock: Clock, *, item_bytes_max: int = ITEMS_KEPT_MAX) -> None:
        self._database = database
        self._clock = clock
        self._item_bytes_max = item_bytes_max
        self._weighed: dict[JobId, int] = {}

    async def step(self) -> float | None:
        """Trim page by page, each stream in a transaction of its own."""
        ended_before = self._clock.now() - KEPT_AFTER_END
        for of_jobs in (True, False):
            await self._trim_all(
                lambda unit, after, of_jobs=of_jobs: rows.long_streams(
                    unit, longer_than=EVENTS_MAX, after=after, limit=PAGE, of_jobs=of_jobs
                )
            )
            await self._trim_all(
                lambda unit, after, of_jobs=of_jobs: rows.old_streams(
                    unit, ended_before=ended_before, after=after, limit=PAGE, of_jobs=of_jobs
                )
            )
        await self._trim_heavy()
        await self._trim_items()
        await self._forget_keys()
        async with self._database.system_unit() as unit:
            await forget_removed(unit, before=self._clock.now() - WORKERS_KEPT, limit=STARTS_PAGE)
        return None

    async def _forget_keys(self) -> None:
        completed_before = self._clock.now() - KEYS_KEPT
        forgotten = KEYS_PAGE
        while forgotten == KEYS_PAGE:
            async with self._database.system_unit() as unit:
                forgotten = await forget_keys(unit, completed_before=completed_before, limit=KEYS_PAGE)

    async def _trim_all(self, find: Find) -> None:
        after = ""
        while True:
            async with self._database.system_unit() as unit:
                page = await find(unit, after)
            for what in page:
                async with self._database.system_unit() as unit:
                    await rows.trim(unit, what)
            if len(page) < PAGE:
                return
            after = page[-1].stream

    async def _trim_heavy(self) -> None:
        """Weigh the streams of live jobs that grew since they were weighed last."""
        after, before, self._weighed = "", self._weighed, {}
        while True:
            async with self._database.system_unit() as unit:
                page = await rows.growing_streams(unit, longer_than=WEIGHED_FROM, after=after, limit=PAGE)
            for stream in page:
                if before.get(stream.stream) != stream.next_index:
                    await self._weigh(stream)
                self._weighed[stream.stream] = stream.next_index
            if len(page) < PAGE:
                return
            after = page[-1].stream

    async def _weigh(self, stream: rows.Growing) -> None:
        async with self._database.system_unit() as unit:
            what = await rows.heavy_trim(unit, stream, bytes_max=BYTES_MAX)
            if what is not None:
                await rows.trim(unit, what)

    async def _trim_items(self) -> None:
        """Let the oldest items go of jobs that have too many bytes of them, also of ended ones."""
        after = ""
        while True:
            async with self._database.system_unit() as unit:
                page = await rows.heavy_items(unit, bytes_max=self._item_bytes_max, after=after, limit=PAGE)
            for stream in page:
                await self._rotate(stream)
            if len(page) < PAGE:
                return
            after = page[-1].job

    async def _rotate(self, stream: rows.HeavyItems) -> None:
        excess, gone = stream.size_bytes - self._item_bytes_max, 1
        while excess > 0 and gone > 0:
            async with self._database.system_unit() as unit:
                gone = await rows.rotate_items(unit, stream, size_bytes=excess, limit=SEGMENTS_PAGE)
            excess -= gone
