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


def app_stream(app: AppId) -> StreamRef:
    """Return the stream of an app."""
    return StreamRef(StreamKind.APP, app)


def deployment_stream(deployment: DeploymentId) -> StreamRef:
    """Return the stream of a deployment."""
    return StreamRef(StreamKind.DEPLOYMENT, deployment)


def _event(kind: str, at: datetime, **data: str | int | None) -> StreamEvent:
    return StreamEvent(kind, at, {**data, "time": at.timestamp()})
