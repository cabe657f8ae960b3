"""Event streams for watchers: dense, resumable, shared (G5).

A stream that is watched has one tail in memory (`tails.py`), which all watchers at its front share. Who is behind the
tail is served from the store. Wake-ups are hints; the store is read again every `REREAD_S` in any case (G5.6).
"""

from __future__ import annotations

import asyncio

from apothic.wire.ids import AppId, DeploymentId, GroupId, JobId, OrgId
from apothic.wire.limits import KIB, VALUE_MAX
from apothic.wire.values import Value
from apothic_server.domain.access import Actor
from apothic_server.domain.apps import Deployment
from apothic_server.domain.errors import TooMany, no_such
from apothic_server.domain.group_views import GroupView
from apothic_server.domain.jobs import Job, StoredEvent, StoredValue
from apothic_server.domain.streams import StreamKind, StreamRef
from apothic_server.domain.views import AppView, Batch, Gap, ItemRun, Snapshot, Streamed
from apothic_server.ports.blobs import Blobs
from apothic_server.services.alarm import Alarm
from apothic_server.services.apps import app_view
from apothic_server.services.dispatch.items import ItemFlows, ItemReader
from apothic_server.services.group_items import GroupItems
from apothic_server.services.groups import Groups
from apothic_server.services.jobs import Jobs
from apothic_server.services.runs import merged, rest_of, run_of
from apothic_server.services.tails import PAGE, REREAD_S, Tail, item_bytes, resolve
from apothic_server.services.turns import Turns
from apothic_server.store import apps as app_rows
from apothic_server.store import jobs as job_rows
from apothic_server.store import streams as rows
from apothic_server.store.connection import Connection
from apothic_server.store.database import Database

BEGINNING = -1
"""Index after which a reader reads that has seen nothing."""

WATCHERS_PER_ORG_MAX = 1_000
"""Open streams of one org (G15.2)."""

FEW_WATCHERS = 10
"""Open streams that an org gets without waiting for a turn, however many others come."""

PAGE_ITEM_BYTES = 128 * KIB
"""Bytes of items in one page; one segment may exceed it."""

ITEM = "job.stream_item"
KEPT_LONGER = frozenset({ITEM, "job.result", "job.error", "job.end", "job.reset", "job.snapshot"})
"""Kinds that rotation spares; items below their own floor excepted (G5.4)."""


class Streams:
    """Opens watches and reads pages.

    Attributes:
        reread_s: As `REREAD_S`, for streams that nobody watches yet.
    """

    def __init__(
        self,
        database: Database,
        jobs: Jobs,
        blobs: Blobs,
        flows: ItemFlows,
        turns: Turns,
        groups: Groups,
        items: GroupItems,
    ) -> None:
        self._database = database
        self._jobs = jobs
        self._blobs = blobs
        self._flows = flows
        self._turns = turns
        self._groups = groups
        self._items = items
        self._of_groups: dict[str, set[str]] = {}
        self._tails: dict[str, list[Tail]] = {}
        self._watchers: dict[OrgId, int] = {}
        self.reread_s = REREAD_S

    @property
    def watchers(self) -> int:
        """Open watches of all orgs."""
        return sum(self._watchers.values())

    def hint(self, key: str) -> None:
        """Something of the stream with this key was committed: wake its watchers, and readers of a group's outcomes."""
        self._groups.readers.hint(key)
        if not self._tails:
            return
        items = self._of_groups.get(key.partition(".")[0], ()) if self._of_groups else ()
        for stream in (key, *items):
            for tail in self._tails.get(stream, ()):
                tail.wake()

    def hint_all(self) -> None:
        """Anything may have been committed: wake all watchers."""
        self._groups.readers.hint_all()
        for key in self._tails:
            self.hint(key)

    async def read(
        self, actor: Actor, stream: StreamRef, *, after: int, limit: int = PAGE, kinds: frozenset[str] | None = None
    ) -> Batch | Gap:
        """Return up to `limit` events after an index, or the gap that is there.

        Args:
            kinds: What the reader wants; only what it wants can be missing. All when None.

        Raises:
            NotFound: The org has no such stream.
        """
        found = await self._read_item(actor, JobId(stream.key), after) if stream.kind is StreamKind.JOB else None
        found = found or await self._read(actor, stream, after, limit, kinds)
        if found is None:
            raise no_such(stream.kind.value)
        return found

    async def _read(
        self, actor: Actor, stream: StreamRef, after: int, limit: int, kinds: frozenset[str] | None
    ) -> Batch | Gap | None:
        async with self._database.request_unit(actor.org) as unit:
            bounds = await rows.get_bounds(unit, actor.org, stream)
            if bounds is None:
                return None
            oldest = _oldest(bounds, kinds)
            if after == BEGINNING and oldest > 0 and await rows.is_first(unit, actor.org, stream, oldest):
                after = oldest - 1  # a restore raised all indexes, and nothing is missing
            if after > bounds.newest or after + 1 < oldest:
                return Gap(after, oldest, bounds.newest)
            found = await rows.get_events(unit, actor.org, stream, after=after, upto=bounds.newest, limit=limit)
            last = found[-1].index if found else bounds.newest
            runs, last = await _runs(unit, actor.org, stream, bounds, after=after, upto=last)
            result = await self._result(unit, actor, JobId(stream.key), found)
        events = merged([_streamed(event, result) for event in found if event.index <= last], runs)
        is_whole = after + 1 >= max(bounds.oldest, bounds.oldest_item)
        has_more = bool(events) and last < bounds.newest
        return Batch(tuple(events), last, bounds.is_final and last == bounds.newest, is_whole, has_more)

    async def _read_item(self, actor: Actor, key: JobId, after: int) -> Batch | Gap | None:
        """Read the stream of an item of a group that has no row of its own."""
        item = await self._items.find(actor.org, key)
        if item is None:
            return None
        events = item.events
        last = len(events) - 1
        if after > last:
            return Gap(after, 0, last)
        result = None if item.value is None else item.value.value
        return Batch(tuple(_streamed(event, result) for event in events[after + 1 :]), last, item.job.status.is_final)

    async def next_ordinal(self, actor: Actor, job: JobId, *, upto: int) -> int:
        """Return the ordinal after the greatest among a job's items up to an index; 0 without any."""
        async with self._database.request_unit(actor.org) as unit:
            return await rows.get_next_ordinal(unit, actor.org, job, upto=upto)

    def attach(self, job: JobId, ordinal: int) -> ItemReader:
        """Attach a reader of a job's items, that its org has, whose generator waits for it; close it when done."""
        return self._flows.attach(job, ordinal)

    async def snapshot(self, actor: Actor, stream: StreamRef) -> Snapshot:
        """Return what a stream tells of and the index up to which the stream is contained in it; raises NotFound."""
        if stream.kind is StreamKind.JOB:
            return await self._job(actor, JobId(stream.key))
        async with self._database.request_unit(actor.org) as unit:
            held = await rows.hold(unit, actor.org, stream)
            view = await self._subject(unit, actor, stream) if held is not None else None
        if held is None or view is None:
            raise no_such(stream.kind.value)
        return Snapshot(view, None, *held)

    async def _job(self, actor: Actor, job: JobId) -> Snapshot:
        item = await self._items.find(actor.org, job)
        found = (item.job, item.value, item.last_index) if item is not None else await self._job_row(actor, job)
        if found is None:
            raise no_such("job")
        row, stored, index = found
        view = await self._jobs.view(actor, row)
        value = await self._whole(actor.org, stored) if stored is not None else None
        return Snapshot(view, value, index, row.status.is_final)

    async def _job_row(self, actor: Actor, job: JobId) -> tuple[Job, StoredValue | None, int] | None:
        async with self._database.request_unit(actor.org) as unit:
            return await rows.get_job_and_index(unit, actor.org, job)

    async def watch(self, actor: Actor, stream: StreamRef) -> Watch:
        """Open a watch; close it when done. Whether there is such a stream is told by the first reading.

        Raises:
            NotFound: The actor is user code that may not see the job or group.
            TooMany: The org has `WATCHERS_PER_ORG_MAX` open watches, or more came at once than there are turns.
        """
        if stream.kind is StreamKind.JOB:
            await self._jobs.check(actor, JobId(stream.key))
        elif stream.kind is StreamKind.GROUP:
            await self._groups.check(actor, GroupId(stream.key))
        count = self._watchers.get(actor.org, 0)
        if count >= WATCHERS_PER_ORG_MAX:
            raise TooMany(f"{count} streams are open; close some", code="too_many_watchers", retry_after_s=5)
        needs_turn = count >= FEW_WATCHERS
        if needs_turn and (wait_s := self._turns.take()) is not None:
            detail = f"many streams are opened at once; come again in {wait_s} s"
            raise TooMany(detail, code="too_many_new_watchers", retry_after_s=wait_s)
        self._watchers[actor.org] = count + 1
        return Watch(self, actor, self._tail(actor.org, stream), has_turn=needs_turn)

    def close(self, actor: Actor, tail: Tail, *, has_turn: bool) -> None:
        """Give a watch's place back, and its turn if it had one."""
        if has_turn:
            self._turns.give_back()
        left = self._watchers[actor.org] - 1
        if left:
            self._watchers[actor.org] = left
        else:
            del self._watchers[actor.org]
        tail.users -= 1
        if not tail.users:
            tail.close()
            tails = self._tails[tail.stream.key]
            tails.remove(tail)
            if not tails:
                del self._tails[tail.stream.key]
                self._note_item(tail.stream.key, is_watched=False)

    def _tail(self, org: OrgId, stream: StreamRef) -> Tail:
        """Return the tail that the watchers of one org share: who asks for another org's stream finds it empty."""
        tails = self._tails.setdefault(stream.key, [])
        tail = next((found for found in tails if (found.org, found.stream) == (org, stream)), None)
        if tail is None:
            tail = Tail(org, stream, self.reread_s)
            tails.append(tail)
            self._note_item(stream.key, is_watched=True)
        tail.users += 1
        return tail

    async def _subject(
        self, unit: Connection, actor: Actor, stream: StreamRef
    ) -> AppView | Deployment | GroupView | None:
        if stream.kind is StreamKind.GROUP:
            return await self._groups.found(unit, actor, GroupId(stream.key))
        if stream.kind is StreamKind.DEPLOYMENT:
            return await app_rows.get_deployment(unit, actor.org, DeploymentId(stream.key))
        app = await app_rows.get_app_by_id(unit, actor.org, AppId(stream.key))
        return None if app is None else app_view(app)

    def _note_item(self, key: str, *, is_watched: bool) -> None:
        """Remember which items of a group are watched: what is committed of others may concern them."""
        group, dot, _ = key.partition(".")
        if not dot:
            return
        items = self._of_groups.setdefault(group, set())
        (items.add if is_watched else items.discard)(key)
        if not items:
            del self._of_groups[group]

    async def _result(self, unit: Connection, actor: Actor, job: JobId, found: list[StoredEvent]) -> Value | None:
        if not any(event.kind == "job.result" for event in found):
            return None
        outcome = await job_rows.get_outcome(unit, actor.org, job)
        return None if outcome is None or outcome.result is None else await self._whole(actor.org, outcome.result)

    async def _whole(self, org: OrgId, stored: StoredValue) -> Value:
        if stored.blob is None:
            return stored.value
        data = await self._blobs.read(org, stored.blob, size_max=VALUE_MAX)
        return Value(stored.value.encoding, data, stored.value.python)


class Watch:
    """One reader of one stream; `close` it when done."""

    def __init__(self, streams: Streams, actor: Actor, tail: Tail, *, has_turn: bool) -> None:
        self._streams = streams
        self._actor = actor
        self._tail = tail
        self._has_turn = has_turn
        self._is_open = True
        self._has_read = False
        self._is_woken = False
        self._waiter: asyncio.Future[None] | None = None
        self._alarm = Alarm(self._resolve)

    async def next(self, after: int, *, timeout_s: float, kinds: frozenset[str] | None = None) -> Batch | Gap:
        """Return what follows `after`; an empty batch when nothing came within `timeout_s`.

        The first call, and one that does not wait, read the store if nothing is in memory.

        Args:
            kinds: What the reader wants; other events may be among those returned, and may be missing.

        Raises:
            NotFound: There is no such stream.
        """
        tail, loop = self._tail, asyncio.get_running_loop()
        until, must_read = loop.time() + timeout_s, timeout_s <= 0 or not self._has_read
        while True:
            found, seen = tail.after(after), tail.hints
            is_read = found is None or (not found.events and not found.is_final and (must_read or tail.has_unread))
            if found is None or is_read:
                found = await self._read(after, kinds)
                self._has_read, must_read = True, False
            if isinstance(found, Gap) or found.events or found.is_final:
                return found
            if self._is_woken or loop.time() >= until:
                self._is_woken = False
                return found
            if tail.hints == seen if is_read else not tail.has_unread:
                self._alarm.set(until)
                self._waiter = loop.create_future()
                await tail.wait(self._waiter)

    def wake(self) -> None:
        """Let the `next` that waits, or the one that comes, return without waiting."""
        self._is_woken = True
        self._resolve()

    def close(self) -> None:
        """Give the place back; twice is fine."""
        if self._is_open:
            self._is_open = False
            self._alarm.close()
            self._streams.close(self._actor, self._tail, has_turn=self._has_turn)

    def _resolve(self) -> None:
        if self._waiter is not None:
            resolve(self._waiter)

    async def _read(self, after: int, kinds: frozenset[str] | None) -> Batch | Gap:
        """Read from the store; at the front of the stream one reader reads for all."""
        tail = self._tail
        async with tail.lock:
            found = tail.after(after)
            if found is not None and (found.events or found.is_final):
                return found
            with tail.reading(after):
                read = await self._streams.read(self._actor, tail.stream, after=after, kinds=kinds)
                if isinstance(read, Batch) and read.is_whole:
                    tail.extend(after, read)
                elif found is not None:
                    tail.forget()
            return read


def _oldest(bounds: rows.Bounds, kinds: frozenset[str] | None) -> int:
    """Return the index from which on everything of these kinds is kept."""
    if kinds is None:
        return max(bounds.oldest, bounds.oldest_item)
    if ITEM not in kinds:
        return bounds.oldest
    return bounds.oldest_item if kinds <= KEPT_LONGER else max(bounds.oldest, bounds.oldest_item)


async def _runs(
    unit: Connection, org: OrgId, stream: StreamRef, bounds: rows.Bounds, *, after: int, upto: int
) -> tuple[list[ItemRun], int]:
    """Return the items between two indexes, and the index up to which they are all there."""
    if not bounds.has_items or upto <= after:
        return [], upto
    found = await rows.get_items(unit, org, JobId(stream.key), after=after, upto=upto, size_max=PAGE_ITEM_BYTES)
    runs = [run_of(stored) for stored in found]
    if len(runs) >= rows.SEGMENTS_LOOKED_AT or sum(map(item_bytes, runs)) >= PAGE_ITEM_BYTES:
        upto = min(upto, runs[-1].last_index)
    if runs:
        runs[0] = rest_of(runs[0], after)
    return runs, upto


def _streamed(event: StoredEvent, result: Value | None) -> Streamed:
    return Streamed(event.index, event.kind, event.data, result if event.kind == "job.result" else None)
