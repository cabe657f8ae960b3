"""An unfinished group in the dispatcher's memory: what was not cut yet, what is on its way, what has ended."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from apothic.wire.ids import GroupId, JobId, KeyId
from apothic.wire.values import RemoteError
from apothic_server.domain.apps import Function, python_of
from apothic_server.domain.decide.placement import Need
from apothic_server.domain.groups import Counts, Group, GroupStatus, Segment, Slice

TOLD_MAX = 10_000
"""Ranges kept for a listener that does not take them; with more it is told to look for itself."""

Range = tuple[int, int]
"""First item, and the one after the last."""


class Ranges:
    """A set of items as ranges, in order, none empty and none touching another."""

    def __init__(self, ranges: list[Range] | None = None) -> None:
        self._ranges: list[Range] = []
        self.items = 0
        for begin, end in ranges or ():
            self.add(begin, end)

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def __iter__(self) -> Iterator[Range]:
        return iter(self._ranges)

    @property
    def lowest(self) -> Range:
        """The first range; there must be one."""
        return self._ranges[0]

    def add(self, begin: int, end: int) -> None:
        """Put the items from `begin` to below `end` in; none of them may be there."""
        if begin >= end:
            return
        self.items += end - begin
        at = bisect_left(self._ranges, (begin, begin))
        if at < len(self._ranges) and self._ranges[at][0] == end:
            end = self._ranges.pop(at)[1]
        if at and self._ranges[at - 1][1] == begin:
            at -= 1
            begin = self._ranges.pop(at)[0]
        self._ranges.insert(at, (begin, end))

    def remove(self, begin: int, end: int) -> None:
        """Take items out; those that are not there are left alone."""
        if begin >= end:
            return
        at = max(0, bisect_right(self._ranges, (begin, begin)) - 1)
        while at < len(self._ranges) and self._ranges[at][0] < end:
            low, high = self._ranges[at]
            rest = [part for part in ((low, min(high, begin)), (max(low, end), high)) if part[0] < part[1]]
            self.items -= high - low - sum(part[1] - part[0] for part in rest)
            self._ranges[at : at + 1] = rest
            at += len(rest)

    def next_from(self, item: int) -> int | None:
        """Return the lowest item that is not below `item`; None without one."""
        at = bisect_right(self._ranges, (item, item))
        if at and self._ranges[at - 1][1] > item:
            return max(item, self._ranges[at - 1][0])
        return self._ranges[at][0] if at < len(self._ranges) else None

    def has(self, item: int) -> bool:
        return self.next_from(item) == item


class Listener:
    """Is told which items of a group became final, once that is on disk. `close` it when done.

    Attributes:
        is_over: Nothing more is told here: the group has ended, or another process dispatches.
    """

    def __init__(self, group: LiveGroup) -> None:
        self._group = group
        self._told: list[Range] = []
        self._is_lost = False
        self._woken = asyncio.Event()
        self.is_over = False
        group.listeners.append(self)

    def take(self) -> list[Range] | None:
        """Return what became final since the last call, in the order of the commits; None: look at the store."""
        told, self._told = self._told, []
        is_lost, self._is_lost = self._is_lost, False
        if not self.is_over:
            self._woken.clear()
        return None if is_lost else told

    async def wait(self) -> None:
        """Wait until there is something to take, or it is over."""
        await self._woken.wait()

    def tell(self, begin: int, end: int) -> None:
        """Items became final."""
        if self._told and self._told[-1][1] == begin:
            self._told[-1] = (self._told[-1][0], end)
        elif len(self._told) < TOLD_MAX:
            self._told.append((begin, end))
        else:
            self.lose()
        self._woken.set()

    def lose(self) -> None:
        """Anything may have become final."""
        self._told.clear()
        self._is_lost = True
        self._woken.set()

    def end(self) -> None:
        """Nothing more will be told."""
        self.is_over = True
        self._woken.set()

    def close(self) -> None:
        """Be told nothing more; twice is fine."""
        if self in self._group.listeners:
            self._group.listeners.remove(self)


@dataclass(slots=True, eq=False)
class LiveGroup:
    """One unfinished group. Each of its uploaded items is in `to_cut`, in a row of `live`, or counted in `ended`.

    Attributes:
        error: Why it is being ended before its items are.
        is_failing: It ends as failed, not as cancelled: its deployment was closed.
        to_cut: Items that no row covers.
        alone: Those of them that are cut one by one: something went wrong with them in a chunk.
        live: Rows that have not ended, by id.
        ended: Items that have ended, as far as it is on disk.
        waiting: The row that was cut last, while it waits for a slot.
        inserting: Rows that the store was given and has not confirmed.
        is_stale: Memory may be wrong: nothing is cut until the rows were read.
        version: Grows whenever `to_cut`, `live` or `ended` change.
        window: Inputs of the items that are cut next, in order.
        item_s: How long one item takes, in seconds; None before the first has ended.
        size: Items of the chunk that was cut last.
        is_single: No chunks: each item travels alone.
        told: What its stream was told last, and when in monotonic seconds.
    """

    id: GroupId
    function: Function
    need: Need
    spread: bool
    stop_after: int | None
    created_by: KeyId
    parent: JobId | None
    depth: int
    status: GroupStatus
    uploaded: int
    total: int | None
    error: RemoteError | None = None
    is_failing: bool = False
    to_cut: Ranges = field(default_factory=Ranges)
    alone: Ranges = field(default_factory=Ranges)
    live: dict[JobId, Slice] = field(default_factory=dict[JobId, Slice])
    ended: Counts = field(default_factory=Counts)
    waiting: JobId | None = None
    inserting: set[JobId] = field(default_factory=set[JobId])
    is_stale: bool = False
    version: int = 0
    window: list[Segment] = field(default_factory=list[Segment])
    item_s: float | None = None
    size: int = 1
    is_single: bool = False
    told: Counts = field(default_factory=Counts)
    told_at: float = 0.0
    listeners: list[Listener] = field(default_factory=list[Listener])

    @property
    def is_stopping(self) -> bool:
        """Nothing of it is cut any more."""
        return self.status is not GroupStatus.RUNNING or self.is_failing

    def tell(self, begin: int, end: int) -> None:
        """Items became final: tell everybody who listens."""
        for listener in self.listeners:
            listener.tell(begin, end)


def live_group(group: Group, function: Function) -> LiveGroup:
    """Return the memory of a group of which nothing was cut yet."""
    spec = function.spec
    made = LiveGroup(
        id=group.id,
        function=function,
        need=Need(group.org, (group.deployment, group.function), python_of(function), spec),
        spread=group.spread,
        stop_after=group.stop_after,
        created_by=group.created_by,
        parent=group.parent,
        depth=group.depth,
        status=group.status,
        uploaded=group.uploaded,
        total=group.total,
        is_single=spec.at_most_once or spec.is_generator,
    )
    made.to_cut.add(0, group.uploaded)
    return made
