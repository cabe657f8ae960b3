"""Cutting: how many of a group's items travel together, and the row that covers them."""

from __future__ import annotations

import asyncio

from apothic_server.domain.decide.chunks import LOSSES_MAX, chunk_items, slots_of
from apothic_server.domain.groups import Slice, chunk_key, item_key
from apothic_server.domain.jobs import JobStatus, StoredValue
from apothic_server.services.dispatch.board import Board
from apothic_server.services.dispatch.live import UNREAD, LiveJob
from apothic_server.services.dispatch.live_groups import LiveGroup


class Cutting:
    """Makes jobs for items."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._made = 0

    def job(self, group: LiveGroup, covers: Slice, arguments: StoredValue = UNREAD) -> LiveJob:
        """Return the job that covers these items, which nothing was written of yet."""
        board, spec = self._board, group.need.spec
        monotonic = board.clock.monotonic()
        self._made += 1
        # The same items may be cut again if this row is never stored: no number, and no fence, is given out twice.
        number = ((board.term or 0) << 32) + self._made
        job = LiveJob(
            id=chunk_key(group.id, covers.first, number) if covers.is_chunk else item_key(group.id, covers.first),
            function=group.function,
            need=group.need,
            arguments=arguments,
            status=JobStatus.QUEUED,
            attempt=0,
            fence=0,
            losses=0 if covers.is_chunk or not group.alone.has(covers.first) else LOSSES_MAX,  # those of its chunk
            created_at=board.clock.now(),
            outcome=asyncio.get_running_loop().create_future(),
            created_by=group.created_by,
            due_at=monotonic,
            fence_max=number,
            parent=group.parent,
            depth=group.depth,
            covers=covers,
        )
        if spec.deadline_s is not None:
            job.deadline_at = monotonic + spec.deadline_s
        return job

    def size(self, group: LiveGroup, first: int, end: int) -> int:
        """Return how many of the items from `first` to below `end`, whose inputs are at hand, travel together."""
        spec = group.need.spec
        if spec.batching is not None:  # collected where they are executed
            return 1
        slots = slots_of(self._board.fleet, spec.cpu, spec.tasks_per_container, spec.max_containers)
        group.size = chunk_items(group.item_s, group.size, group.to_cut.items, slots)
        alone = group.alone.next_from(first)
        if group.is_single or alone == first:
            return 1
        return min(group.size, end - first, end if alone is None else alone - first)
