"""What the server says of schedules, and the operations on them, without I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from apothic._core import Core
from apothic._exchange import perform
from apothic._http import Request
from apothic._operations import ACCEPT_JSON, all_items, get, once, part, read, target
from apothic._parse import build
from apothic._steps import Steps

T = TypeVar("T")


@dataclass(frozen=True)
class ScheduleRun:
    """A job that a schedule made; `due_at` is None when somebody had it run at once."""

    job_id: str
    due_at: str | None
    status: str
    created_at: str


@dataclass(frozen=True)
class ScheduleInfo:
    """The schedule of one function; `status` is `active`, `paused` or `ended`.

    Attributes:
        words: When it runs, in English.
        cron, timezone, period_s, catch_up, overlap, jitter_s: As for `Cron` and `Period`.
        next: The next due times, at most five.
        waiting_due: A tick that waits for the end of an earlier run.
        runs: Its newest jobs, newest first, at most five.
    """

    schedule_id: str
    app: str
    function: str
    function_id: str
    deployment_id: str
    status: str
    words: str
    cron: str | None
    timezone: str
    period_s: float | None
    catch_up: str
    overlap: str
    jitter_s: float
    next: tuple[str, ...]
    waiting_due: str | None
    runs: tuple[ScheduleRun, ...]
    created_at: str
    paused_at: str | None
    ended_at: str | None


@dataclass(frozen=True)
class _Made:
    job_id: str


def list_schedules(core: Core, app: str | None) -> Steps[tuple[ScheduleInfo, ...]]:
    """Return all schedules that have not ended, page by page."""
    items = yield from all_items(core, "/v1/schedules", {} if app is None else {"app": app})
    return tuple(build(ScheduleInfo, item) for item in items)


def get_schedule(core: Core, schedule_id: str) -> Steps[ScheduleInfo]:
    """Return one schedule, also one that has ended."""
    return get(core, ScheduleInfo, f"/v1/schedules/{part(schedule_id)}")


def order(core: Core, schedule_id: str, verb: str) -> Steps[ScheduleInfo]:
    """Pause or resume a schedule; asking twice is fine."""
    request = Request("POST", _path(core, schedule_id, verb), (ACCEPT_JSON,), is_repeatable=True)
    response = yield from perform(core, request)
    return read(core, response, ScheduleInfo, 200)


def run_schedule(core: Core, schedule_id: str) -> Steps[str]:
    """Make a job of a schedule at once and return its id."""
    request = Request("POST", _path(core, schedule_id, "run"), (ACCEPT_JSON,))
    response = yield from perform(core, once(core, request))
    return read(core, response, _Made, 202).job_id


def _path(core: Core, schedule_id: str, verb: str) -> str:
    return target(core, f"/v1/schedules/{part(schedule_id)}/{verb}")


class ScheduleMethods:
    """The methods of the blocking client about schedules."""

    @property
    def core(self) -> Core:
        """What all operations share."""
        raise NotImplementedError

    def run(self, steps: Steps[T]) -> T:
        """Perform an operation."""
        raise NotImplementedError

    def list_schedules(self, app: str | None = None) -> tuple[ScheduleInfo, ...]:
        """Return all schedules that have not ended, those of one app or all."""
        return self.run(list_schedules(self.core, app))

    def get_schedule(self, schedule_id: str) -> ScheduleInfo:
        """Return one schedule; NotFoundError when there is none."""
        return self.run(get_schedule(self.core, schedule_id))

    def pause_schedule(self, schedule_id: str) -> ScheduleInfo:
        """Let a schedule make no jobs until it is resumed; running ones go on. ConflictError when it has ended."""
        return self.run(order(self.core, schedule_id, "pause"))

    def resume_schedule(self, schedule_id: str) -> ScheduleInfo:
        """Let a paused schedule go on with the first tick after now. ConflictError when it has ended."""
        return self.run(order(self.core, schedule_id, "resume"))

    def run_schedule(self, schedule_id: str) -> str:
        """Make a job of a schedule at once and return its id. ConflictError when it has ended."""
        return self.run(run_schedule(self.core, schedule_id))
