"""An unfinished job in the dispatcher's memory, and the queues of those that wait for a slot."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from apothic.wire.ids import JobId, KeyId, OrgId
from apothic.wire.limits import ITEMS_UNREAD_MAX
from apothic.wire.values import Value
from apothic_server.domain.apps import Function
from apothic_server.domain.decide.placement import Need
from apothic_server.domain.fleet import GroupKey, Runner
from apothic_server.domain.groups import Slice
from apothic_server.domain.jobs import ItemCount, ItemSegment, JobStatus, StoredValue
from apothic_server.domain.views import Outcome

WAITING = (JobStatus.QUEUED, JobStatus.RETRYING)

UNREAD = StoredValue(Value("items", b""), blob="")
"""Arguments of items whose inputs are to be read from their group."""


@dataclass(slots=True, eq=False)
class ItemFlow:
    """How far the items of one job are. Ordinals are those of `attempt`.

    Attributes:
        attempt: Newest attempt that yielded items; 0 when none did.
        received: Ordinal of the next item that its worker sends.
        written: Items below it are on disk.
        taken: Its worker was told that items below it are taken.
        floor: Readers that were sent the items below it and no more have `ITEMS_UNREAD_MAX` or more unread.
        waiting: Not on disk yet, in order; the first `writing` of them are with the writer.
        ending: Called when nothing waits any more.
    """

    attempt: int = 0
    received: int = 0
    written: int = 0
    taken: int = 0
    floor: int = -1
    waiting: list[ItemSegment] = field(default_factory=list[ItemSegment])
    writing: int = 0
    ending: Callable[[], None] | None = None
    _recent: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    _recent_bytes: int = 0

    def begin(self, attempt: int, ordinal: int = 0) -> None:
        """Start over with the items of another attempt, from an ordinal on."""
        self.attempt = attempt
        self.received = self.written = self.taken = ordinal
        self.floor, self.writing = -1, 0
        self.waiting.clear()
        self.ending = None
        self._recent = [(ordinal, 0)]
        self._recent_bytes = 0

    def wrote(self, segment: ItemSegment) -> None:
        """The segment is on disk."""
        self.written = segment.first_ordinal + segment.count
        size = len(segment.data)
        self._recent_bytes += size
        if 0 < self._recent[-1][1] <= RECENT_STEP - size:
            size += self._recent.pop()[1]
        self._recent.append((self.written, size))
        while self._recent_bytes - self._recent[0][1] >= ITEMS_UNREAD_MAX:
            self.floor, gone = self._recent.pop(0)
            self._recent_bytes -= gone

    def resume(self, attempt: int, stored: ItemCount) -> None:
        """Go on from what the store has, after memory of it may be wrong.

        Args:
            attempt: The job's newest attempt.
            stored: How far its items are on disk.
        """
        self.writing = 0
        if attempt == stored.attempt == self.attempt:
            while self.waiting and self.waiting[0].first_ordinal < stored.next_ordinal:
                self.waiting.pop(0)
            self.written = stored.next_ordinal
        elif self.attempt != attempt or not self.waiting:
            self.begin(stored.attempt, stored.next_ordinal)


NO_ITEMS = ItemFlow()
"""Of all jobs that have yielded nothing; never changed."""

RECENT_STEP = ITEMS_UNREAD_MAX // 64
"""Granularity with which the unread bytes of readers are known."""


@dataclass(slots=True)
class Output:
    """Lines of one attempt, by their numbers.

    Attributes:
        fence: Of the attempt.
        taken: The lines below this number have come.
        kept: Those below this number are on disk.
    """

    fence: int
    taken: int = 0
    kept: int = 0


@dataclass(slots=True, eq=False)
class LiveJob:
    """One unfinished job. There may be 100,000 of them, all made at a start: what each takes counts.

    Attributes:
        need: Where it may run.
        losses: Grants lost to infrastructure so far.
        fence_max: Greatest fence that this process gave out for it, also in a grant that the store does not have. None
            is used twice: two workers with the same one could not be told apart.
        unstarted: Grants in a row that never reached user code.
        runner: The runner that executes it; None while it waits, and while its worker has not come back yet.
        outcome: Told to everybody who waits for the end; never holds an exception that nobody reads.
        due_at: Monotonic seconds from which it could run: of its call, or of the end of the delay before a retry.
        granted_at, started_at: Monotonic seconds of J2 and J3 of its current attempt.
        deadline_at: Monotonic seconds at which `deadline_s` is over; None without one.
        alarm_at: Monotonic seconds of its entry in the board's alarms; infinity without one.
        is_blocking: Its caller waits for the outcome, so its frames may leave before their records are durable (D9).
            Never with `at_most_once`: a frame whose grant could be forgotten might leave twice (G2.1).
        is_queued: It stands in a ready queue and counts as pending.
        is_sent: Its current attempt was sent to the worker.
        sent_after: How many answers the worker had been sent before the attempt was.
        moves, told: How many moves were given to the store, and how many of them it has answered. While answers are
            owed, memory knows more than the row.
        written: Resolved when the newest of its moves that somebody waits for is on disk, or with why it is not.
        ending: Worker and fence of an attempt whose reported end is not on disk yet.
        items: How far what it yielded is; `NO_ITEMS` until then.
        output: How far what its attempt wrote is.
        created_by: The key it was called with, or that its caller was called with.
        parent: The job whose user code called it.
        depth: Jobs above it.
        waited_fence: Fence of the parent's attempt that waits for it in a blocking call.
        awaited: Jobs that its current attempt waits for, one entry per open wait.
        follows: Streams of unfinished jobs that its current attempt reads.
        children: Unfinished jobs that its current attempt called and did not spawn; None when it never did.
        ran_s: Seconds that its newest attempt took, as its worker measured them.
        covers: The items of a group that it executes; their inputs are its arguments, read when they are sent.
    """

    id: JobId
    function: Function
    need: Need
    arguments: StoredValue
    status: JobStatus
    attempt: int
    fence: int
    losses: int
    created_at: datetime
    outcome: asyncio.Future[Outcome]
    created_by: KeyId
    runner: Runner | None = None
    worker: str | None = None
    due_at: float = 0.0
    granted_at: float = 0.0
    started_at: float = 0.0
    deadline_at: float | None = None
    alarm_at: float = math.inf
    is_blocking: bool = False
    is_queued: bool = False
    is_sent: bool = False
    sent_after: int = 0
    fence_max: int = 0
    unstarted: int = 0
    moves: int = 0
    told: int = 0
    written: asyncio.Future[bool | BaseException] | None = None
    ending: tuple[str, int] | None = None
    items: ItemFlow = NO_ITEMS
    output: Output | None = None
    parent: JobId | None = None
    depth: int = 0
    waited_fence: int | None = None
    awaited: list[JobId] = field(default_factory=list[JobId])
    follows: int = 0
    children: set[JobId] | None = None
    ran_s: float = 0.0
    covers: Slice | None = None

    @property
    def is_chunk(self) -> bool:
        """Whether it stands for several items, and is no job that anybody sees."""
        return self.covers is not None and self.covers.is_chunk

    @property
    def items_covered(self) -> int:
        """Calls of the function in one attempt."""
        return 1 if self.covers is None else self.covers.count

    @property
    def org(self) -> OrgId:
        return self.function.org

    @property
    def waits(self) -> bool:
        return self.status in WAITING

    @property
    def since(self) -> float:
        """Monotonic seconds from which its present status counts; meaningless for one that is being cancelled."""
        if self.waits:
            return self.due_at
        return self.granted_at if self.status is JobStatus.STARTING else self.started_at

    @property
    def is_granted(self) -> bool:
        """Whether a worker holds its current attempt, by what memory and the store say."""
        return not self.waits and not self.status.is_final


PLACES_LEFT_MAX = 256
"""Places in the queue of one function, beyond twice those of jobs that wait, that others may still hold."""

ORGS_REMEMBERED_MAX = 10_000
"""More orgs, and those without waiting jobs count as never served."""


@dataclass(slots=True)
class ReadyQueues:
    """Jobs that could run now, fair between orgs, first in first out within one function (G15.4)."""

    _orgs: dict[OrgId, dict[GroupKey, deque[LiveJob]]] = field(
        default_factory=dict[OrgId, dict[GroupKey, deque[LiveJob]]]
    )
    _grants: int = 0
    _served: dict[OrgId, int] = field(default_factory=dict[OrgId, int])

    def __bool__(self) -> bool:
        return bool(self._orgs)

    def push(self, job: LiveJob) -> None:
        groups = self._orgs.setdefault(job.org, {})
        groups.setdefault(job.need.group, deque()).append(job)

    def orgs_in_turn(self) -> list[OrgId]:
        """Orgs with waiting jobs, the one served longest ago first, one that never was before all others."""
        if len(self._orgs) < 2:
            return list(self._orgs)
        return sorted(self._orgs, key=lambda org: self._served.get(org, 0))

    def served(self, org: OrgId) -> None:
        """A job of `org` was granted, whether it waited or not: the others come before it."""
        self._grants += 1
        self._served[org] = self._grants
        if len(self._served) > ORGS_REMEMBERED_MAX:
            self._served = {one: turn for one, turn in self._served.items() if one in self._orgs}

    def heads(self, org: OrgId) -> list[LiveJob]:
        """The first waiting job of each function of `org`, oldest first; jobs that no longer wait are dropped here.

        The items of a map that wait count from when they were cut off it, so that it takes turns with single calls.
        """
        groups = self._orgs.get(org, {})
        heads = [head for key in list(groups) if (head := self._head(org, key)) is not None]
        return heads if len(heads) < 2 else sorted(heads, key=_age)

    def sole_head(self, group: GroupKey) -> LiveJob | None:
        """The first waiting job of one function, when no job of any other function waits."""
        if len(self._orgs) != 1:
            return None
        org, groups = next(iter(self._orgs.items()))
        return self._head(org, group) if len(groups) == 1 and group in groups else None

    def pop(self, job: LiveJob) -> None:
        """Take the head `job` out of its queue."""
        taken = self._orgs[job.org][job.need.group].popleft()
        assert taken is job, "only the head of a queue is taken"
        self._tidy(job.org, job.need.group)

    def left(self, job: LiveJob, waiting: int) -> None:
        """`job` waits no more, and `waiting` of its function do: its place goes when it is met, or with many others."""
        groups = self._orgs.get(job.org)
        queue = groups.get(job.need.group) if groups is not None else None
        if groups is not None and queue is not None and len(queue) > 2 * waiting + PLACES_LEFT_MAX:
            groups[job.need.group] = deque(one for one in queue if one.is_queued)
            self._tidy(job.org, job.need.group)

    def __iter__(self) -> Iterator[LiveJob]:
        for groups in self._orgs.values():
            for queue in groups.values():
                yield from (job for job in queue if job.is_queued)

    def _head(self, org: OrgId, key: GroupKey) -> LiveJob | None:
        queue = self._orgs[org][key]
        while queue and not queue[0].is_queued:
            queue.popleft()
        if queue:
            return queue[0]
        self._tidy(org, key)
        return None

    def _tidy(self, org: OrgId, key: GroupKey) -> None:
        groups = self._orgs[org]
        if not groups[key]:
            del groups[key]
        if not groups:
            del self._orgs[org]


def _age(job: LiveJob) -> tuple[float, str]:
    return job.due_at, job.id
