"""What to do with the ticks of one schedule at one moment (G10.2, G10.4): run, let wait, leave out and say why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from apothic_server.domain.schedules import Schedule, Skipped, SkipReason
from apothic_server.domain.timing import dues, jitter_of, next_due

ON_TIME = timedelta(seconds=30)
"""A tick that is looked at this soon was not missed; a server that takes over from another needs some seconds."""

WINDOW = timedelta(hours=1)
"""Older ticks are not made up for."""

CATCH_UP_MAX = 100
COUNTED_MAX = 1_000
"""Ticks older than the window are counted up to here."""


@dataclass(slots=True)
class Plan:
    """What to write.

    Attributes:
        runs: Ticks that make a job now.
        cancels: Its jobs that have not ended are cancelled first.
        skipped: What was left out, in order.
        next_due: As in `Schedule`, afterwards.
        fire_at: As in `Schedule`, afterwards.
        waiting_due: As in `Schedule`, afterwards.
    """

    runs: list[datetime] = field(default_factory=list[datetime])
    cancels: bool = False
    skipped: list[Skipped] = field(default_factory=list[Skipped])
    next_due: datetime | None = None
    fire_at: datetime | None = None
    waiting_due: datetime | None = None


def plan_ticks(schedule: Schedule, now: datetime, *, running: int, room: int) -> Plan:
    """Decide on every tick whose time has come.

    Args:
        running: Jobs of the schedule that have not ended.
        room: Jobs that the function takes before `max_pending_tasks` wait.
    """
    plan = Plan(waiting_due=schedule.waiting_due)
    due = _take_due(schedule, now, plan)
    chosen = _catch_up(schedule, now, due, plan)
    _overlap(schedule, chosen, running, plan)
    for tick in plan.runs[max(room, 0) :]:
        _skip(plan, SkipReason.TOO_MANY_PENDING, tick)
    plan.runs = plan.runs[: max(room, 0)]
    plan.cancels = plan.cancels and bool(plan.runs)
    plan.skipped.sort(key=lambda skipped: skipped.first)
    return plan


def passed_over(schedule: Schedule, now: datetime, reason: SkipReason) -> list[Skipped]:
    """Return what is left out when a schedule that was not looked at begins again at `now`, the waiting tick first."""
    plan = Plan()
    if schedule.waiting_due is not None:
        _skip(plan, reason, schedule.waiting_due)
    if schedule.next_due is not None and schedule.next_due <= now:
        _count(plan, reason, _from(schedule, schedule.next_due), until=now)
    return plan.skipped


def fire_time(schedule: Schedule, due: datetime) -> datetime:
    """Return when a tick starts: its due time and its jitter."""
    return due + jitter_of(schedule.spec, schedule.id, due)


def _take_due(schedule: Schedule, now: datetime, plan: Plan) -> list[datetime]:
    """Return the due ticks within the window, oldest first; count the older ones; note what comes next."""
    due, found = schedule.next_due, list[datetime]()
    if due is None:
        return found
    oldest = now - WINDOW - timedelta(seconds=schedule.spec.jitter_s)
    if due <= oldest:
        _count(plan, SkipReason.TOO_LATE, _from(schedule, due), until=oldest)
        due = next_due(schedule.spec, schedule.anchor, oldest)
        if due is None:
            return found
    for tick in _from(schedule, due):
        fire_at = fire_time(schedule, tick)
        if fire_at > now:
            plan.next_due, plan.fire_at = tick, fire_at
            break
        found.append(tick)
    return found


def _catch_up(schedule: Schedule, now: datetime, due: list[datetime], plan: Plan) -> list[datetime]:
    late = [tick for tick in due if fire_time(schedule, tick) < now - ON_TIME]
    on_time = [tick for tick in due if tick not in set(late)]
    if schedule.spec.catch_up == "all":
        made_up, left = late[-CATCH_UP_MAX:], late[:-CATCH_UP_MAX]
        reason = SkipReason.TOO_MANY_MISSED
    else:
        keeps = schedule.spec.catch_up == "latest" and not on_time
        made_up, left = (late[-1:], late[:-1]) if keeps else ([], late)
        reason = SkipReason.MISSED
    for tick in left:
        _skip(plan, reason, tick)
    return sorted(made_up + on_time)


def _overlap(schedule: Schedule, due: list[datetime], running: int, plan: Plan) -> None:
    if plan.waiting_due is not None and not running:
        plan.runs.append(plan.waiting_due)
        plan.waiting_due, running = None, 1
    for tick in due:
        match schedule.spec.overlap:
            case "allow":
                plan.runs.append(tick)
            case "cancel_previous":
                for replaced in plan.runs:
                    _skip(plan, SkipReason.OVERLAP, replaced)
                plan.runs, plan.cancels = [tick], running > 0
            case _ if not running:
                plan.runs.append(tick)
                running = 1
            case "queue_one" if plan.waiting_due is None:
                plan.waiting_due = tick
            case "queue_one":
                _skip(plan, SkipReason.ONE_WAITS, tick)
            case _:
                _skip(plan, SkipReason.OVERLAP, tick)


def _from(schedule: Schedule, due: datetime) -> Iterable[datetime]:
    """Return the ticks from `due` on, itself included."""
    yield due
    yield from dues(schedule.spec, schedule.anchor, due)


def _count(plan: Plan, reason: SkipReason, ticks: Iterable[datetime], *, until: datetime) -> None:
    first = last = None
    count, is_more = 0, False
    for tick in ticks:
        if tick > until:
            break
        if count == COUNTED_MAX:
            is_more = True
            break
        first, last, count = first or tick, tick, count + 1
    if first is not None and last is not None:
        plan.skipped.append(Skipped(reason, first, last, count, is_more))


def _skip(plan: Plan, reason: SkipReason, tick: datetime) -> None:
    newest = plan.skipped[-1] if plan.skipped else None
    if newest is not None and newest.reason is reason and not newest.is_more and newest.last < tick:
        plan.skipped[-1] = Skipped(reason, newest.first, tick, newest.count + 1)
    else:
        plan.skipped.append(Skipped(reason, tick, tick))
