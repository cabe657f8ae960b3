"""Jobs that were never written yet."""

from __future__ import annotations

import asyncio
from datetime import datetime

from apothic.wire.ids import JobId
from apothic_server.domain.access import Actor
from apothic_server.domain.apps import Function, python_of
from apothic_server.domain.decide.placement import Need
from apothic_server.domain.jobs import JobStatus, StoredValue
from apothic_server.services.dispatch.live import LiveJob


def new_live_job(job: JobId, function: Function, arguments: StoredValue, now: datetime, actor: Actor) -> LiveJob:
    """Return the memory of a job that was never written yet."""
    attempt = actor.attempt
    return LiveJob(
        id=job,
        function=function,
        need=Need(function.org, (function.deployment, function.id), python_of(function), function.spec),
        arguments=arguments,
        status=JobStatus.QUEUED,
        attempt=0,
        fence=0,
        losses=0,
        created_at=now,
        outcome=asyncio.get_running_loop().create_future(),
        created_by=actor.key,
        parent=attempt.parent if attempt is not None else None,
        depth=attempt.depth + 1 if attempt is not None else 0,
    )
