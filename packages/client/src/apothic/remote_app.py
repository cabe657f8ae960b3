"""Handles to apps and deployments that exist on the server."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Generator
from typing import Any

from apothic._answers import AppInfo, DeploymentInfo
from apothic._preparing import Preparation, wait_ready
from apothic._ranges import number, wrong
from apothic.client import ControlPlaneClient
from apothic.errors import ConflictError
from apothic.remote_function import RemoteFunction
from apothic.streams import StreamEvent
from apothic.wire.limits import READY_WAIT_S_DEFAULT, READY_WAIT_S_MAX

EventTypes = list[str] | tuple[str, ...] | None


class _Handle:
    """A name or an id, and the connection to the server that knows it."""

    def __init__(self, argument: str, key: str, what: str, client: ControlPlaneClient) -> None:
        if not isinstance(key, str) or not key:  # pyright: ignore[reportUnnecessaryIsInstance] - users may err
            raise wrong(argument, key, what)
        self._key = key
        self._client = client

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._key}>"

    @property
    def client(self) -> ControlPlaneClient:
        """The connection in use."""
        return self._client


class RemoteApp(_Handle):
    """A deployed app, known by name; `App.lookup` makes one.

    Args:
        name: Name of the app.
        client: The connection to use.
    """

    def __init__(self, name: str, client: ControlPlaneClient) -> None:
        super().__init__("name", name, "an app's name", client)

    @functools.cached_property
    def aio(self) -> AsyncRemoteApp:
        """The same app for asyncio."""
        return AsyncRemoteApp(self._key, self._client)

    @property
    def name(self) -> str:
        """Name of the app."""
        return self._key

    @property
    def functions(self) -> dict[str, RemoteFunction]:
        """The functions of the live version, by name; asks the server each time.

        Raises:
            NotFoundError: There is no such app; the message names near matches.
        """
        return _functions(self.info(), self._client)

    def info(self) -> AppInfo:
        """Return the app as it is now; NotFoundError when there is none."""
        return self._client.get_app(self._key)

    @property
    def deployment(self) -> Deployment:
        """The live version now.

        Raises:
            NotFoundError: There is no such app.
            ConflictError: It is stopped, so it has no live version (`app_stopped`).
        """
        return _live(self.info(), self._client)

    def rollback(self, version: int | None = None) -> Deployment:
        """Make the content of an earlier version live again; see `ControlPlaneClient.rollback`."""
        return Deployment(self._client.rollback(self._key, version).deployment_id, self._client)

    def watch(
        self, *, snapshot: bool = False, last_index: int | None = None, event_types: EventTypes = None
    ) -> Generator[StreamEvent, None, None]:
        """Yield the events of the app; see `ControlPlaneClient.watch_app`."""
        return self._client.watch_app(self._key, snapshot=snapshot, last_index=last_index, event_types=event_types)


class AsyncRemoteApp(_Handle):
    """`RemoteApp` for asyncio: the same names; what asks the server is called and awaited, also `functions()`."""

    def __init__(self, name: str, client: ControlPlaneClient) -> None:
        super().__init__("name", name, "an app's name", client)

    @property
    def name(self) -> str:
        """Name of the app."""
        return self._key

    async def functions(self) -> dict[str, RemoteFunction]:
        """Return the functions of the live version, by name; each has an `.aio` of its own."""
        return _functions(await self.info(), self._client)

    async def info(self) -> AppInfo:
        """Return the app as it is now; NotFoundError when there is none."""
        return await self._client.aio.get_app(self._key)

    async def deployment(self) -> Deployment:
        """Return the live version now; errors as `RemoteApp.deployment`."""
        return _live(await self.info(), self._client)

    async def rollback(self, version: int | None = None) -> Deployment:
        """Make the content of an earlier version live again; see `ControlPlaneClient.rollback`."""
        return Deployment((await self._client.aio.rollback(self._key, version)).deployment_id, self._client)

    def watch(
        self, *, snapshot: bool = False, last_index: int | None = None, event_types: EventTypes = None
    ) -> AsyncGenerator[StreamEvent]:
        """Yield the events of the app; see `ControlPlaneClient.watch_app`."""
        return self._client.aio.watch_app(self._key, snapshot=snapshot, last_index=last_index, event_types=event_types)


class Deployment(_Handle):
    """A handle to one deployment; may be built from a bare id in any process.

    Args:
        deployment_id: Id as given by `App.deploy`, for example `deployments:01jc…`.
        client: The connection to use.
    """

    def __init__(self, deployment_id: str, client: ControlPlaneClient) -> None:
        super().__init__("deployment_id", deployment_id, "a deployment's id such as deployments:01jc…", client)

    @functools.cached_property
    def aio(self) -> AsyncDeployment:
        """The same deployment for asyncio."""
        return AsyncDeployment(self._key, self._client)

    @property
    def deployment_id(self) -> str:
        """Id of the deployment."""
        return self._key

    def info(self) -> DeploymentInfo:
        """Return the deployment as it is now; NotFoundError when there is none."""
        return self._client.get_deployment(self._key)

    def status(self) -> str:
        """Return `active`, `superseded`, `stopped` or `deleted`."""
        return self.info().status

    def prepare(self) -> Preparation:
        """Have its environments made ready and return how far they are; ask again to follow, or wait with `wait_ready`.

        Raises:
            ConflictError: It was stopped or deleted.
        """
        return self._client.prepare_deployment(self._key)

    def wait_ready(self, *, timeout_s: float = READY_WAIT_S_DEFAULT) -> Preparation:
        """Return when its environments are ready, so that a first call waits for no build.

        Args:
            timeout_s: More than 0 seconds.

        Raises:
            RemoteExecutionError: A build failed; the message ends with the last lines of its log.
            NotSupportedError: Only an image builder could make it (`image_needs_builder`).
            JobTimeoutError: It is not ready after `timeout_s`; what was asked for goes on.
            ConflictError: It was stopped or deleted.
        """
        seconds = number("timeout_s", timeout_s, 0.001, READY_WAIT_S_MAX)
        return self._client.run(wait_ready(self._client.core, self._key, seconds))

    def stop(self, *, now: bool = False) -> int:
        """Let it take no more calls and return how many of its jobs have not ended; `now` cancels those too."""
        return self._client.stop_deployment(self._key, now=now).unfinished_jobs

    def delete(self, *, force: bool = False) -> int:
        """Delete it and return how many of its jobs have not ended; see `ControlPlaneClient.delete_deployment`.

        Raises:
            ConflictError: Without `force`: it is live, or has jobs that have not ended.
        """
        return self._client.delete_deployment(self._key, now=force).unfinished_jobs

    def watch(
        self, *, snapshot: bool = False, last_index: int | None = None, event_types: EventTypes = None
    ) -> Generator[StreamEvent, None, None]:
        """Yield its events until it is deleted; see `ControlPlaneClient.watch_deployment`."""
        where: Any = {"snapshot": snapshot, "last_index": last_index, "event_types": event_types}
        return self._client.watch_deployment(self._key, **where)


class AsyncDeployment(_Handle):
    """`Deployment` for asyncio: the same methods, awaited."""

    def __init__(self, deployment_id: str, client: ControlPlaneClient) -> None:
        super().__init__("deployment_id", deployment_id, "a deployment's id such as deployments:01jc…", client)

    @property
    def deployment_id(self) -> str:
        """Id of the deployment."""
        return self._key

    async def info(self) -> DeploymentInfo:
        """Return the deployment as it is now; NotFoundError when there is none."""
        return await self._client.aio.get_deployment(self._key)

    async def status(self) -> str:
        """Return `active`, `superseded`, `stopped` or `deleted`."""
        return (await self.info()).status

    async def prepare(self) -> Preparation:
        """Have its environments made ready and return how far they are; see `Deployment.prepare`."""
        return await self._client.aio.prepare_deployment(self._key)

    async def wait_ready(self, *, timeout_s: float = READY_WAIT_S_DEFAULT) -> Preparation:
        """Return when its environments are ready; arguments and errors as `Deployment.wait_ready`."""
        seconds = number("timeout_s", timeout_s, 0.001, READY_WAIT_S_MAX)
        return await self._client.aio.run(wait_ready(self._client.core, self._key, seconds))

    async def stop(self, *, now: bool = False) -> int:
        """Let it take no more calls and return how many of its jobs have not ended; `now` cancels those too."""
        return (await self._client.aio.stop_deployment(self._key, now=now)).unfinished_jobs

    async def delete(self, *, force: bool = False) -> int:
        """Delete it and return how many of its jobs have not ended; errors as `Deployment.delete`."""
        return (await self._client.aio.delete_deployment(self._key, now=force)).unfinished_jobs

    def watch(
        self, *, snapshot: bool = False, last_index: int | None = None, event_types: EventTypes = None
    ) -> AsyncGenerator[StreamEvent]:
        """Yield its events until it is deleted; see `ControlPlaneClient.watch_deployment`."""
        where: Any = {"snapshot": snapshot, "last_index": last_index, "event_types": event_types}
        return self._client.aio.watch_deployment(self._key, **where)


def _functions(app: AppInfo, client: ControlPlaneClient) -> dict[str, RemoteFunction]:
    connect = functools.partial(_same, client)
    return {name: RemoteFunction(app.name, name, connect) for name in app.functions}


def _live(app: AppInfo, client: ControlPlaneClient) -> Deployment:
    if app.deployment_id is None:
        raise ConflictError(f"App {app.name} is stopped, so it has no live version.", code="app_stopped")
    return Deployment(app.deployment_id, client)


def _same(client: ControlPlaneClient) -> ControlPlaneClient:
    return client
