"""Cutting: how many of a group's items travel together, and the row that covers them."""

from __future__ import annotations

import asyncio

from apothic.wire.ids import DeploymentId, FunctionId
from apothic_server.domain.decide.chunks import LOSSES_MAX, batched_items, chunk_items, size_before_first, slots_of
from apothic_server.domain.groups import Slice, chunk_key, item_key
from apothic_server.domain.jobs import JobStatus, StoredValue
from apothic_server.services.dispatch.board import Board
from apothic_server.services.dispatch.live import UNREAD, LiveJob
from apothic_server.services.dispatch.live_groups import LiveGroup

REMEMBERED_MAX = 1_000
"""Functions of which it is remembered how long an item of their last map took."""


class Cutting:
    """Makes jobs for items."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._made = 0
        self._item_s: dict[tuple[DeploymentId, FunctionId], float] = {}

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

    def recall(self, group: LiveGroup) -> None:
        """Let a group that begins expect of its items what those of the map before took, with some caution."""
        item_s = self._item_s.get((group.function.deployment, group.function.id))
        if item_s is not None:
            group.item_s, group.size = item_s, size_before_first(item_s)

    def remember(self, group: LiveGroup) -> None:
        """Note how long the items of a group took that has ended."""
        if group.item_s is not None:
            place = (group.function.deployment, group.function.id)
            self._item_s.pop(place, None)
            self._item_s[place] = group.item_s
            if len(self._item_s) > REMEMBERED_MAX:
                del self._item_s[next(iter(self._item_s))]

    def size(self, group: LiveGroup, first: int, end: int) -> int:
        """Return how many of the items from `first` to below `end`, whose inputs are at hand, travel together."""
        spec = group.need.spec
        slots = slots_of(self._board.fleet, spec.cpu, spec.tasks_per_container, spec.max_containers)
        group.size = chunk_items(group.item_s, group.size, group.to_cut.items, slots)
        alone = group.alone.next_from(first)
        if group.is_single or alone == first:
            return 1
        room = (end if alone is None else min(end, alone)) - first
        if spec.batching is None:
            return min(group.size, room)
        found = batched_items(group.size, room, spec.batching.max_batch_size, is_rest=group.to_cut.items == room)
        group.size = max(group.size, found)
        return found
