"""A job in memory, made from its row and from what memory held of it before."""

from __future__ import annotations

import asyncio
from datetime import datetime

from apothic.wire.functions import FunctionSpec
from apothic_server.domain.apps import Function, python_of
from apothic_server.domain.decide.endings import delay_s_max
from apothic_server.domain.decide.placement import Need
from apothic_server.domain.jobs import Job, JobStatus, UnfinishedJob
from apothic_server.domain.views import Outcome
from apothic_server.ports.clock import Clock
from apothic_server.services.dispatch.live import NO_ITEMS, UNREAD, ItemFlow, LiveJob


def restored(
    stored: UnfinishedJob, function: Function, old: LiveJob | None, waited: asyncio.Future[Outcome] | None, clock: Clock
) -> LiveJob:
    """Return the memory of a row. When an attempt was granted no row says: one met here counts as granted now."""
    job = stored.job
    items = old.items if old is not None else NO_ITEMS
    if items is NO_ITEMS and stored.items.attempt > 0:
        items = ItemFlow()
    if items is not NO_ITEMS:
        items.resume(job.attempt, stored.items)
    outcome = old.outcome if old is not None else waited
    keeps_runner = old is not None and old.fence == job.fence and old.runner is not None
    now, monotonic = clock.now(), clock.monotonic()
    began_s = _seconds_until(job.started_at, now) if job.started_at is not None else 0.0
    deadline_s = function.spec.deadline_s
    return LiveJob(
        id=job.id,
        function=function,
        need=Need(job.org, (job.deployment, job.function), python_of(function), function.spec),
        arguments=stored.arguments if stored.covers is None else UNREAD,
        covers=stored.covers,
        status=job.status,
        attempt=job.attempt,
        fence=job.fence,
        losses=job.losses,
        created_at=job.created_at,
        outcome=outcome or asyncio.get_running_loop().create_future(),
        runner=old.runner if old is not None and keeps_runner else None,
        worker=job.worker if job.status not in (JobStatus.QUEUED, JobStatus.RETRYING) else None,
        is_sent=old.is_sent if old is not None and keeps_runner else False,
        sent_after=old.sent_after if old is not None and keeps_runner else 0,
        fence_max=old.fence_max if old is not None else 0,
        unstarted=old.unstarted if old is not None else 0,
        granted_at=old.granted_at if old is not None and keeps_runner else monotonic,
        started_at=monotonic + began_s,
        deadline_at=None if deadline_s is None else monotonic + _seconds_until(job.created_at, now) + deadline_s,
        items=items,
        output=old.output if old is not None else None,
        created_by=job.created_by,
        parent=job.parent,
        depth=job.depth,
        waited_fence=job.waited_fence,
        awaited=old.awaited if old is not None and keeps_runner else [],
        follows=old.follows if old is not None and keeps_runner else 0,
        children=old.children if old is not None and keeps_runner else None,
    )


def _seconds_until(when: datetime, now: datetime) -> float:
    """Return how long it is until `when`; less than 0 when that is over."""
    return (when - now).total_seconds()


def delay_s(job: Job, spec: FunctionSpec, now: datetime) -> float:
    """Return how long a job that waits has to wait yet; less than 0 when it could have run before.

    Its `run_at` is a time of the wall clock, which may have been set back since: a job that was never tried waits for
    no time at all, and no other one longer than the longest delay between attempts.
    """
    longest = 0.0 if job.status is JobStatus.QUEUED else delay_s_max(spec)
    return min(_seconds_until(job.run_at, now), longest)
