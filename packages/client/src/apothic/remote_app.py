"""Handles to apps and deployments that exist on the server."""

from __future__ import annotations

import functools
from collections.abc import Generator
from typing import Any

from apothic._answers import AppInfo, DeploymentInfo
from apothic._ranges import wrong
from apothic.client import ControlPlaneClient
from apothic.errors import ConflictError
from apothic.remote_function import RemoteFunction
from apothic.streams import StreamEvent


class RemoteApp:
    """A deployed app, known by name; `App.lookup` makes one.

    Args:
        name: Name of the app.
        client: The connection to use.
    """

    def __init__(self, name: str, client: ControlPlaneClient) -> None:
        if not isinstance(name, str) or not name:  # pyright: ignore[reportUnnecessaryIsInstance] - users may err
            raise wrong("name", name, "an app's name")
        self._name = name
        self._client = client

    def __repr__(self) -> str:
        return f"<RemoteApp {self._name}>"

    @property
    def name(self) -> str:
        """Name of the app."""
        return self._name

    @property
    def client(self) -> ControlPlaneClient:
        """The connection in use."""
        return self._client

    @property
    def functions(self) -> dict[str, RemoteFunction]:
        """The functions of the live version, by name; asks the server each time.

        Raises:
            NotFoundError: There is no such app; the message names near matches.
        """
        connect = functools.partial(_same, self._client)
        return {name: RemoteFunction(self._name, name, connect) for name in self.info().functions}

    def info(self) -> AppInfo:
        """Return the app as it is now; NotFoundError when there is none."""
        return self._client.get_app(self._name)

    @property
    def deployment(self) -> Deployment:
        """The live version now.

        Raises:
            NotFoundError: There is no such app.
            ConflictError: It is stopped, so it has no live version (`app_stopped`).
        """
        live = self.info().deployment_id
        if live is None:
            raise ConflictError(f"App {self._name} is stopped, so it has no live version.", code="app_stopped")
        return Deployment(live, self._client)

    def rollback(self, version: int | None = None) -> Deployment:
        """Make the content of an earlier version live again; see `ControlPlaneClient.rollback`."""
        return Deployment(self._client.rollback(self._name, version).deployment_id, self._client)

    def watch(
        self,
        *,
        snapshot: bool = False,
        last_index: int | None = None,
        event_types: list[str] | tuple[str, ...] | None = None,
    ) -> Generator[StreamEvent, None, None]:
        """Yield the events of the app; see `ControlPlaneClient.watch_app`."""
        return self._client.watch_app(self._name, snapshot=snapshot, last_index=last_index, event_types=event_types)


class Deployment:
    """A handle to one deployment; may be built from a bare id in any process.

    Args:
        deployment_id: Id as given by `App.deploy`, for example `deployments:01jc…`.
        client: The connection to use.
    """

    def __init__(self, deployment_id: str, client: ControlPlaneClient) -> None:
        if not isinstance(deployment_id, str) or not deployment_id:  # pyright: ignore[reportUnnecessaryIsInstance] - users may err
            raise wrong("deployment_id", deployment_id, "a deployment's id such as deployments:01jc…")
        self._deployment_id = deployment_id
        self._client = client

    def __repr__(self) -> str:
        return f"<Deployment {self._deployment_id}>"

    @property
    def deployment_id(self) -> str:
        """Id of the deployment."""
        return self._deployment_id

    def info(self) -> DeploymentInfo:
        """Return the deployment as it is now; NotFoundError when there is none."""
        return self._client.get_deployment(self._deployment_id)

    def status(self) -> str:
        """Return `active`, `superseded`, `stopped` or `deleted`."""
        return self.info().status

    def stop(self, *, now: bool = False) -> int:
        """Let it take no more calls and return how many of its jobs have not ended; `now` cancels those too."""
        return self._client.stop_deployment(self._deployment_id, now=now).unfinished_jobs

    def delete(self, *, force: bool = False) -> int:
        """Delete it and return how many of its jobs have not ended; see `ControlPlaneClient.delete_deployment`.

        Raises:
            ConflictError: Without `force`: it is live, or has jobs that have not ended.
        """
        return self._client.delete_deployment(self._deployment_id, now=force).unfinished_jobs

    def watch(
        self,
        *,
        snapshot: bool = False,
        last_index: int | None = None,
        event_types: list[str] | tuple[str, ...] | None = None,
    ) -> Generator[StreamEvent, None, None]:
        """Yield its events until it is deleted; see `ControlPlaneClient.watch_deployment`."""
        return self._client.watch_deployment(
            self._deployment_id, snapshot=snapshot, last_index=last_index, event_types=event_types
        )


def _same(client: Any) -> Any:
    return client
