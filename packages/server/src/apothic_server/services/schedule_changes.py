"""What deploys, stops, pauses and resumptions do to schedules, in the transaction of that change (G10.4).

A schedule belongs to its function and keeps its id, its beat and its pause over deployments. New times begin after now:
ticks of the past are never run for a change, but told as left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from apothic.wire.ids import AppId, ScheduleId
from apothic.wire.schedules import ScheduleSpec
from apothic_server.domain.access import Actor
from apothic_server.domain.apps import Deployment
from apothic_server.domain.decide.ticks import fire_time, passed_over
from apothic_server.domain.jobs import StreamEvent
from apothic_server.domain.schedules import Schedule, Skipped, SkipReason
from apothic_server.domain.timing import next_due
from apothic_server.services.deployment_events import app_stream
from apothic_server.store import schedules as rows
from apothic_server.store.connection import Connection
from apothic_server.store.streams import append


async def schedules_deployed(unit: Connection, made: Deployment, new_key: Callable[[], str]) -> None:
    """A deployment was made and is active: begin, change and end the schedules of its app."""
    now = made.created_at
    known = {one.function: one for one in await rows.locked_schedules(unit, made.org, made.app)}
    for function in made.manifest.functions:
        key = made.functions[function.name]
        before = known.pop(key, None)
        if function.schedule is None:
            if before is not None:
                await end(unit, before, now)
        elif before is None:
            await _begin(unit, made, function.name, function.schedule, ScheduleId(new_key()))
        else:
            code = replace(before, deployment=made.id, created_by=made.created_by, spec=function.schedule)
            await _change(unit, before, code, now)
    for before in known.values():
        await end(unit, before, now)


async def schedules_stopped(unit: Connection, actor: Actor, app: AppId, now: datetime) -> None:
    """The app has no active deployment any more: end its schedules."""
    for one in await rows.locked_schedules(unit, actor.org, app):
        await end(unit, one, now)


async def end(unit: Connection, one: Schedule, now: datetime) -> None:
    """End a locked schedule; one that has ended stays as it is."""
    if one.ended_at is None:
        if one.waiting_due is not None:
            await tell_skipped(unit, one, [Skipped(SkipReason.ENDED, one.waiting_due, one.waiting_due)], now)
        await rows.set_schedule(unit, replace(one, next_due=None, fire_at=None, waiting_due=None, ended_at=now))


def paused(one: Schedule, now: datetime) -> Schedule:
    """Return the row of a schedule that is paused; its place in time stays."""
    return replace(one, fire_at=None, waiting_due=None, paused_at=now)


def started(one: Schedule, now: datetime) -> Schedule:
    """Return the row of a schedule whose next tick is the first after `now`."""
    due = next_due(one.spec, one.anchor, now)
    fire_at = None if due is None else fire_time(one, due)
    return replace(one, next_due=due, fire_at=fire_at, waiting_due=None, paused_at=None)


async def tell_skipped(unit: Connection, one: Schedule, skipped: Sequence[Skipped], now: datetime) -> None:
    """Tell the stream of the app which ticks made no job, and why."""
    events = [
        StreamEvent(
            "app.tick_skipped",
            now,
            {
                "schedule": one.id,
                "function": one.function_name,
                "reason": each.reason.value,
                "first_due": each.first.timestamp(),
                "last_due": each.last.timestamp(),
                "count": each.count,
                "is_more": each.is_more,
                "time": now.timestamp(),
            },
        )
        for each in skipped
    ]
    if events:
        await append(unit, one.org, app_stream(one.app), events)


async def _begin(unit: Connection, made: Deployment, name: str, spec: ScheduleSpec, key: ScheduleId) -> None:
    one = Schedule(
        id=key,
        org=made.org,
        app=made.app,
        function=made.functions[name],
        app_name=made.app_name,
        function_name=name,
        deployment=made.id,
        created_by=made.created_by,
        spec=spec,
        anchor=made.created_at,
        next_due=None,
        fire_at=None,
        waiting_due=None,
        jobs=(),
        revision=0,
        created_at=made.created_at,
        paused_at=None,
        ended_at=None,
    )
    await rows.add_schedule(unit, started(one, made.created_at))


async def _change(unit: Connection, before: Schedule, after: Schedule, now: datetime) -> None:
    keeps_times = before.ended_at is None and _times(before.spec) == _times(after.spec)
    if keeps_times:
        is_looked_at = after.paused_at is None and after.next_due is not None
        after = replace(after, fire_at=fire_time(after, after.next_due) if is_looked_at and after.next_due else None)
    else:
        if before.ended_at is None:
            await tell_skipped(unit, before, passed_over(before, now, SkipReason.ENDED), now)
        after = started(replace(after, anchor=now, ended_at=None), now)
        if before.paused_at is not None:
            after = paused(after, before.paused_at)
    await rows.set_schedule(unit, after)


def _times(spec: ScheduleSpec) -> tuple[str | None, str, float | None]:
    return spec.cron, spec.timezone, spec.period_s
