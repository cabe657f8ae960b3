"""Text forms: identifiers, times and records as the runtime face shows them."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

from apothic.wire.functions import FunctionSpec
from apothic.wire.ids import (
    AppId,
    DeploymentId,
    FunctionId,
    GroupId,
    JobId,
    ScheduleId,
    parse_job_id,
    parse_record_id,
    record_id,
)
from apothic_server.domain.apps import Deployment, Function
from apothic_server.domain.deployments import DeploymentEntry
from apothic_server.domain.errors import no_such
from apothic_server.domain.group_views import GroupView
from apothic_server.domain.groups import job_of_caller
from apothic_server.domain.jobs import JobEntry
from apothic_server.domain.schedules import ScheduleView
from apothic_server.domain.views import (
    AppView,
    EnrolledView,
    HeldOn,
    HeldView,
    JobView,
    JoinTokenView,
    LogPage,
    PreparationView,
    WorkerView,
)


def function_key(text: str) -> FunctionId:
    """Return the key of `functions:…`; anything else is not found, as an unknown id is."""
    return FunctionId(_key(text, "functions", "function"))


def deployment_key(text: str) -> DeploymentId:
    """Return the key of `deployments:…`; anything else is not found."""
    return DeploymentId(_key(text, "deployments", "deployment"))


def job_key(text: str) -> JobId:
    """Return the key of `jobs:…`, which may be an item of a group; anything else is not found."""
    key = parse_job_id(text)
    if key is None:
        raise no_such("job")
    return key


def group_key(text: str) -> GroupId:
    """Return the key of `groups:…`; anything else is not found."""
    return GroupId(_key(text, "groups", "group"))


def schedule_key(text: str) -> ScheduleId:
    """Return the key of `schedules:…`; anything else is not found."""
    return ScheduleId(_key(text, "schedules", "schedule"))


def app_cursor(text: str) -> AppId | None:
    """Return the key in a list cursor, or None when the text is no cursor."""
    key = parse_record_id(text, "apps")
    return None if key is None else AppId(key)


def deployment_cursor(text: str) -> DeploymentId | None:
    """Return the key in a list cursor, or None when the text is no cursor."""
    key = parse_record_id(text, "deployments")
    return None if key is None else DeploymentId(key)


def job_id(key: JobId) -> str:
    """Return `jobs:…`."""
    return record_id("jobs", key)


def group_id(key: GroupId) -> str:
    """Return `groups:…`."""
    return record_id("groups", key)


def time_text(at: datetime) -> str:
    """Return a time as UTC with milliseconds."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def app_record(view: AppView) -> dict[str, Any]:
    """Return an app with its live deployment."""
    active = view.app.active
    return {
        "app_id": record_id("apps", view.app.id),
        "name": view.app.name,
        "deployment_id": None if active is None else record_id("deployments", active),
        "version": view.version,
        "functions": list(view.functions),
        "created_at": time_text(view.app.created_at),
    }


def function_record(function: Function) -> dict[str, Any]:
    """Return a function as its live deployment has it."""
    return _function(function.id, function.app_name, function.deployment, function.spec)


def deployment_record(deployment: Deployment) -> dict[str, Any]:
    """Return a deployment with every function of its manifest."""
    manifest, ids = deployment.manifest, deployment.functions
    functions = [_function(ids[spec.name], deployment.app_name, deployment.id, spec) for spec in manifest.functions]
    return {
        "deployment_id": record_id("deployments", deployment.id),
        "app": deployment.app_name,
        "version": deployment.version,
        "status": deployment.status,
        "archive_sha256": deployment.archive,
        "python": manifest.python,
        "client_version": manifest.client_version,
        "functions": functions,
        "created_by": record_id("keys", deployment.created_by),
        "created_at": time_text(deployment.created_at),
        "stopped_at": _time_or_none(deployment.stopped_at),
        "deleted_at": _time_or_none(deployment.deleted_at),
        "restored_from": deployment.restored_from,
        "manifest": dataclasses.asdict(manifest),
    }


def preparation_record(view: PreparationView) -> dict[str, Any]:
    """Return how far the environments of a deployment are."""
    return {
        "deployment_id": record_id("deployments", view.deployment),
        "status": view.status,
        "environments": [
            {
                **dataclasses.asdict(one),
                "error": None if one.error is None else {"code": one.error.code, "message": one.error.message},
            }
            for one in view.environments
        ],
    }


def held_record(view: HeldView) -> dict[str, Any]:
    """Return environments on workers."""
    return {
        "items": [_held(one) for one in view.items],
        "freed_bytes": view.freed_bytes,
        "unanswered": list(view.unanswered),
        "is_known": view.is_known,
    }


def _held(one: HeldOn) -> dict[str, Any]:
    held = one.held
    return {
        "worker": one.worker,
        "environment": held.environment,
        "size_bytes": held.size_bytes,
        "built_at": time_text(datetime.fromtimestamp(held.built_at, UTC)),
        "used_at": time_text(datetime.fromtimestamp(held.used_at, UTC)),
        "is_in_use": held.is_in_use,
        "is_needed": one.is_needed,
    }


def deployment_entry(entry: DeploymentEntry) -> dict[str, Any]:
    """Return a deployment as a list shows it."""
    return {
        "deployment_id": record_id("deployments", entry.id),
        "app": entry.app_name,
        "version": entry.version,
        "status": entry.status,
        "created_at": time_text(entry.created_at),
        "stopped_at": _time_or_none(entry.stopped_at),
        "restored_from": entry.restored_from,
    }


def job_record(view: JobView) -> dict[str, Any]:
    """Return a job as it is now."""
    job = view.job
    return {
        "job_id": job_id(job.id),
        "app": view.app_name,
        "function": view.function_name,
        "function_id": record_id("functions", job.function),
        "deployment_id": record_id("deployments", job.deployment),
        "status": job.status.value,
        "attempt": job.attempt,
        "parent_job_id": _parent_id(job.parent),
        "depth": job.depth,
        "waiting_reason": view.waiting_reason,
        "error": job.error,
        "retry_of": None if job.retry_of is None else job_id(job.retry_of),
        "schedule_id": None if view.tick is None else record_id("schedules", view.tick.schedule),
        "due_at": None if view.tick is None else _time_or_none(view.tick.due),
        "created_at": time_text(job.created_at),
        "started_at": _time_or_none(job.started_at),
        "finished_at": _time_or_none(job.finished_at),
    }


def job_entry(entry: JobEntry) -> dict[str, Any]:
    """Return a job as a list shows it."""
    return {
        "job_id": job_id(entry.id),
        "app": entry.app_name,
        "function": entry.function_name,
        "deployment_id": record_id("deployments", entry.deployment),
        "status": entry.status,
        "attempt": entry.attempt,
        "created_at": time_text(entry.created_at),
        "started_at": _time_or_none(entry.started_at),
        "finished_at": _time_or_none(entry.finished_at),
        "waiting_reason": entry.waiting_reason,
    }


def group_record(view: GroupView) -> dict[str, Any]:
    """Return a group as it is now."""
    group = view.group
    return {
        "id": group_id(group.id),
        "app": view.app_name,
        "function": record_id("functions", group.function),
        "function_name": view.function_name,
        "deployment": record_id("deployments", group.deployment),
        "status": group.status.value,
        "spread": group.spread,
        "key": group.key,
        "stop_after": group.stop_after,
        "items": group.uploaded,
        "total": group.total,
        "counts": view.counts,
        "created_at": time_text(group.created_at),
        "finished_at": _time_or_none(group.finished_at),
        "error": group.error,
        "waiting_reason": view.waiting_reason,
    }


def log_record(page: LogPage) -> dict[str, Any]:
    """Return a page of log lines."""
    lines = [
        {"index": entry.index, "time": time_text(entry.at), "stream": entry.stream, "line": entry.line}
        for entry in page.lines
    ]
    return {"lines": lines, "last_index": page.last_index, "is_final": page.is_final}


def worker_record(view: WorkerView) -> dict[str, Any]:
    """Return one start of a worker."""
    return {
        "worker_id": record_id("workers", view.id),
        "name": view.name,
        "status": view.status,
        "connected_at": time_text(view.connected_at),
        "machine": dataclasses.asdict(view.machine),
        "runners": view.runners,
        "enrolled": view.is_enrolled,
    }


def enrolled_record(view: EnrolledView) -> dict[str, Any]:
    """Return a worker that joined, over all its starts."""
    return {
        "name": view.name,
        "status": view.status,
        "draining": view.is_draining,
        "jobs": view.jobs,
        "joined_at": time_text(view.joined_at),
        "worker_id": None if view.start is None else record_id("workers", view.start),
    }


def join_token_record(view: JoinTokenView) -> dict[str, Any]:
    """Return what a join token is known by."""
    return {
        "join_token_id": record_id("join_tokens", view.id),
        "created_at": time_text(view.created_at),
        "expires_at": time_text(view.expires_at),
    }


def _function(key: FunctionId, app_name: str, deployment: DeploymentId, spec: FunctionSpec) -> dict[str, Any]:
    return {
        "function_id": record_id("functions", key),
        "app": app_name,
        "deployment_id": record_id("deployments", deployment),
        **dataclasses.asdict(spec),
    }


def _parent_id(name: JobId | None) -> str | None:
    """Return the caller's id; None also for items that were executed together and did not say which of them called."""
    key = None if name is None else job_of_caller(name)
    return None if key is None else job_id(key)


def _time_or_none(at: datetime | None) -> str | None:
    return None if at is None else time_text(at)


def _key(text: str, table: str, thing: str) -> str:
    key = parse_record_id(text, table)
    if key is None:
        raise no_such(thing)
    return key


def schedule_record(view: ScheduleView) -> dict[str, Any]:
    """Return a schedule with its next times and newest jobs."""
    one = view.schedule
    return {
        "schedule_id": record_id("schedules", one.id),
        "app": one.app_name,
        "function": one.function_name,
        "function_id": record_id("functions", one.function),
        "deployment_id": record_id("deployments", one.deployment),
        "status": one.status,
        "words": view.words,
        **dataclasses.asdict(one.spec),
        "next": [time_text(due) for due in view.next],
        "waiting_due": _time_or_none(one.waiting_due),
        "runs": [
            {
                "job_id": job_id(run.job),
                "due_at": _time_or_none(run.due),
                "status": run.status,
                "created_at": time_text(run.created_at),
            }
            for run in view.runs
        ],
        "created_at": time_text(one.created_at),
        "paused_at": _time_or_none(one.paused_at),
        "ended_at": _time_or_none(one.ended_at),
    }
