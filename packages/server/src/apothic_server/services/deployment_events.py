"""What the streams of apps and deployments are told, in the transaction that makes the change (G5.1).

The app's stream is written first, then those of deployments by version: two transactions never wait in a circle.
"""

from __future__ import annotations

from datetime import datetime

from apothic.wire.ids import AppId, DeploymentId
from apothic_server.domain.apps import Deployment
from apothic_server.domain.jobs import StreamEvent
from apothic_server.domain.streams import StreamKind, StreamRef
from apothic_server.store.connection import Connection
from apothic_server.store.streams import append


async def tell_deployed(unit: Connection, made: Deployment, superseded: DeploymentId | None) -> None:
    """A deployment was made and is active; `superseded` was active before."""
    now = made.created_at
    deployed = _event("app.deployed", now, deployment=made.id, version=made.version, previous=superseded)
    await append(unit, made.org, app_stream(made.app), [deployed])
    if superseded is not None:
        by = _event("deployment.superseded", now, status="superseded", by=made.id)
        await append(unit, made.org, deployment_stream(superseded), [by])
    created = _event("deployment.created", now, app=made.app_name, version=made.version)
    active = _event("deployment.active", now, status="active")
    await append(unit, made.org, deployment_stream(made.id), [created, active])


async def tell_stopped(unit: Connection, before: Deployment, now: datetime) -> None:
    """A deployment was stopped; `before` is as it was."""
    if before.status == "active":
        await _tell_app(unit, before, "app.stopped", now)
    stopped = _event("deployment.stopped", now, status="stopped")
    await append(unit, before.org, deployment_stream(before.id), [stopped])


async def tell_deleted(unit: Connection, before: Deployment, now: datetime) -> None:
    """A deployment was deleted; `before` is as it was. Its stream ends."""
    if before.status == "active":
        await _tell_app(unit, before, "app.stopped", now)
    await _tell_app(unit, before, "app.deployment_deleted", now)
    ended = [_event(f"deployment.{name}", now, status="deleted") for name in ("deleted", "end")]
    await append(unit, before.org, deployment_stream(before.id), ended, ended_at=now)


async def _tell_app(unit: Connection, about: Deployment, kind: str, now: datetime) -> None:
    await append(
        unit, about.org, app_stream(about.app), [_event(kind, now, deployment=about.id, version=about.version)]
    )


def app_stream(app: AppId) -> StreamRef:
    """Return the stream of an app."""
    return StreamRef(StreamKind.APP, app)


def deployment_stream(deployment: DeploymentId) -> StreamRef:
    """Return the stream of a deployment."""
    return StreamRef(StreamKind.DEPLOYMENT, deployment)


def _event(kind: str, at: datetime, **data: str | int | None) -> StreamEvent:
    return StreamEvent(kind, at, {**data, "time": at.timestamp()})
