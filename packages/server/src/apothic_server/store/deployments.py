"""Deployments that exist: listing, stopping, deleting. Works in the transaction of the connection it is given."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from apothic.wire.functions import Manifest
from apothic.wire.ids import DeploymentId, OrgId
from apothic.wire.images import ImageSpec
from apothic_server.domain.deployments import Closed, DeploymentEntry, DeploymentStatus, Drain
from apothic_server.store.connection import Connection
from apothic_server.store.statements import load

SQL = load("deployments")
BEYOND = "~"
"""Sorts behind every key."""


async def list_deployments(
    connection: Connection, org: OrgId, *, app_name: str | None, before: DeploymentId | None, limit: int
) -> list[DeploymentEntry]:
    """Return up to `limit` deployments that are not deleted, newest first, below `before`; of one app by version."""
    if app_name is None:
        rows = await connection.fetch(SQL["list_deployments"], org, before or BEYOND, limit)
    else:
        rows = await connection.fetch(SQL["list_versions"], org, before or BEYOND, limit, app_name)
    found: list[DeploymentEntry] = []
    for row in rows:
        columns: dict[str, Any] = dict(row.items())
        found.append(DeploymentEntry(**columns))
    return found


async def lock_app(connection: Connection, org: OrgId, deployment: DeploymentId) -> bool:
    """Let nobody else change the deployments of its app until the transaction ends; False when there is no such one."""
    return await connection.fetchval(SQL["lock_app"], org, deployment) is not None


async def close(
    connection: Connection, org: OrgId, deployment: DeploymentId, status: DeploymentStatus, now: datetime
) -> None:
    """Stop or delete a deployment; if its app answered calls with it, the app answers none any more."""
    await connection.execute(SQL["deactivate"], org, deployment)
    await connection.execute(SQL["stop" if status is DeploymentStatus.STOPPED else "delete"], org, deployment, now)


async def drain(connection: Connection, org: OrgId, deployment: DeploymentId, what: Drain) -> None:
    """Note what the dispatcher has to do with the unfinished jobs; CANCEL stays once it was asked for."""
    await connection.execute(SQL["drain"], org, deployment, what.value)


async def count_unfinished(connection: Connection, org: OrgId, deployment: DeploymentId) -> int:
    """Return how many jobs of a deployment have not ended."""
    count: int = await connection.fetchval(SQL["count_unfinished"], org, deployment)
    return count


async def needed_images(connection: Connection, org: OrgId) -> list[ImageSpec]:
    """Return the images of the functions of active deployments, and of those that have unfinished jobs or groups."""
    rows = await connection.fetch(SQL["list_needed"], org)
    manifests = (msgspec.json.decode(row["manifest"], type=Manifest) for row in rows)
    return [spec.image for manifest in manifests for spec in manifest.functions if spec.image is not None]


async def list_draining(connection: Connection) -> list[Closed]:
    """Return the closed deployments of all orgs whose jobs the dispatcher is not done with; as the owner."""
    return [
        Closed(DeploymentId(row["id"]), DeploymentStatus(row["status"]), Drain(row["drain"]))
        for row in await connection.fetch(SQL["list_draining"])
    ]


async def end_drain(connection: Connection, deployment: DeploymentId) -> None:
    """Note that a closed deployment has no unfinished jobs any more; nothing happens while it has some."""
    await connection.execute(SQL["end_drain"], deployment)
