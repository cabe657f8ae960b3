"""Jobs: their life cycle (table J of `docs/guarantees.md`) and the records that change them in the store.

A job's row remembers the *path* of its last write: the statuses passed, one letter each, first and last included
(`LETTERS`). Moves of one job that are decided before the store was written share a commit, in order; the database
checks every step of the path, so nothing outside table J reaches the disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Self, TypeVar, dataclass_transform, final

from apothic.wire.ids import AppId, DeploymentId, FunctionId, GroupId, JobId, KeyId, OrgId
from apothic.wire.values import Value
from apothic_server.domain.groups import Slice
from apothic_server.domain.idempotency import KeyRow, RequestKey
from apothic_server.domain.lifecycle import LifeCycle

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def record(made: type[T]) -> type[T]:
    """Make a dataclass whose fields the type checker lets nobody set.

    A dataclass that is frozen at run time is made four times slower, and each call makes a dozen records.
    """
    return dataclass(slots=True)(made)


class JobStatus(Enum):
    """The nine public statuses.

    Attributes:
        word: Its value, without the cost of an enum's property.
        letter: Its letter in paths.
        is_final: Nothing follows it.
    """

    word: str
    letter: str
    is_final: bool

    QUEUED = "queued", "q"
    STARTING = "starting", "s"
    RUNNING = "running", "r"
    RETRYING = "retrying", "y"
    CANCELLING = "cancelling", "k"
    SUCCEEDED = "succeeded", "S"
    FAILED = "failed", "F"
    CANCELLED = "cancelled", "C"
    TIMED_OUT = "timed_out", "T"

    def __new__(cls, value: str, letter: str) -> Self:
        made = object.__new__(cls)
        made._value_ = made.word = value
        made.letter = letter
        made.is_final = letter.isupper()
        return made

    # Each member exists once; an enum's own hash goes through its name, in Python.
    __hash__ = object.__hash__


FINAL = frozenset(status for status in JobStatus if status.is_final)
LETTERS: dict[JobStatus, str] = {status: status.letter for status in JobStatus}
NEW = "n"
"""Letter before the first status: J1 is the path `nq`."""


class JobEvent(Enum):
    """What happens to jobs; the comments name the rows of table J."""

    GRANTED = "granted"  # J2
    STARTED = "started"  # J3
    SUCCEEDED = "succeeded"  # J4
    FAILED = "failed"  # J5, J12
    RETRY = "retry"  # J6
    CANCEL_ASKED = "cancel_asked"  # J7, J8
    STOPPED = "stopped"  # J9
    TIMED_OUT = "timed_out"  # J10, J11

    __hash__ = object.__hash__


_S, _E = JobStatus, JobEvent
JOB: LifeCycle[JobStatus, JobEvent] = LifeCycle(
    {
        _S.QUEUED: {
            _E.GRANTED: _S.STARTING,
            _E.CANCEL_ASKED: _S.CANCELLED,
            _E.TIMED_OUT: _S.TIMED_OUT,
            _E.FAILED: _S.FAILED,
        },
        _S.STARTING: {
            _E.STARTED: _S.RUNNING,
            _E.FAILED: _S.FAILED,
            _E.RETRY: _S.RETRYING,
            _E.CANCEL_ASKED: _S.CANCELLING,
            _E.TIMED_OUT: _S.TIMED_OUT,
        },
        _S.RUNNING: {
            _E.SUCCEEDED: _S.SUCCEEDED,
            _E.FAILED: _S.FAILED,
            _E.RETRY: _S.RETRYING,
            _E.CANCEL_ASKED: _S.CANCELLING,
            _E.TIMED_OUT: _S.TIMED_OUT,
        },
        _S.RETRYING: {
            _E.GRANTED: _S.STARTING,
            _E.CANCEL_ASKED: _S.CANCELLED,
            _E.TIMED_OUT: _S.TIMED_OUT,
            _E.FAILED: _S.FAILED,
        },
        _S.CANCELLING: {_E.STOPPED: _S.CANCELLED},
        _S.SUCCEEDED: {},
        _S.FAILED: {},
        _S.CANCELLED: {},
        _S.TIMED_OUT: {},
    }
)


@record
class StreamEvent:
    """One event of a job's stream; its index is given by the store, in the commit."""

    kind: str
    at: datetime
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class StoredValue:
    """A value as it lies in a row: inline, or in the blob store under `blob` (then `data` is empty)."""

    value: Value
    blob: str | None = None


@final
@record
class NewJob:
    """J1. The job's row, its stream's first events, nothing granted.

    `path` is `nq` unless later moves were folded in by the writer. With a `key` it is refused when the org has the key.
    `parent`, `depth` and `waited_fence` as in `Job`.

    Attributes:
        covers: Items of a group, whose inputs are the arguments; a chunk has no events.
        term: When set, the insert needs the dispatcher row to hold this term.
    """

    id: JobId
    org: OrgId
    app: AppId
    deployment: DeploymentId
    function: FunctionId
    arguments: StoredValue
    created_by: KeyId
    created_at: datetime
    events: tuple[StreamEvent, ...]
    key: RequestKey | None = None
    retry_of: JobId | None = None
    parent: JobId | None = None
    depth: int = 0
    waited_fence: int | None = None
    covers: Slice | None = None
    term: int | None = None

    @property
    def is_chunk(self) -> bool:
        """Whether the row is that of a chunk, which has no events."""
        return self.covers is not None and self.covers.is_chunk


@record
class JobFields:
    """Columns that a change writes; None leaves a column as it is.

    `chunk_items`, `chunk_done` and `failed_items` say what an ended chunk covers, as in `domain.groups.Part`.
    """

    attempt: int | None = None
    fence: int | None = None
    losses: int | None = None
    worker: str | None = None
    term: int | None = None
    run_at: datetime | None = None
    result: StoredValue | None = None
    error: dict[str, Any] | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    chunk_items: int | None = None
    chunk_done: int | None = None
    failed_items: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class ItemSegment:
    """Items that one attempt yielded one after the other, kept as one row: they have neighbouring indexes.

    Attributes:
        first_ordinal: Ordinal of the first item in its attempt, from 0.
        count: Items in `data`, at least 1.
        data: Packed as `apothic.wire.items` says.
    """

    attempt: int
    first_ordinal: int
    count: int
    at: datetime
    encoding: str
    python: str | None
    data: bytes


@final
@dataclass(frozen=True, slots=True)
class NewItems:
    """Appends items to a job's stream while its row has exactly this status and fence, and none of them is there yet.

    Attributes:
        segments: In the order of their ordinals, without a gap, at least one.
    """

    org: OrgId
    job: JobId
    expect_status: JobStatus
    expect_fence: int
    segments: tuple[ItemSegment, ...]


@final
@record
class JobChange:
    """One guarded write: it applies only while the row has exactly this status and fence (G1.3).

    Attributes:
        path: Letters of the statuses passed, beginning with `expect_status`; empty when only events are appended.
        events: Appended with the next dense indexes, in order.
        term: When set, the write also needs the dispatcher row to hold this term (D4).
        key: Written too; the whole write is refused when the org has the key.
        is_chunk: The row is that of a chunk, which has no events.
    """

    org: OrgId
    job: JobId
    expect_status: JobStatus
    expect_fence: int
    path: str
    fields: JobFields
    events: tuple[StreamEvent, ...]
    term: int | None = None
    key: KeyRow | None = None
    is_chunk: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """A job's row without its values.

    Attributes:
        attempt: Grants so far; 0 before the first.
        fence: Fence of the newest grant.
        losses: Grants lost to infrastructure.
        worker: Incarnation that holds, or last held, the grant.
        term: Dispatcher's term of that grant.
        run_at: Not granted before.
        error: JSON form of the newest error (`apothic.wire.runner.error_to_json`).
        retry_of: The ended job that this one was made from by hand.
        parent: The job whose user code called it.
        depth: Jobs above it; 0 without a parent.
        waited_fence: Fence of the parent's attempt that waits for it in a blocking call; None for a spawned job.
    """

    id: JobId
    org: OrgId
    app: AppId
    deployment: DeploymentId
    function: FunctionId
    status: JobStatus
    attempt: int
    fence: int
    losses: int
    worker: str | None
    term: int | None
    run_at: datetime
    error: dict[str, Any] | None
    created_by: KeyId
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    retry_of: JobId | None
    parent: JobId | None = None
    depth: int = 0
    waited_fence: int | None = None


@dataclass(frozen=True, slots=True)
class ItemCount:
    """How far the items of a job's newest attempt that published any are on disk.

    Attributes:
        attempt: That attempt; 0 when none did.
        next_ordinal: Ordinal that its next item has.
    """

    attempt: int = 0
    next_ordinal: int = 0


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs a list shows; None lets all pass.

    Attributes:
        is_unfinished: Only those that have not ended.
        before: Only older ones, by their ids.
        oldest: None that is older than this id.
        group: Only items of this group that have a row of their own.
    """

    app_name: str | None = None
    function_name: str | None = None
    status: JobStatus | None = None
    deployment: DeploymentId | None = None
    is_unfinished: bool = False
    before: JobId | None = None
    oldest: str | None = None
    group: GroupId | None = None


@dataclass(frozen=True, slots=True)
class JobEntry:
    """A job in a list; `waiting_reason` is what the dispatcher says, not the store."""

    id: JobId
    app_name: str
    function_name: str
    deployment: DeploymentId
    status: str
    attempt: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    waiting_reason: str | None = None


@dataclass(frozen=True, slots=True)
class UnfinishedJob:
    """A job that has not ended, with what it was called with and how far the items are that it yielded.

    Attributes:
        covers: The items of a group that it executes; their inputs lie with the group.
    """

    job: Job
    arguments: StoredValue
    items: ItemCount = ItemCount()
    covers: Slice | None = None


@dataclass(frozen=True, slots=True)
class StoredOutcome:
    """What a waiter wants to know about a job. `result` is set only when it succeeded.

    Attributes:
        is_derived: It has no row of its own: an item of a group.
    """

    job: JobId
    status: JobStatus
    attempt: int
    result: StoredValue | None
    error: dict[str, Any] | None
    is_derived: bool = False


@dataclass(frozen=True, slots=True)
class StoredItems:
    """A segment as it is on disk; its items have the indexes from `index` on."""

    index: int
    segment: ItemSegment


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One event of a job's stream as it is on disk."""

    index: int
    kind: str
    at: datetime
    data: dict[str, Any]
