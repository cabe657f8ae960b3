"""What is read and written for groups beside their items: rows, inputs, ends, progress; and chunks that take long.

A group that the store knows and memory does not, or of which memory may be wrong, is stale; `_reread` makes memory of
its rows as of one moment, while none of them is on its way to the store.
"""

from __future__ import annotations

from datetime import datetime

import structlog

from apothic.wire import chunks as packing
from apothic.wire.ids import GroupId
from apothic.wire.limits import VALUE_MAX
from apothic.wire.runner import error_to_json
from apothic.wire.values import Value
from apothic_server.domain.decide.placement import Wait, place
from apothic_server.domain.groups import ITEMS, Counts, Group, GroupStatus, Part, Segment
from apothic_server.domain.jobs import JobStatus, StoredValue, StreamEvent
from apothic_server.domain.ranges import Ranges
from apothic_server.domain.streams import StreamKind, StreamRef
from apothic_server.ports.blobs import Blobs
from apothic_server.services.dispatch.board import Board
from apothic_server.services.dispatch.calls import Calls, can_be_cancelled
from apothic_server.services.dispatch.chunks import OUTCOMES_MAX
from apothic_server.services.dispatch.live import LiveJob
from apothic_server.services.dispatch.live_groups import LiveGroup, live_group
from apothic_server.services.dispatch.maps import Maps
from apothic_server.services.dispatch.own_rows import OwnRows, entries_of
from apothic_server.services.dispatch.silence import Silence
from apothic_server.store import live_groups as rows
from apothic_server.store.connection import Connection
from apothic_server.store.database import Database
from apothic_server.store.recovery import deployed_function
from apothic_server.store.streams import append

log = structlog.get_logger("apothic.maps")

PAGE = 1_000
SEGMENTS = 16
"""Segments of inputs that are read at once: 1 MiB at most, but for large items, which lie in the blob store."""

CHUNKS = 100
PROGRESS_S = 1.0
"""Between two events of progress of one group."""

LONG_S = 0.5
"""A chunk that takes longer was too large, and is taken back."""

SPARE_S = 0.15
"""One that takes longer is taken back when a slot has nothing else to do."""

UNWANTED_S = 1.0
"""An item of a chunk that was cancelled may go on so long; then the chunk is cancelled, and its others begin again."""

LOOK_S = 0.1


class MapUpkeep:
    """Steps of the loop of maps, and what recovery and the feeding loop ask."""

    def __init__(self, database: Database, board: Board, maps: Maps, calls: Calls, blobs: Blobs) -> None:
        self._database = database
        self._board = board
        self._maps = maps
        self._calls = calls
        self._blobs = blobs
        self._own = OwnRows(board)
        self._silence = Silence(database, board, maps)
        self.met = maps.met
        self.begin = maps.begin

    async def read(self) -> None:
        """Take in groups that memory lacks, and what other processes did to those that it has."""
        after: str | None = ""
        unseen = set(self._maps.groups)
        while after is not None and self._board.term is not None:
            async with self._database.system_unit() as unit:
                page = await rows.unfinished_groups(unit, after=after, limit=PAGE)
                for group in page:
                    await self._compare(unit, group)
                await self._take_cancels(unit, [group.id for group in page])
            unseen.difference_update(group.id for group in page)
            after = page[-1].id if len(page) == PAGE else None
        if unseen:
            await self.look_at(sorted(unseen))

    async def look_at(self, groups: list[GroupId]) -> None:
        """Another process wrote something of these groups."""
        async with self._database.system_unit() as unit:
            await self.take_in(unit, groups)

    async def take_in(self, unit: Connection, groups: list[GroupId]) -> None:
        """Know of these groups what the store does."""
        for group in await rows.get_groups(unit, groups):
            live = self._maps.groups.get(group.id)
            if not group.status.is_final:
                await self._compare(unit, group)
            elif live is not None:
                self._maps.forget(live)
        await self._take_cancels(unit, groups)

    async def _take_cancels(self, unit: Connection, groups: list[GroupId]) -> None:
        """Take in, before others see that it was done, which items are to be cancelled."""
        term = self._board.term
        if term is not None:
            for group_id, items in (await rows.take_cancels(unit, groups, term=term)).items():
                self._maps.cancel(group_id, items)

    async def step(self) -> float | None:
        """Do what waits; return seconds until something may have to be done again, None without groups."""
        maps = self._maps
        while maps.told and self._board.term is not None:
            told, maps.told = list(maps.told), {}
            await self.look_at(told)
        for group in [one for one in maps.groups.values() if one.is_stale]:
            await self._reread(group)
        while maps.hungry:
            await self._feed(next(iter(maps.hungry)))
        for group_id in list(maps.stopped):
            await self._write_stop(group_id)
        if heard := await self._silence.end_silent():
            await self.look_at(heard)
        for group_id in list(maps.over):
            await self._write_end(group_id)
        await self._tell_progress()
        return self._look_at_chunks()

    async def read_inputs(self, job: LiveJob) -> Value | None:
        """Return the inputs of the items that a job covers; None when they are gone."""
        covers = job.covers
        if covers is None:
            return None
        async with self._database.system_read() as unit:
            found = await rows.inputs(unit, job.org, covers.group, item=covers.first, limit=SEGMENTS)
        first, parts, python = covers.first, list[bytes](), None
        for segment in found:
            count = min(covers.end, segment.end) - first
            if count <= 0:
                break
            parts.append(packing.cut(await self._data_of(job, segment), first - segment.first, count))
            first += count
            python = segment.python or python
        if first < covers.end:
            log.error("inputs.missing", group=covers.group, item=first)
            return None
        return Value(ITEMS, b"".join(parts), python)

    async def _data_of(self, job: LiveJob, segment: Segment) -> bytes:
        if segment.blob is None:
            return segment.data
        return await self._blobs.read(job.org, segment.blob, size_max=VALUE_MAX + packing.ENTRY_OVERHEAD + 1)

    async def _compare(self, unit: Connection, group: Group) -> None:
        maps, live = self._maps, self._maps.groups.get(group.id)
        if live is None:
            function = await deployed_function(unit, group.org, group.deployment, group.function)
            if function is None:
                log.error("group.without_function", group=group.id)
                return
            live = live_group(group, function, self._monotonic(group.heard_at))
            live.is_stale = True
            asked_at = self._board.clock.monotonic()
            live.unwanted = dict.fromkeys(await rows.cancels(unit, group.org, group.id), asked_at)
            maps.open(live)
            self._board.hints.maps()
            return
        live.heard_at = max(live.heard_at, self._monotonic(group.heard_at))
        maps.grew(group.id, group.uploaded)
        if group.total is not None and live.total is None:
            maps.close(group.id, group.total)
        if group.status is GroupStatus.CANCELLING and not live.is_stopping:
            maps.cancel(group.id)

    async def _reread(self, group: LiveGroup) -> None:
        version, org = group.version, group.need.org
        if not self._maps.is_open or not self._is_still(group):
            return
        async with self._database.system_unit() as unit:
            await rows.one_snapshot(unit)
            ended = await rows.count_items(unit, org, group.id)
            gaps = await rows.uncovered(unit, org, group.id, uploaded=group.uploaded)
            live = await rows.live_rows(unit, org, group.id)
        if version != group.version or not self._is_still(group) or self._maps.groups.get(group.id) is not group:
            return
        missing = [key for key in live if key not in self._board.jobs]
        for key in missing:
            self._board.look_at(key)
        if missing:
            return
        group.ended, group.live, group.waiting = ended, live, None
        group.to_cut = Ranges(gaps)
        group.is_stale = False
        for key in live:
            self._maps.enter(group, self._board.jobs[key])
        await self._retry(group)
        self._maps.cancel(group.id, list(group.unwanted))

    def _is_still(self, group: LiveGroup) -> bool:
        """Whether nothing of a group is on its way to the store."""
        board = self._board
        jobs = [board.jobs.get(key) for key in group.live]
        is_quiet = all(job is None or (job.told == job.moves and job.id not in board.to_reload) for job in jobs)
        return is_quiet and not group.inserting

    async def _retry(self, group: LiveGroup) -> None:
        """Make the rows of failed items that a process which died had no time for."""
        spec, item = group.need.spec, 0
        while spec.max_retries > 0 and not spec.at_most_once and not group.is_stopping:
            async with self._database.system_unit() as unit:
                page = await rows.unretried(unit, group.need.org, group.id, item=item, limit=CHUNKS)
            for stored in page:
                data = stored.data
                if stored.blob is not None:
                    data = await self._blobs.read(group.need.org, stored.blob, size_max=OUTCOMES_MAX)
                chunk = self._maps.cutting.job(group, stored.covers)
                chunk.fence, chunk.worker, chunk.created_at = stored.fence, stored.worker, stored.created_at
                chunk.started_at = self._monotonic(stored.started_at or stored.created_at)
                value = StoredValue(Value(ITEMS, data, stored.python))
                part = Part(packing.count(data), stored.failed)
                entries = [one for one in entries_of(chunk, part, value, self._board.random) if one.is_retried]
                known = group.live
                entries = [one for one in entries if not any(own.first == one.item for own in known.values())]
                self._maps.retried(group, self._own.write_retried(group, chunk, entries))
            if len(page) < CHUNKS:
                return
            item = page[-1].covers.end

    def _monotonic(self, at: datetime) -> float:
        clock = self._board.clock
        return clock.monotonic() + (at - clock.now()).total_seconds()

    async def _feed(self, group_id: GroupId) -> None:
        group = self._maps.groups.get(group_id)
        if group is not None and group.to_cut:
            item = group.to_cut.lowest[0]
            async with self._database.system_read() as unit:
                found = await rows.inputs(unit, group.need.org, group_id, item=item, limit=SEGMENTS)
            if not found:
                log.error("inputs.missing", group=group_id, item=item)
            group.window = found
        self._maps.hungry.pop(group_id, None)
        if group is not None and group.window:
            self._maps.go_on(group)

    async def _write_stop(self, group_id: GroupId) -> None:
        group, term = self._maps.groups.get(group_id), self._board.term
        if group is not None and term is not None:
            error = None if group.error is None else error_to_json(group.error)
            async with self._database.system_unit() as unit:
                await rows.stop_group(unit, group.need.org, group_id, error, term=term)
        self._maps.stopped.pop(group_id, None)

    async def _write_end(self, group_id: GroupId) -> None:
        maps, term, now = self._maps, self._board.term, self._board.clock.now()
        group = maps.groups.get(group_id)
        if group is None or term is None or not group.is_over:
            maps.over.pop(group_id, None)
            return
        counts, status = maps.count(group), _final_status(group)
        name = "failed" if group.is_failing else "cancelled"
        setattr(counts, name, getattr(counts, name) + counts.queued)
        counts.queued = 0
        error = None if group.error is None else error_to_json(group.error)
        told = {"status": status.value, "counts": counts.as_json()}
        async with self._database.system_unit() as unit:
            is_ended = await rows.end_group(
                unit, group.need.org, group_id, status, counts, error, uploaded=group.uploaded, now=now, term=term
            )
            if is_ended:
                end = StreamEvent("group.end", now, told)
                await append(unit, group.need.org, StreamRef(StreamKind.GROUP, group_id), [end], ended_at=now)
        maps.over.pop(group_id, None)
        if is_ended and maps.groups.get(group_id) is group:
            maps.forget(group)
            self._board.hints.changed(group_id)

    async def _tell_progress(self) -> None:
        now = self._board.clock.monotonic()
        for group in list(self._maps.groups.values()):
            if group.is_stale or now < group.told_at + PROGRESS_S:
                continue
            counts = self._maps.count(group)
            if counts == group.told:
                continue
            group.told, group.told_at = counts, now
            data = {"counts": counts.as_json(), "items": group.uploaded, "total": group.total}
            told = StreamEvent("group.progress", self._board.clock.now(), data)
            async with self._database.system_unit() as unit:
                await append(unit, group.need.org, StreamRef(StreamKind.GROUP, group.id), [told])
            self._board.hints.changed(group.id)

    def _look_at_chunks(self) -> float | None:
        """Take chunks back that take too long, or whose items others could execute."""
        board, groups = self._board, self._maps.groups
        now = board.clock.monotonic()
        for group in groups.values():
            spare: bool | None = None
            for key, covers in group.live.items():
                job = board.jobs.get(key) if covers.is_chunk else None
                if job is None or job.status is not JobStatus.RUNNING:
                    continue
                ran_s = now - job.started_at
                if ran_s >= SPARE_S and spare is None:
                    spare = not group.to_cut and not isinstance(place(group.need, board.fleet), Wait)
                if ran_s >= LONG_S or (ran_s >= SPARE_S and spare):
                    self._take_back(group, job)
            for item, asked_at in list(group.unwanted.items()) if not group.is_stale else ():
                self._end_unwanted(group, item, now - asked_at)
        return LOOK_S if groups else None

    def _take_back(self, group: LiveGroup, job: LiveJob) -> None:
        if (job.id, job.fence) not in group.taken_back:
            group.taken_back.add((job.id, job.fence))
            self._calls.send_take_back(job)

    def _end_unwanted(self, group: LiveGroup, item: int, waited_s: float) -> None:
        holder = next((key for key, part in group.live.items() if part.first <= item < part.end), None)
        job = None if holder is None else self._board.jobs.get(holder)
        if job is None or not job.is_chunk:
            group.unwanted.pop(item, None)
            self._maps.cancel(group.id, [item])
        elif job.waits:
            self._maps.uncut(group, job)
        elif waited_s >= UNWANTED_S and can_be_cancelled(job):
            self._calls.cancel(job)


def _final_status(group: LiveGroup) -> GroupStatus:
    if group.is_failing:
        return GroupStatus.FAILED
    if group.status is GroupStatus.CANCELLING:
        return GroupStatus.CANCELLED
    ended: Counts = group.ended
    return GroupStatus.SUCCEEDED if ended.succeeded == ended.final else GroupStatus.FAILED
