"""Schedules as values: what one is, what its row remembers, and the tick that made a job."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from apothic.wire.ids import AppId, DeploymentId, FunctionId, JobId, KeyId, OrgId, ScheduleId
from apothic.wire.schedules import ScheduleSpec


class SkipReason(Enum):
    """Why a tick made no job."""

    MISSED = "missed"
    """No server ran when it was due, and `catch_up` makes up for others or for none."""

    TOO_LATE = "too_late"
    """It was due more than an hour ago."""

    TOO_MANY_MISSED = "too_many_missed"
    """`catch_up="all"` makes up for 100 at once."""

    OVERLAP = "overlap"
    """An earlier run had not ended, or a later one replaced it."""

    ONE_WAITS = "one_waits"
    """With `overlap="queue_one"` one tick waited already."""

    TOO_MANY_PENDING = "too_many_pending"
    """`max_pending_tasks` calls of the function waited."""

    PAUSED = "paused"
    """The schedule was paused."""

    ENDED = "ended"
    """The schedule ended, or its times changed, while the tick waited."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """Ticks in a row that made no job for one reason.

    Attributes:
        count: How many; at least so many when `is_more`.
    """

    reason: SkipReason
    first: datetime
    last: datetime
    count: int = 1
    is_more: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The row of one function's schedule; a function has one at most, over all deployments.

    Attributes:
        id: Stays the same when the schedule is changed, ended and begun again.
        deployment: The one whose code its jobs run.
        created_by: Key with which that was deployed; its jobs run with it.
        anchor: What a period counts from.
        next_due: First tick that nothing was decided about; None when none follows.
        fire_at: When to look at it next; None while it is paused or ended and when no tick follows.
        waiting_due: A tick that waits for the end of an earlier run.
        jobs: Its jobs that had not ended when it was looked at last.
        revision: Counts the writes; a write names the one it has read.
    """

    id: ScheduleId
    org: OrgId
    app: AppId
    function: FunctionId
    app_name: str
    function_name: str
    deployment: DeploymentId
    created_by: KeyId
    spec: ScheduleSpec
    anchor: datetime
    next_due: datetime | None
    fire_at: datetime | None
    waiting_due: datetime | None
    jobs: tuple[JobId, ...]
    revision: int
    created_at: datetime
    paused_at: datetime | None
    ended_at: datetime | None

    @property
    def status(self) -> str:
        """`active`, `paused` or `ended`."""
        if self.ended_at is not None:
            return "ended"
        return "active" if self.paused_at is None else "paused"


@dataclass(frozen=True, slots=True)
class Tick:
    """What of a schedule made a job; `due` is None when somebody had it run at once."""

    schedule: ScheduleId
    due: datetime | None


@dataclass(frozen=True, slots=True)
class Run:
    """A job of a schedule; `due` as in `Tick`."""

    job: JobId
    due: datetime | None
    status: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ScheduleView:
    """A schedule as services answer it.

    Attributes:
        words: When it runs, in English.
        next: The next five due times, jitter not counted; none while it is paused or ended.
        runs: Its newest jobs, the newest first.
    """

    schedule: Schedule
    words: str
    next: tuple[datetime, ...]
    runs: tuple[Run, ...]
