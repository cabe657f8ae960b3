"""An unfinished group in the dispatcher's memory: what was not cut yet, what is on its way, what has ended."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from apothic.wire import chunks as packing
from apothic.wire.ids import GroupId, JobId, KeyId
from apothic.wire.runner import error_from_json
from apothic.wire.values import RemoteError, Value
from apothic_server.domain.apps import Function, python_of
from apothic_server.domain.decide.placement import Need
from apothic_server.domain.groups import ITEMS, SILENCE_S, Counts, Group, GroupStatus, Segment, Slice
from apothic_server.domain.jobs import StoredValue
from apothic_server.domain.ranges import Ranges

WINDOW_BYTES = 1024 * 1024
"""Inputs of one group that are kept at hand for the next chunks."""


@dataclass(slots=True, eq=False)
class LiveGroup:
    """One unfinished group. Each of its uploaded items is in `to_cut`, in a row of `live`, or counted in `ended`.

    Attributes:
        error: Why it is being ended before its items are.
        is_failing: It ends as failed, not as cancelled: its deployment was closed.
        to_cut: Items that no row covers.
        alone: Those of them that are cut one by one: something went wrong with them in a chunk.
        live: Rows that have not ended, by id.
        watched: Those of them whose job is in memory, so that their end is noticed.
        ended: Items that have ended, as far as it is on disk.
        waiting: The row that was cut last, while it waits for a slot.
        inserting: Rows that the store was given and has not confirmed.
        is_stale: Memory may be wrong: nothing is cut until the rows were read.
        version: Grows whenever `to_cut`, `live` or `ended` change.
        taken_back: Attempts of chunks, by job and fence, that were asked to give back what they had not begun.
        unwanted: Items to be cancelled that are in chunks, or of which it is not known yet where they are, and the
            monotonic seconds at which that was asked.
        window: Inputs of the items that are cut next, in order.
        item_s: How long one item takes, in seconds; None before the first has ended.
        size: Items of the chunk that was cut last.
        written: Items that wrote output in a chunk, as far as is known here.
        is_single: No chunks: each item travels alone.
        told: What its stream was told last, and when in monotonic seconds.
        heard_at: Monotonic seconds at which somebody last added items or read outcomes, as far as is known here.
        patience_s: As `Group.patience_s`.
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
    watched: set[JobId] = field(default_factory=set[JobId])
    ended: Counts = field(default_factory=Counts)
    waiting: JobId | None = None
    inserting: set[JobId] = field(default_factory=set[JobId])
    is_stale: bool = False
    version: int = 0
    taken_back: set[tuple[JobId, int]] = field(default_factory=set[tuple[JobId, int]])
    unwanted: dict[int, float] = field(default_factory=dict[int, float])
    window: list[Segment] = field(default_factory=list[Segment])
    item_s: float | None = None
    size: int = 1
    written: int = 0
    is_single: bool = False
    told: Counts = field(default_factory=Counts)
    told_at: float = 0.0
    heard_at: float = 0.0
    patience_s: float = SILENCE_S

    @property
    def is_over(self) -> bool:
        """Nothing of it is to be done any more, but to say so."""
        is_complete = self.is_stopping or (self.total == self.uploaded and not self.to_cut)
        return is_complete and not self.live and not self.inserting and not self.is_stale

    @property
    def is_stopping(self) -> bool:
        """Nothing of it is cut any more."""
        return self.status is not GroupStatus.RUNNING or self.is_failing

    def keep(self, segment: Segment) -> None:
        """Keep inputs at hand that follow those that are, as far as there is room."""
        follows = self.window[-1].end == segment.first if self.window else not self.to_cut
        if follows and sum(len(kept.data) for kept in self.window) + len(segment.data) <= WINDOW_BYTES:
            self.window.append(segment)

    def segment_of(self, item: int) -> Segment | None:
        """Return the inputs at hand that hold `item`, None when they are to be read; what is before them goes."""
        while self.window and self.window[0].end <= item:
            del self.window[0]
        return self.window[0] if self.window and self.window[0].first <= item else None

    def take(self, first: int, count: int) -> StoredValue:
        """Return the inputs of items of the first segment at hand; they leave it, with those before them."""
        segment = self.window[0]
        if segment.blob is not None:
            return StoredValue(Value(ITEMS, b"", segment.python), segment.blob)
        begin = len(packing.cut(segment.data, 0, first - segment.first))
        data = packing.cut(segment.data[begin:], 0, count)
        rest, end = segment.data[begin + len(data) :], first + count
        self.window[:1] = [replace(segment, first=end, count=segment.end - end, data=rest)] if rest else []
        return StoredValue(Value(ITEMS, data, segment.python))


def live_group(group: Group, function: Function, heard_at: float) -> LiveGroup:
    """Return the memory of a group of which nothing was cut yet; `heard_at` in monotonic seconds."""
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
        heard_at=heard_at,
        patience_s=group.patience_s,
    )
    made.to_cut.add(0, group.uploaded)
    made.error = None if group.error is None else error_from_json(group.error)
    return made
