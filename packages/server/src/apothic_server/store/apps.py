"""Apps, their deployments and functions. Every function works in the transaction of the connection it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from apothic.wire.functions import FunctionSpec, Manifest
from apothic.wire.ids import AppId, DeploymentId, FunctionId, KeyId, OrgId
from apothic_server.domain.apps import App, Deployment, Function
from apothic_server.store.connection import Connection, Record
from apothic_server.store.statements import load

SQL = load("apps")

NAMES_MAX = 10_000
"""Most app names that are searched for near matches."""


@dataclass(frozen=True, slots=True)
class ActiveApp:
    """An app with what its active deployment says; `version` is None and `functions` empty when there is none."""

    app: App
    version: int | None
    functions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDeployment:
    """What a deploy writes.

    Attributes:
        app_id: Id for the app if this is its first deploy.
        function_ids: An id for each function of the manifest, used for names that the app never had before.
        restored_from: As in `Deployment`.
    """

    id: DeploymentId
    org: OrgId
    app_name: str
    app_id: AppId
    archive: str
    manifest: Manifest
    function_ids: Mapping[str, FunctionId]
    created_by: KeyId
    created_at: datetime
    restored_from: int | None = None


async def list_apps(connection: Connection, org: OrgId, *, after: str = "", limit: int) -> list[ActiveApp]:
    """Return up to `limit` apps with an id above `after`, in the order of their ids."""
    return [_active_app(row) for row in await connection.fetch(SQL["list_apps"], org, after, limit)]


async def get_app(connection: Connection, org: OrgId, name: str) -> ActiveApp | None:
    """Return an app by name, or None when the org has none of that name."""
    row = await connection.fetchrow(SQL["get_app"], org, name)
    return None if row is None else _active_app(row)


async def get_app_by_id(connection: Connection, org: OrgId, app: AppId) -> ActiveApp | None:
    """Return an app by id, or None when the org has none of that id."""
    row = await connection.fetchrow(SQL["get_app_by_id"], org, app)
    return None if row is None else _active_app(row)


async def app_names(connection: Connection, org: OrgId) -> list[str]:
    """Return the names of the org's deployed apps, at most `NAMES_MAX`, for near matches."""
    return [row["name"] for row in await connection.fetch(SQL["list_app_names"], org, NAMES_MAX)]


async def function_names(connection: Connection, org: OrgId, app_name: str) -> list[str] | None:
    """Return the sorted names that an app's active deployment has; None when there is no such deployed app."""
    names: list[str] | None = await connection.fetchval(SQL["list_function_names"], org, app_name)
    return names


async def get_deployment(connection: Connection, org: OrgId, deployment: DeploymentId) -> Deployment | None:
    """Return a deployment, or None when the org has no such one."""
    row = await connection.fetchrow(SQL["get_deployment"], org, deployment)
    if row is None:
        return None
    manifest = msgspec.json.decode(row["manifest"], type=Manifest)
    ids = {found["name"]: found["id"] for found in await connection.fetch(SQL["list_function_ids"], org, row["app"])}
    columns: dict[str, Any] = dict(row.items())
    columns |= {"manifest": manifest, "functions": {spec.name: ids[spec.name] for spec in manifest.functions}}
    return Deployment(**columns)


async def get_function(connection: Connection, org: OrgId, function: FunctionId) -> Function | None:
    """Return a function as the active deployment has it; None when the org has none, or the deployment lacks it."""
    return function_of(await connection.fetchrow(SQL["get_function"], org, function))


async def stopped_app_of(connection: Connection, org: OrgId, function: FunctionId) -> str | None:
    """Return the name of a function's app when no deployment of the app is active; None also without the function."""
    name: str | None = await connection.fetchval(SQL["get_stopped_app"], org, function)
    return name


async def find_function(connection: Connection, org: OrgId, app_name: str, name: str) -> Function | None:
    """Return a function by the names of app and function; None as for `get_function`."""
    return function_of(await connection.fetchrow(SQL["find_function"], org, app_name, name))


async def is_active(connection: Connection, org: OrgId, app: AppId, deployment: DeploymentId) -> bool:
    """Whether a deployment is the one that its app runs now."""
    return bool(await connection.fetchval(SQL["is_active"], org, app, deployment))


async def lock_active(connection: Connection, org: OrgId, name: str) -> tuple[AppId, DeploymentId | None] | None:
    """Let nobody else change an app's deployments until the transaction ends; None when there is no such app.

    Returns:
        The app and its active deployment; None for that when the app is stopped.
    """
    row = await connection.fetchrow(SQL["lock_app_by_name"], org, name)
    return None if row is None else (AppId(row["id"]), row["active"])


async def get_version(connection: Connection, org: OrgId, app: AppId, version: int) -> Deployment | None:
    """Return one version of an app; None when there never was one or it is deleted."""
    found: DeploymentId | None = await connection.fetchval(SQL["get_version"], org, app, version)
    return None if found is None else await get_deployment(connection, org, found)


async def get_version_before(connection: Connection, org: OrgId, app: AppId, version: int) -> Deployment | None:
    """Return the newest version below `version` that is not deleted; None without one."""
    found: DeploymentId | None = await connection.fetchval(SQL["get_version_before"], org, app, version)
    return None if found is None else await get_deployment(connection, org, found)


async def add_app(connection: Connection, new: NewDeployment) -> None:
    """Make the app of a deployment, unless there is one; waits for who makes it at this moment."""
    await connection.execute(SQL["add_app"], new.app_id, new.org, new.app_name, new.created_at)


async def create_deployment(connection: Connection, new: NewDeployment) -> tuple[Deployment, DeploymentId | None]:
    """Make a new version of an app and activate it; the app is made by its first deploy.

    Returns:
        The deployment, and the one that was active before.

    Two deploys of one app follow each other: the second waits for the commit of the first. The archive must be in the
    org's table of archives.
    """
    await add_app(connection, new)
    row = await connection.fetchrow(SQL["count_version"], new.org, new.app_name)
    assert row is not None, "the app was inserted in this transaction or before"
    app, version = AppId(row["id"]), int(row["versions"])
    names = [spec.name for spec in new.manifest.functions]
    ids = [new.function_ids[name] for name in names]
    superseded: DeploymentId | None = await connection.fetchval(SQL["supersede"], new.org, app)
    await _add_deployment(connection, new, app, version)
    await connection.execute(SQL["add_functions"], new.org, app, ids, names, new.created_at)
    await connection.execute(SQL["activate"], new.org, app, new.id)
    made = await get_deployment(connection, new.org, new.id)
    assert made is not None, "the deployment was inserted in this transaction"
    return made, superseded


async def _add_deployment(connection: Connection, new: NewDeployment, app: AppId, version: int) -> None:
    manifest = msgspec.json.encode(new.manifest).decode()
    columns = (new.id, new.org, app, version, new.archive, manifest, new.created_by, new.created_at, new.restored_from)
    await connection.execute(SQL["add_deployment"], *columns)


def function_of(row: Record | None) -> Function | None:
    """Return the function of a row of `get_function`, `find_function` or the recovery's `get_deployed_function`."""
    if row is None or row["spec"] is None:
        return None
    columns: dict[str, Any] = dict(row.items())
    columns["spec"] = msgspec.json.decode(row["spec"], type=FunctionSpec)
    return Function(**columns)


def _active_app(row: Record) -> ActiveApp:
    app = App(row["id"], row["org"], row["name"], row["active"], row["created_at"])
    return ActiveApp(app, row["version"], tuple(row["functions"]))
