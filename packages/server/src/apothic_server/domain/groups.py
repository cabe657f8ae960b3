"""Groups: what one `map` makes. Items are numbered from 0; item n of a group is publicly the job `<group>.<n>`.

Items that were cut are covered by rows of `jobs`: by the item's own row, or by a *chunk* of several items. What became
of an item tells its own row; without one the entry of its chunk; without an entry the chunk's status; without a chunk
the group's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from apothic.wire.ids import AppId, DeploymentId, FunctionId, GroupId, JobId, KeyId, OrgId, is_key
from apothic.wire.maps import ItemOutput

ITEMS_MAX = 10_000_000
"""Items of one group."""

ITEMS, SPREAD = "items", "spread"
"""How the arguments of a row are encoded: inputs of a group, each the only argument, or all positional ones."""

SILENCE_S = 3_600.0
"""A group that takes items still is cancelled when nobody added any, nor read outcomes, for so long."""

SILENCE_KEYED_S = 7 * 86_400.0
"""The same for one with a key, which waits for somebody who goes on with it."""

NOTED_S = 300.0
"""That a group is heard of is noted so often: much more often than in `SILENCE_S`."""

_JOB_KEY = re.compile(r"([0-9a-z]{26})(?:\.(0|[1-9][0-9]{0,7})(-[1-9][0-9]{0,18})?)?")


class GroupStatus(Enum):
    """`running` and `cancelling` are not final."""

    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self not in (GroupStatus.RUNNING, GroupStatus.CANCELLING)


@dataclass(frozen=True, slots=True)
class Group:
    """A group's row.

    Attributes:
        spread: Each item holds all positional arguments of its call.
        key: Under which a client finds it again; unique in its function.
        stop_after: It is cancelled after so many failed items.
        uploaded: Items whose inputs are stored.
        uploaded_bytes: Bytes of these inputs.
        total: Equal to `uploaded` once the client said that it has sent all.
        counts: Items by status, once it has ended.
        parent: The job whose user code made it.
        depth: Jobs above its items; 0 without a parent.
        heard_at: When somebody last added items or read outcomes, or up to `NOTED_S` before.
    """

    id: GroupId
    org: OrgId
    app: AppId
    deployment: DeploymentId
    function: FunctionId
    status: GroupStatus
    spread: bool
    key: str | None
    stop_after: int | None
    uploaded: int
    uploaded_bytes: int
    total: int | None
    counts: dict[str, int] | None
    error: dict[str, Any] | None
    created_by: KeyId
    parent: JobId | None
    depth: int
    created_at: datetime
    finished_at: datetime | None
    heard_at: datetime

    @property
    def patience_s(self) -> float:
        """Seconds of silence after which it is cancelled while it takes items still."""
        return SILENCE_S if self.key is None else SILENCE_KEYED_S


@dataclass(frozen=True, slots=True)
class Segment:
    """Inputs of items as they were sent: packed (`apothic.wire.chunks`), inline or in the blob store.

    Attributes:
        python: Minor version that the inputs need; None when any will do.
    """

    first: int
    count: int
    python: str | None
    data: bytes
    blob: str | None = None

    @property
    def end(self) -> int:
        return self.first + self.count


@dataclass(frozen=True, slots=True)
class Slice:
    """The items that a row of `jobs` covers.

    Attributes:
        count: 1 for an item's own row; 0 when a chunk's items all went back.
        is_chunk: The row is that of a chunk, no public job.
        overlays: The letter (S or F) of the entry that a chunk has of the item, too; of own rows only.
        spread: As that of its group.
    """

    group: GroupId
    first: int
    count: int = 1
    is_chunk: bool = False
    overlays: str | None = None
    spread: bool = False

    @property
    def end(self) -> int:
        return self.first + self.count


@dataclass(frozen=True, slots=True)
class Part:
    """What became of the first items of a chunk.

    Attributes:
        done: Items that ended, each with an entry in the result.
        failed: Offsets of those that failed in user code, ascending.
        output: What items wrote, by ascending offsets.
    """

    done: int = 0
    failed: tuple[int, ...] = ()
    output: tuple[ItemOutput, ...] = ()


@dataclass(slots=True)
class Counts:
    """Items of a group by status."""

    queued: int = 0
    running: int = 0
    retrying: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    timed_out: int = 0

    @property
    def final(self) -> int:
        return self.succeeded + self.failed + self.cancelled + self.timed_out

    def turn_cancelled(self, letter: str) -> None:
        """One that succeeded (S) or failed (F) in a chunk counts as cancelled."""
        name = "succeeded" if letter == "S" else "failed"
        setattr(self, name, getattr(self, name) - 1)
        self.cancelled += 1

    def as_json(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self.__slots__}


def item_key(group: GroupId, item: int) -> JobId:
    """Return the id of an item's own row, which is its public id."""
    return JobId(f"{group}.{item}")


def chunk_key(group: GroupId, first: int, number: int) -> JobId:
    """Return the id of a chunk's row, never shown to anybody; `number` tells chunks apart that begin with one item."""
    return JobId(f"{group}.{first}-{number}")


def caller_name(job: JobId, item: int | None) -> JobId:
    """Return how rows name the job whose code made them: a chunk's with the number of the item that did behind it."""
    return job if item is None else JobId(f"{job}:{item}")


def row_of_caller(name: JobId) -> JobId:
    """Return the id of the row whose attempt called."""
    return JobId(name.partition(":")[0])


def job_of_caller(name: JobId) -> JobId | None:
    """Return the public id of the job that called; None for a chunk of which it is not known which item it was."""
    row, _, item = name.partition(":")
    if "-" not in row:
        return JobId(row)
    return item_key(GroupId(row.partition(".")[0]), int(item)) if item else None


def is_job_key(text: str) -> bool:
    """Whether `text` has the form of the id of a row in `jobs`: a job's, an item's or a chunk's."""
    match = _JOB_KEY.fullmatch(text)
    return match is not None and is_key(match[1])


def parse_item_key(text: str) -> tuple[GroupId, int] | None:
    """Return group and number of an item's id, None when `text` is none."""
    match = _JOB_KEY.fullmatch(text)
    if match is None or match[2] is None or match[3] is not None or not is_key(match[1]):
        return None
    return GroupId(match[1]), int(match[2])
