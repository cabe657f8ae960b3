"""Maps: the unfinished groups in the dispatcher's memory, and which of their items are cut next (D10).

A group is durable before it is opened here, and so are its inputs. An item that was not cut yet is in no row of `jobs`;
each group has at most one row that waits for a slot for the first time, so groups and single calls take turns. What a
row covers, and what became of it, counts here once it is on disk. When the store refuses what memory believed, a group
is stale: nothing of it is cut until its rows were read (`map_upkeep`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from apothic.wire.ids import DeploymentId, GroupId, JobId
from apothic.wire.values import RemoteError
from apothic_server.domain.decide.chunks import ChunkVerdict, item_seconds, write_often
from apothic_server.domain.deployments import Closed
from apothic_server.domain.errors import Unavailable
from apothic_server.domain.groups import Counts, GroupStatus, Part, Segment, Slice
from apothic_server.domain.jobs import JobEvent, JobFields, JobStatus
from apothic_server.domain.views import Outcome
from apothic_server.services.dispatch.board import Board, Settled
from apothic_server.services.dispatch.calls import Calls, can_be_cancelled
from apothic_server.services.dispatch.cutting import Cutting
from apothic_server.services.dispatch.grants import Grants
from apothic_server.services.dispatch.live import LiveJob
from apothic_server.services.dispatch.live_groups import LiveGroup
from apothic_server.services.dispatch.records import move, new_job


class Maps:
    """See the module's text. All methods are synchronous and run on the event loop.

    Attributes:
        cutting: Makes their rows.
        groups: Unfinished groups.
        is_open: The rows of this term were read: items may be cut, and groups ended.
        hungry: Groups whose next inputs are to be read.
        told: Groups of which another process wrote something.
        over: Groups all of whose items have ended; to be written.
        stopped: Groups that stop by themselves; to be written.
    """

    def __init__(self, board: Board, grants: Grants, calls: Calls) -> None:
        self._board = board
        self._grants = grants
        self._calls = calls
        self.cutting = Cutting(board)
        self.groups: dict[GroupId, LiveGroup] = {}
        self.is_open = False
        self.hungry: dict[GroupId, None] = {}
        self.told: dict[GroupId, None] = {}
        self.over: dict[GroupId, None] = {}
        self.stopped: dict[GroupId, None] = {}
        grants.cut_next = self._granted

    # --- from clients

    def open(self, group: LiveGroup) -> None:
        """Take in a group whose row was just committed; nothing when it is here, or another process dispatches."""
        if self._board.term is None or group.id in self.groups:
            return
        self.groups[group.id] = group
        group.told_at = self._board.clock.monotonic()
        closed = self._board.closed.get(group.function.deployment)
        if closed is not None:
            group.is_failing, group.error = True, closed.error
        self.cutting.recall(group)
        self.go_on(group)

    def grew(self, group_id: GroupId, uploaded: int, segment: Segment | None = None) -> None:
        """The inputs of the items below `uploaded` are on disk.

        Args:
            segment: The newest of them, so that they need not be read.
        """
        group = self.groups.get(group_id)
        if group is None or uploaded <= group.uploaded:
            return
        if segment is not None and segment.first == group.uploaded:
            group.keep(segment)
        group.to_cut.add(group.uploaded, uploaded)
        group.uploaded, group.heard_at = uploaded, self._board.clock.monotonic()
        group.version += 1
        self.go_on(group)

    def close(self, group_id: GroupId, total: int) -> None:
        """The row says that no more than `total` items come."""
        group = self.groups.get(group_id)
        if group is not None:
            self.grew(group_id, total)
            group.total = total
            self.go_on(group)

    def cancel(self, group_id: GroupId, items: Sequence[int] | None = None) -> list[asyncio.Future[Settled]]:
        """Cancel a group whose row says `cancelling`, or some of its items; those that have ended stay as they are.

        Returns:
            A future of the commit of each move that was made at once; the rest follows.
        """
        group = self.groups.get(group_id)
        if group is None:
            return []
        if items is None:
            group.status = GroupStatus.CANCELLING
            return self._stop(group)
        asked: list[asyncio.Future[Settled]] = []
        for item in dict.fromkeys(items):
            asked += self._cancel_item(group, item)
        self.go_on(group)
        return asked

    def abandon(self, group_id: GroupId) -> None:
        """Cancel a group that nobody waits for any more; its row follows."""
        group = self.groups.get(group_id)
        if group is not None and not group.is_stopping:
            group.status = GroupStatus.CANCELLING
            self.stopped[group_id] = None
            self._board.hints.maps()
            self._stop(group)

    def counts(self, group_id: GroupId) -> Counts | None:
        """Return how many items of a group are in which status; None when it is not in memory: the row tells then."""
        group = self.groups.get(group_id)
        return None if group is None else self.count(group)

    # --- from the dispatcher

    def begin(self) -> None:
        """All unfinished rows were read: go on with every group."""
        self.is_open = True
        for group in list(self.groups.values()):
            self._stop(group) if group.status is GroupStatus.CANCELLING else self.go_on(group)

    def clear(self) -> None:
        """Another process dispatches now: forget everything."""
        self.groups.clear()
        self.is_open = False
        self.hungry.clear()
        self.told.clear()
        self.over.clear()
        self.stopped.clear()

    def look_at(self, group_id: GroupId) -> None:
        """Another process wrote something of a group."""
        if self._board.term is not None:
            self.told[group_id] = None
            self._board.hints.maps()

    def met(self, job: LiveJob) -> None:
        """A row of a group was read from the store."""
        group = None if job.covers is None else self.groups.get(job.covers.group)
        if group is not None:
            self.enter(group, job)

    def enter(self, group: LiveGroup, job: LiveJob) -> None:
        """The row of a live job covers items of a group; its end will be noticed."""
        assert job.covers is not None, "a row of a group covers items"
        if job.id in group.watched:
            return
        group.live[job.id] = job.covers
        group.watched.add(job.id)
        group.version += 1
        job.outcome.add_done_callback(lambda done: self._row_ended(group, job, done))

    def close_deployment(self, closed: Closed) -> None:
        """Its groups end as failed; their rows are ended by whoever closed it."""
        for group in list(self.groups.values()):
            if group.function.deployment == closed.deployment and not group.is_stopping:
                group.is_failing, group.error = True, closed.error
                group.version += 1
                self.go_on(group)

    def has(self, deployment: DeploymentId) -> bool:
        """Whether groups of a deployment have not ended."""
        return any(group.function.deployment == deployment for group in self.groups.values())

    def chunk_ended(
        self, job: JobId, covers: Slice, part: Part, verdict: ChunkVerdict, retried: Sequence[LiveJob], ran_s: float
    ) -> None:
        """The end of a chunk is on disk, and `retried` are the own rows of those of its items that are tried again."""
        group = self.groups.get(covers.group)
        if group is None:
            return
        group.watched.discard(job)
        group.version += 1
        if group.live.pop(job, None) is None:
            for own in retried:
                self.enter(group, own)
            self.spoil(group)
            return
        upto = covers.first + verdict.items
        ended = group.ended
        ended.succeeded += part.done - len(part.failed)
        ended.failed += len(part.failed) - len(retried)
        ended.cancelled += verdict.items - part.done
        for own in retried:
            self.enter(group, own)
            if own.covers is not None and own.covers.first in group.unwanted:
                self._calls.cancel(own)
        group.item_s = item_seconds(group.item_s, ran_s, part.done)
        group.written += len(part.output)
        group.is_single = group.is_single or write_often(group.written, ended.final)
        self._give_back(group, upto, covers.end, alone=verdict.alone)
        if group.waiting == job:
            group.waiting = None
        self.go_on(group)

    def count(self, group: LiveGroup) -> Counts:
        """Return how many items of a group are in which status."""
        found = replace(group.ended, queued=group.to_cut.items)
        for key, part in group.live.items():
            job = self._board.jobs.get(key)
            status = JobStatus.QUEUED if job is None else job.status
            if status is JobStatus.RETRYING:
                found.retrying += part.count
            elif status is JobStatus.QUEUED:
                found.queued += part.count
            else:
                found.running += part.count
        return found

    def forget(self, group: LiveGroup) -> None:
        """The end of a group is on disk."""
        if self.groups.pop(group.id, None) is not None:
            self.cutting.remember(group)

    def retried(self, group: LiveGroup, rows: Sequence[LiveJob]) -> None:
        """Items whose entries count as failed are tried again in these rows."""
        group.ended.failed -= len(rows)
        for own in rows:
            self.enter(group, own)

    def spoil(self, group: LiveGroup) -> None:
        """Memory of a group may be wrong: have its rows read."""
        group.is_stale = True
        group.version += 1
        self._board.hints.maps()

    def cut(self, group: LiveGroup) -> None:
        """Cut the next items and queue them, unless some wait already."""
        board = self._board
        if group.waiting is not None or group.is_stale or group.is_stopping or not group.to_cut:
            return
        if not (self.is_open and board.takes_work):
            return
        first, end = group.to_cut.lowest
        segment = group.segment_of(first)
        if segment is None:
            self.hungry[group.id] = None
            board.hints.maps()
            return
        count = 1 if segment.blob is not None else self.cutting.size(group, first, min(end, segment.end))
        covers = Slice(group.id, first, count, is_chunk=count > 1, spread=group.spread)
        job = self.cutting.job(group, covers, group.take(first, count))
        try:
            self._insert(group, job, covers)
        except Unavailable:  # too much waits to be stored: a later look goes on
            return
        group.waiting = job.id
        board.enqueue(job)

    # --- inside

    def go_on(self, group: LiveGroup) -> None:
        """Something of a group changed: cut what can be cut, stop what failed too often, end what is over."""
        if not self.is_open or self.groups.get(group.id) is not group:
            return
        failures = group.ended.failed + group.ended.timed_out
        if group.stop_after is not None and failures >= group.stop_after and not group.is_stopping:
            group.status = GroupStatus.CANCELLING
            detail = f"{failures} items failed (stop_after={group.stop_after})"
            group.error = RemoteError("apothic.MapStopped", detail, code="stopped_after_failures")
            self.stopped[group.id] = None
            self._board.hints.maps()
            self._stop(group)
            return
        self.cut(group)
        self._grants.grant_ready()
        if group.is_over:
            self.over[group.id] = None
            self._board.hints.maps()

    def _stop(self, group: LiveGroup) -> list[asyncio.Future[Settled]]:
        """Cancel what is live of a group that is being cancelled."""
        jobs = [job for key in list(group.live) if (job := self._board.jobs.get(key)) is not None]
        asked: list[asyncio.Future[Settled]] = []
        for job in jobs:
            if job.is_chunk and job.waits:
                self.uncut(group, job)
            elif can_be_cancelled(job):
                asked.append(self._calls.cancel(job))
        self.go_on(group)
        return asked

    def _cancel_item(self, group: LiveGroup, item: int) -> list[asyncio.Future[Settled]]:
        holder = next((key for key, part in group.live.items() if part.first <= item < part.end), None)
        job = None if holder is None else self._board.jobs.get(holder)
        if job is not None and not job.is_chunk:
            return [self._calls.cancel(job)]
        if job is None and not group.is_stale:
            return self._cancel_uncut(group, item) if group.to_cut.has(item) else []
        group.unwanted[item] = self._board.clock.monotonic()
        if job is not None and job.status.is_final:
            return [] if job.written is None else [job.written]
        if job is not None:
            self.uncut(group, job) if job.waits else self._calls.send_take_back(job)
        self._board.hints.maps()
        return []

    def _cancel_uncut(self, group: LiveGroup, item: int) -> list[asyncio.Future[Settled]]:
        covers = Slice(group.id, item, spread=group.spread)
        job = self.cutting.job(group, covers)
        try:
            self._insert(group, job, covers)
        except Unavailable:  # too much waits to be stored: a later look tries again
            group.unwanted[item] = self._board.clock.monotonic()
            return []
        return [self._calls.cancel(job)]

    def _insert(self, group: LiveGroup, job: LiveJob, covers: Slice) -> None:
        board = self._board
        board.records.append_quietly(
            new_job(job, job.created_at, term=board.term), lambda applied: self._inserted(group, job, applied)
        )
        group.inserting.add(job.id)
        group.to_cut.remove(covers.first, covers.end)
        group.alone.remove(covers.first, covers.end)
        board.jobs[job.id] = job
        self.enter(group, job)

    def uncut(self, group: LiveGroup, job: LiveJob) -> None:
        """Give the items of a chunk back that waits: its row ends and covers nothing."""
        board, covers = self._board, job.covers
        assert covers is not None, "a row of a group covers items"
        board.dequeue(job)
        now = board.clock.now()
        fields = JobFields(finished_at=now, chunk_items=0, chunk_done=0)
        change = move(job, JobEvent.FAILED, now, fields=fields)

        def answered(settled: Settled) -> None:
            if settled is not True:
                board.reload(job.id)
                return
            board.finish(job, Outcome(job.id, job.status, None, None, job.attempt))
            self.chunk_ended(job.id, covers, Part(), ChunkVerdict(JobEvent.FAILED, 0), (), 0.0)

        board.write(change, answered)

    def _give_back(self, group: LiveGroup, begin: int, end: int, *, alone: bool) -> None:
        if begin >= end:
            return
        group.to_cut.add(begin, end)
        group.version += 1
        if alone:
            group.alone.add(begin, end)
        for item in [item for item in group.unwanted if begin <= item < end]:
            del group.unwanted[item]
            if not group.is_stopping:
                self._cancel_uncut(group, item)

    def _granted(self, job: LiveJob) -> None:
        """A row of a group got its slot: cut the next one."""
        group = None if job.covers is None else self.groups.get(job.covers.group)
        if group is not None and group.waiting == job.id:
            group.waiting = None
            self.cut(group)

    def _inserted(self, group: LiveGroup, job: LiveJob, applied: bool) -> None:
        group.inserting.discard(job.id)
        group.version += 1
        if not applied:
            self.spoil(group)
            self._board.reload(job.id)
        elif not group.live:
            self.go_on(group)

    def _row_ended(self, group: LiveGroup, job: LiveJob, done: asyncio.Future[Outcome]) -> None:
        """The end of a row is on disk, or it is not known what became of it."""
        key = job.id
        group.watched.discard(key)
        covers = group.live.pop(key, None)
        if self.groups.get(group.id) is not group or covers is None:
            return
        group.version += 1
        if group.waiting == key:
            group.waiting = None
        if done.cancelled() or done.exception() is not None or covers.is_chunk:
            self.spoil(group)
            return
        name = done.result().status.value
        setattr(group.ended, name, getattr(group.ended, name) + 1)
        if done.result().status is not JobStatus.CANCELLED:  # how long it would have taken is not known
            group.item_s = item_seconds(group.item_s, job.ran_s, 1)
        self.go_on(group)
