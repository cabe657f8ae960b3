"""Items of groups that have no row of their own: what they are, from the row of their chunk or from their group.

The reading rule: an item's own row tells of it; without one its chunk's entry does, then its chunk's status, then its
group's. What has a row of its own is none of this module's business.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec

from apothic.wire import chunks
from apothic.wire.ids import GroupId, JobId, OrgId
from apothic.wire.limits import CHUNK_OUTCOMES_MAX, MIB, VALUE_MAX
from apothic.wire.values import Value
from apothic_server.domain.access import Actor, Attempt
from apothic_server.domain.decide.endings import NEVER_RETRIED
from apothic_server.domain.groups import Group, GroupStatus, item_key, parse_item_key
from apothic_server.domain.jobs import Job, JobStatus, StoredEvent, StoredOutcome, StoredValue
from apothic_server.ports.blobs import Blobs
from apothic_server.services.deployed import DeployedFunctions
from apothic_server.services.dispatch.board import Board
from apothic_server.services.dispatch.group_waits import GroupWaits
from apothic_server.services.dispatch.nesting import Leave, caller
from apothic_server.services.ended_chunks import EndedChunks
from apothic_server.services.item_arguments import call_of
from apothic_server.services.item_cancels import ItemCancels
from apothic_server.store import groups as rows
from apothic_server.store.connection import Connection
from apothic_server.store.database import Database
from apothic_server.store.groups import CoveringChunk

RESULT_MAX = CHUNK_OUTCOMES_MAX + 2 * VALUE_MAX + MIB
"""Most bytes of the packed outcomes of a chunk, with the last ones and what stands between them."""


@dataclass(frozen=True, slots=True)
class Item:
    """An item without a row of its own, as it is now."""

    job: Job
    value: StoredValue | None = None

    @property
    def last_index(self) -> int:
        """Newest index of its stream: one event until it has ended, then one for each status and what came out."""
        return len(self.events) - 1

    @property
    def events(self) -> list[StoredEvent]:
        """Its stream: all of it is told at its end, so that nothing that was told has to be taken back."""
        job = self.job
        found = [StoredEvent(0, "job.queued", job.created_at, {"status": "queued"})]
        if not job.status.is_final:
            return found
        ended_at = job.finished_at or job.created_at
        started_at = job.started_at or ended_at
        told: list[tuple[str, datetime, dict[str, Any]]] = []
        if job.attempt:
            starting = {"status": "starting", "previous": "queued", "attempt": job.attempt}
            told.append(("job.status", started_at, starting))
            told.append(("job.running", started_at, {"status": "running", "attempt": job.attempt}))
        if job.error is not None:
            told.append(("job.error", ended_at, {**job.error, "attempt": job.attempt}))
        if job.status is JobStatus.SUCCEEDED:
            told.append(("job.result", ended_at, {"attempt": job.attempt}))
        told.append(("job.end", ended_at, {"status": job.status.value}))
        return [*found, *(StoredEvent(index, *event) for index, event in enumerate(told, 1))]

    @property
    def outcome(self) -> StoredOutcome:
        job = self.job
        return StoredOutcome(job.id, job.status, job.attempt, self.value, job.error, is_derived=True)


class GroupItems:
    """Finds such items, for any org."""

    def __init__(
        self,
        database: Database,
        deployed: DeployedFunctions,
        blobs: Blobs,
        board: Board,
        waits: GroupWaits,
        cancels: ItemCancels,
    ) -> None:
        self._database = database
        self._deployed = deployed
        self._blobs = blobs
        self._board = board
        self._cancels = cancels
        self._waits = waits
        self._ended = EndedChunks()

    async def find(self, org: OrgId, key: JobId, *, with_value: bool = True) -> Item | None:
        """Return the item that has a key, or None when the org has none, or one with a row of its own.

        Once an item has a row of its own it keeps it: who looks here first, and for the row then, misses nothing.

        Args:
            with_value: Else what it returned is left out.
        """
        place = parse_item_key(key)
        if place is None:
            return None
        group_id, number = place
        is_tried_again, found = False, self._ended.find(org, group_id, number)
        if found is None:
            async with self._database.request_unit(org) as unit:
                found = await rows.get_item(unit, org, group_id, number, key, with_result=with_value)
                if found is None:
                    return None
                chunk = found.chunk
                if chunk is not None and number - chunk.first in chunk.failed and not found.group.status.is_final:
                    is_tried_again = await self._retries(unit, found.group) > 0
            found = self._ended.keep(org, found)
        if found.has_row:
            return None
        group, chunk = found.group, found.chunk
        if chunk is None:
            item = _uncut(group, number)
        else:
            item = await self._covered(group, number, chunk, is_tried_again=is_tried_again, with_value=with_value)
        if found.is_cancel_asked and not item.job.status.is_final:
            return Item(replace(item.job, status=JobStatus.CANCELLING))
        return item

    async def cancel(self, actor: Actor, key: JobId) -> bool:
        """Cancel an item that has no row of its own; False for any other job.

        Raises:
            Unavailable: No process that dispatches answers; the item will be cancelled.
        """
        place, item = parse_item_key(key), await self.find(actor.org, key, with_value=False)
        if place is None or item is None:
            return False
        group_id, number = place
        if not item.job.status.is_final:
            async with self._database.request_unit(actor.org) as unit:
                group = await rows.hold_group(unit, actor.org, group_id)
                if group is not None:
                    await self._cancels.write(unit, group, [number])
            await self._cancels.carry_out(actor.org, group_id, [number])
        return True

    def follow(self, attempt: Attempt, key: JobId) -> Leave:
        """Note that user code waits for an item without a row of its own until the returned function is called.

        Raises:
            Conflict: It would wait for ever (`call_cycle_deadlock`).
            Fenced: Its attempt ended meanwhile.
        """
        place = parse_item_key(key)
        if place is None or key in self._board.jobs:
            return lambda: None
        return self._waits.follow(caller(self._board, attempt), place[0])

    async def arguments(self, org: OrgId, key: JobId) -> StoredValue | None:
        """Return what an item was called with, as a call has it; None when the org has no such item."""
        place = parse_item_key(key)
        if place is None:
            return None
        group_id, number = place
        async with self._database.request_unit(org) as unit:
            group = await rows.get_group(unit, org, group_id)
            segment = None if group is None else await rows.get_inputs(unit, org, group_id, number)
        if group is None or segment is None:
            return None
        data = segment.data
        if segment.blob is not None:
            data = await self._blobs.read(org, segment.blob, size_max=RESULT_MAX)
        (entry,) = chunks.unpack(chunks.cut(data, number - segment.first, 1))
        return StoredValue(call_of(entry, segment.python, spread=group.spread))

    async def _covered(
        self, group: Group, number: int, chunk: CoveringChunk, *, is_tried_again: bool, with_value: bool
    ) -> Item:
        offset = number - chunk.first
        if not chunk.status.is_final or offset >= chunk.done or chunk.result is None:
            error = chunk.error if chunk.status.is_final else None
            return Item(_job(group, number, chunk.status, chunk, error))
        if not with_value and offset not in chunk.failed:
            return Item(_job(group, number, JobStatus.SUCCEEDED, chunk, None))
        entry = await self._entry(group.org, chunk, chunk.result, offset)
        encoding = chunks.ENCODINGS.get(entry[:1])
        if encoding is not None:
            job = _job(group, number, JobStatus.SUCCEEDED, chunk, None)
            return Item(job, StoredValue(Value(encoding, entry[1:], chunk.result.value.python)))
        error = error_in(entry)
        is_open = is_tried_again and error.get("code") not in NEVER_RETRIED
        return Item(_job(group, number, JobStatus.RETRYING if is_open else JobStatus.FAILED, chunk, error))

    async def _entry(self, org: OrgId, chunk: CoveringChunk, result: StoredValue, offset: int) -> bytes:
        """Return what the outcomes of a chunk tell of one of its items."""
        if chunk.entries is not None:
            return chunk.entries[offset]
        data = result.value.data
        if result.blob is not None:
            data = await self._blobs.read(org, result.blob, size_max=RESULT_MAX)
        (entry,) = chunks.unpack(chunks.cut(data, offset, 1))
        return entry

    async def _retries(self, unit: Connection, group: Group) -> int:
        function = await self._deployed.get(unit, group.org, group.deployment, group.function)
        return 0 if function is None or function.spec.at_most_once else function.spec.max_retries


def error_in(entry: bytes) -> dict[str, Any]:
    """Return the error that an entry tells; workers are not trusted to send one."""
    try:
        return msgspec.json.decode(entry[1:], type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return {"type": "", "message": "the error cannot be read", "traceback": "", "code": "lost", "causes": []}


def _uncut(group: Group, number: int) -> Item:
    """Return an item that no row covers: it waits, or ended with its group."""
    if not group.status.is_final:
        return Item(_job(group, number, JobStatus.QUEUED, None, None))
    status = JobStatus.CANCELLED if group.status is GroupStatus.CANCELLED else JobStatus.FAILED
    return Item(_job(group, number, status, None, group.error))


def _job(
    group: Group, number: int, status: JobStatus, chunk: CoveringChunk | None, error: dict[str, Any] | None
) -> Job:
    ended_at = group.finished_at if chunk is None else chunk.finished_at
    return Job(
        id=item_key(GroupId(group.id), number),
        org=group.org,
        app=group.app,
        deployment=group.deployment,
        function=group.function,
        status=status,
        attempt=0 if chunk is None else chunk.attempt,
        fence=0,
        losses=0,
        worker=None,
        term=None,
        run_at=group.created_at,
        error=error,
        created_by=group.created_by,
        created_at=group.created_at,
        started_at=None if chunk is None else chunk.started_at,
        finished_at=ended_at if status.is_final else None,
        retry_of=None,
        parent=group.parent,
        depth=group.depth,
    )
