"""How many items of a map travel together, and what the end of their attempt makes of them."""

from __future__ import annotations

from dataclasses import dataclass

from apothic.wire.limits import CHUNK_ITEMS_MAX
from apothic_server.domain.decide.endings import Ended
from apothic_server.domain.fleet import Fleet
from apothic_server.domain.groups import Part
from apothic_server.domain.jobs import JobEvent, JobStatus

CHUNK_S = 0.1
"""A chunk is to take so long: what it costs beside user code is little then, and so is the wait for its slot."""

GROWTH = 4
"""A chunk has at most so many times the items of the one before: the first items may be quicker than the others."""

SHARES = 2
"""Towards the end each slot gets what is left in so many parts, so that all slots end at about the same time."""

LEAST_S = 0.01
"""Nor does a chunk take less than this for the sake of the end: what it costs would be more than is won."""

WRITERS_FREE, WRITERS_SHARE = 16, 0.1
"""Items that may write output without a thought, and the share of all others: each has a row of its own in any case.

Lines of a chunk leave at its end, so where most items write, each travels alone and its lines are seen at once.
"""

FIRST_S = CHUNK_S / 4
"""The first chunk of a map is to take no longer, going by the map of its function before: this one may be different."""

NEWEST = 0.3
"""Weight of the newest chunk in the time that an item takes."""

LOSSES_MAX = 2
"""Attempts of a chunk that workers may lose; then its items travel alone, because one of them may be the cause."""


def chunk_items(item_s: float | None, last: int, left: int, slots: int) -> int:
    """Return how many items to send together, 1 to `CHUNK_ITEMS_MAX`.

    Args:
        item_s: What one item takes, in seconds; None when none has ended yet.
        last: Items of the chunk before.
        left: Items that can be sent now, at least 1.
        slots: Places where the function can be executed at once.
    """
    if item_s is None:
        return 1
    share = max(-(-left // (SHARES * max(1, slots))), _within(LEAST_S, item_s))
    return max(1, min(_within(CHUNK_S, item_s), last * GROWTH, share, left))


def batched_items(items: int, room: int, batch: int, *, is_rest: bool) -> int:
    """Return how many items of a function with batching to send together: whole batches, at least one.

    Args:
        items: How many `chunk_items` wants.
        room: How many can be sent together, at least 1.
        batch: Most items of one batch.
        is_rest: No others wait now. A rest that fills no batch travels one by one, so that others can join it.
    """
    if room < batch:
        return 1 if is_rest else room
    return min(max(items, batch), room) // batch * batch


def size_before_first(item_s: float) -> int:
    """Return as `last` of a map's first chunk what lets that chunk take `FIRST_S`."""
    return max(1, _within(FIRST_S, item_s) // GROWTH)


def write_often(written: int, ended: int) -> bool:
    """Return whether so many of a map's items write output, of those that have ended, that each is to travel alone."""
    return written > WRITERS_FREE + ended * WRITERS_SHARE


def item_seconds(before: float | None, ran_s: float, items: int) -> float | None:
    """Return what one item takes, after so many more of them took `ran_s` together."""
    if items < 1:
        return before
    newest = max(0.0, ran_s) / items
    return newest if before is None else before + NEWEST * (newest - before)


def _within(seconds: float, item_s: float) -> int:
    """Return how many items take no longer than so many seconds, at most `CHUNK_ITEMS_MAX`."""
    return CHUNK_ITEMS_MAX if item_s * CHUNK_ITEMS_MAX <= seconds else int(seconds / item_s)


def slots_of(fleet: Fleet, cpu: int, tasks: int, containers_max: int) -> int:
    """Return in how many places a function can be executed at once if nothing else is."""
    runners = sum(int(worker.machine.cpus // max(1, cpu)) for worker in fleet.workers.values() if worker.is_able)
    return max(1, min(runners, containers_max) * tasks)


@dataclass(frozen=True, slots=True)
class ChunkVerdict:
    """The move of a chunk's row.

    Attributes:
        event: Move of table J.
        items: Items that the row covers from now on; the others go back.
        alone: Those are to travel alone.
    """

    event: JobEvent
    items: int
    alone: bool = False


def judge_chunk(
    status: JobStatus, ended: Ended, part: Part, count: int, losses: int, *, is_stopping: bool, is_split: bool = False
) -> ChunkVerdict | None:
    """Return what follows from the end of a chunk's attempt; None: the whole chunk waits for another attempt.

    Args:
        status: Before the end: STARTING, RUNNING or CANCELLING.
        losses: Attempts of it that were lost before.
        is_stopping: Nothing of the group is executed any more, so nothing goes back.
        is_split: Some of its items are to be cancelled, so it does not wait as a whole.
    """
    if status is JobStatus.CANCELLING:
        return ChunkVerdict(JobEvent.STOPPED, count if is_stopping else part.done)
    if part.done and status is JobStatus.RUNNING:
        return ChunkVerdict(JobEvent.SUCCEEDED, part.done, alone=ended.outcome in ("failed", "timed_out"))
    if ended.outcome == "lost" and (ended.never_started or losses + 1 < LOSSES_MAX):
        return ChunkVerdict(JobEvent.FAILED, 0) if is_split else None
    return ChunkVerdict(JobEvent.FAILED, 0, alone=ended.outcome != "succeeded")
