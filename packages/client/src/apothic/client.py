"""The connection to a control plane, for blocking callers and, under `.aio`, for asyncio.

Both clients only start the operations of `_operations` and `_calls`, each with its own driver; everything that decides
is written there once. A client may be used by any number of threads and after a fork.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from apothic import _blocking, _calls, _operations, _preparing
from apothic._answers import (
    AppInfo,
    DeploymentEnd,
    DeploymentEntry,
    DeploymentInfo,
    FunctionInfo,
    Identity,
    JobInfo,
    LogPage,
    Outcome,
    Readiness,
)
from apothic._async_client import AsyncControlPlaneClient
from apothic._core import Core
from apothic._environments import EnvironmentMethods
from apothic._groups import GroupMethods
from apothic._http import Response
from apothic._job_lists import JobListMethods
from apothic._join_tokens import JoinTokenMethods
from apothic._ranges import flag, number, seconds, whole
from apothic._schedules import ScheduleMethods
from apothic._steps import Steps
from apothic.config import Endpoint, resolve
from apothic.wire.functions import Manifest
from apothic.wire.values import Value

if TYPE_CHECKING:
    from apothic._preparing import Preparation
    from apothic._workers import EnrolledWorker, WorkerInfo
    from apothic.streams import JobStreamCursor, StreamEvent

T = TypeVar("T")

__all__ = [
    "AppInfo",
    "AsyncControlPlaneClient",
    "ControlPlaneClient",
    "DeploymentEnd",
    "DeploymentEntry",
    "DeploymentInfo",
    "FunctionInfo",
    "Identity",
    "JobInfo",
    "LogPage",
    "Outcome",
    "Readiness",
    "Response",
    "shared_client",
]


class ControlPlaneClient(ScheduleMethods, JobListMethods, JoinTokenMethods, GroupMethods, EnvironmentMethods):
    """Talks to one control plane with one credential.

    Args:
        base_url: Address such as `http://127.0.0.1:8400`; None looks in `APOTHIC_BASE_URL`, the active profile and the
            cloud running on this machine, in this order. Inside a function None is the cloud that runs it.
        api_key: Key sent as bearer token; None looks in the variables and in what is stored beside the address.
        auth_token: Bearer token that wins over `api_key`.
        auth_header: Verbatim value of the `Authorization` header that wins over both.
        timeout_s: Bound of one request with its retries, more than 0 seconds; waiting for jobs has its own bounds.
        allow_pickle: False refuses results that are not JSON, so that no byte from elsewhere is ever unpickled.

    Raises:
        CloudNotRunning: Nothing names an address.
        ConfigError: An address, a credential or a configuration file is malformed or unsafe.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        auth_token: str | None = None,
        auth_header: str | None = None,
        timeout_s: float = 60.0,
        allow_pickle: bool = True,
    ) -> None:
        number("timeout_s", timeout_s, 0.001, 86_400)
        flag("allow_pickle", allow_pickle)
        endpoint = resolve(base_url, api_key=api_key, auth_token=auth_token, auth_header=auth_header)
        self._core = Core(endpoint, timeout_s=timeout_s, allow_pickle=allow_pickle)

    @classmethod
    def from_env(cls) -> ControlPlaneClient:
        """Return a client configured by variables, the active profile or the cloud running on this machine."""
        return cls()

    @classmethod
    def from_core(cls, core: Core) -> ControlPlaneClient:
        """Return a client on parts that exist already; for this package's own modules."""
        client = cls.__new__(cls)
        client.__dict__["_core"] = core
        return client

    @property
    def base_url(self) -> str:
        """Address of the control plane, without a trailing slash."""
        return self._core.endpoint.url

    @property
    def endpoint(self) -> Endpoint:
        """Address, credential and where they came from."""
        return self._core.endpoint

    @property
    def allow_pickle(self) -> bool:
        """Whether results may be unpickled."""
        return self._core.allow_pickle

    @functools.cached_property
    def aio(self) -> AsyncControlPlaneClient:
        """The same client for asyncio."""
        return AsyncControlPlaneClient(self._core)

    @property
    def core(self) -> Core:
        """What operations run on; for this package's own modules."""
        return self._core

    def run(self, steps: Steps[T]) -> T:
        """Perform an operation; for this package's own modules."""
        return _blocking.run(steps)

    def run_call(self, steps: Steps[T]) -> T:
        """Perform a blocking call, which decides itself what Ctrl-C does; for this package's own modules."""
        return _blocking.run_guarded(steps)

    def close(self) -> None:
        """Close this thread's idle connections; the client stays usable."""
        self._core.idle.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        json: Any = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send any request under the base URL and return the answer whatever its status.

        Args:
            path: Percent-encoded, beginning with a slash.
            json: Value sent as a JSON body; not together with `body`.

        Raises:
            UnavailableError: No connection, or no answer in time.
            ConnectionLostError: The connection ended after a request that must not be sent twice.
        """
        return self.run(
            _operations.raw(self._core, method, path, query=query, json_body=json, body=body, headers=headers)
        )

    def identity(self) -> Identity:
        """Return whom the server takes this key for."""
        return self.run(_operations.identity(self._core))

    def readiness(self) -> Readiness:
        """Return whether the server can work, and which part cannot; needs no key."""
        return self.run(_operations.readiness(self._core))

    def list_workers(self) -> tuple[WorkerInfo, ...]:
        """Return the starts of workers that live or ended within a day; needs an operator's key."""
        return self.run(_operations.list_workers(self._core))

    def list_enrolled_workers(self) -> tuple[EnrolledWorker, ...]:
        """Return the workers that have joined, by name; needs an operator's key."""
        return self.run(_operations.list_enrolled_workers(self._core))

    def drain_worker(self, name: str) -> EnrolledWorker:
        """Give a worker no new work; what it runs goes on. Asking twice is fine. NotFoundError when none has joined."""
        return self.run(_operations.drain_worker(self._core, name))

    def resume_worker(self, name: str) -> EnrolledWorker:
        """Give a worker work again. Asking twice is fine. NotFoundError when none of this name has joined."""
        return self.run(_operations.resume_worker(self._core, name))

    def remove_worker(self, name: str) -> EnrolledWorker:
        """End a worker's credential and its link at once; its jobs run again after its lease. Asking twice is fine."""
        return self.run(_operations.remove_worker(self._core, name))

    def list_apps(self) -> tuple[AppInfo, ...]:
        """Return all apps of the key's org."""
        return self.run(_operations.list_apps(self._core))

    def get_app(self, name: str) -> AppInfo:
        """Return one app by name; NotFoundError when there is none."""
        return self.run(_operations.get_app(self._core, name))

    def get_deployment(self, deployment_id: str) -> DeploymentInfo:
        """Return one deployment; NotFoundError when there is none."""
        return self.run(_operations.get_deployment(self._core, deployment_id))

    def list_deployments(self, app: str | None = None) -> tuple[DeploymentEntry, ...]:
        """Return all deployments that are not deleted, newest first; NotFoundError when there is no such app."""
        return self.run(_operations.list_deployments(self._core, app))

    def prepare_deployment(self, deployment_id: str) -> Preparation:
        """Have a worker make the environments of a deployment ready, and return how far they are; ask again to follow.

        Raises:
            ConflictError: It was stopped or deleted.
        """
        return self.run(_preparing.prepare(self._core, deployment_id))

    def stop_deployment(self, deployment_id: str, *, now: bool = False) -> DeploymentEnd:
        """Let a deployment take no more calls: its waiting jobs end as failed. Asking twice is fine.

        Args:
            now: Cancel its running jobs too; else they finish.
        """
        return self.run(_operations.stop_deployment(self._core, deployment_id, flag("now", now)))

    def delete_deployment(self, deployment_id: str, *, now: bool = False) -> DeploymentEnd:
        """Delete a deployment; records of its jobs stay. Asking twice is fine.

        Args:
            now: Delete it in any case, cancelling its jobs.

        Raises:
            ConflictError: Without `now`: it is active, or has jobs that have not ended.
        """
        return self.run(_operations.delete_deployment(self._core, deployment_id, flag("now", now)))

    def watch_app(
        self,
        app: str,
        *,
        snapshot: bool = False,
        cursor: JobStreamCursor | None = None,
        last_index: int | None = None,
        event_types: list[str] | tuple[str, ...] | None = None,
    ) -> Generator[StreamEvent, None, None]:
        """Yield the events of an app, given by name or id: each once, none left out; does not end by itself.

        Lost connections are resumed. Events that are gone, or do not exist, come as one `StreamResetEvent` instead.

        Args:
            snapshot: Begin with `app.snapshot`, the app as it is now, and go on behind it.
            cursor: Go on at this place; not together with `last_index`.
            last_index: The last index already seen; -1, and no place at all, for the first event kept.
            event_types: Names of the events to yield; None or empty for all. A reset always comes.

        Raises:
            InvalidRequestError: An argument is malformed; raised at once.
            NotFoundError: There is no such app.
            UnavailableError: The stream could not be resumed; the message says after which index to go on.
        """
        from apothic import _events, _watching

        reader = _watching.app_reader(
            self._core, app, snapshot=snapshot, cursor=cursor, last_index=last_index, event_types=event_types
        )
        return _events.follow(self.run, reader)

    def watch_deployment(
        self,
        deployment_id: str,
        *,
        snapshot: bool = False,
        cursor: JobStreamCursor | None = None,
        last_index: int | None = None,
        event_types: list[str] | tuple[str, ...] | None = None,
    ) -> Generator[StreamEvent, None, None]:
        """Yield the events of a deployment until it is deleted; otherwise as `watch_app`."""
        from apothic import _events, _watching

        reader = _watching.deployment_reader(
            self._core, deployment_id, snapshot=snapshot, cursor=cursor, last_index=last_index, event_types=event_types
        )
        return _events.follow(self.run, reader)

    def get_function(self, app: str, name: str) -> FunctionInfo:
        """Return a function of an app's live deployment; the NotFoundError names near matches."""
        return self.run(_operations.get_function(self._core, app, name))

    def function_by_id(self, function_id: str) -> FunctionInfo:
        """Return a function by its id; NotFoundError when there is none."""
        return self.run(_operations.function_by_id(self._core, function_id))

    def get_job(self, job_id: str) -> JobInfo:
        """Return one job; NotFoundError when there is none."""
        return self.run(_operations.get_job(self._core, job_id))

    def job_logs(self, job_id: str, after: int = -1) -> LogPage:
        """Return one page of a job's output; `after` is the last index already read, -1 for none."""
        return self.run(_operations.job_logs(self._core, job_id, after))

    def cancel_job(self, job_id: str) -> str:
        """Ask for the end of a job and return its status after that; asking twice is fine."""
        return self.run(_operations.cancel_job(self._core, job_id))

    def retry_job(self, job_id: str) -> str:
        """Make a new job with the function and the arguments of one that has ended; return its id."""
        return self.run(_operations.retry_job(self._core, job_id))

    def has_archive(self, sha256: str) -> bool:
        """Whether the org has already uploaded an archive with this digest."""
        return self.run(_operations.has_archive(self._core, sha256))

    def put_archive(self, source: bytes | Path, sha256: str) -> None:
        """Upload an archive; a digest that does not fit is refused. Uploading it again changes nothing."""
        return self.run(_operations.put_archive(self._core, source, sha256))

    def create_deployment(
        self, app: str, manifest: Manifest, sha256: str, *, if_changed: bool = False
    ) -> DeploymentInfo:
        """Make an uploaded archive the live version of an app, which is made when it is new.

        Args:
            if_changed: Make none when the live one has the same manifest and archive; return that one.
        """
        steps = _operations.create_deployment(self._core, app, manifest, sha256, flag("if_changed", if_changed))
        return self.run(steps)[0]

    def rollback(self, app: str, version: int | None = None) -> DeploymentInfo:
        """Make the content of an earlier version live again, as a new deployment; nothing is uploaded or built.

        Args:
            version: Whose content, from 1; None for the newest one before what is live, so that a second rollback goes
                back one further. The content that is live already stays, and no deployment is made.

        Raises:
            NotFoundError: No such app, or it has no such version or that was deleted.
            ConflictError: Without `version`: there is none before (`no_earlier_version`), or the app is stopped
                (`app_stopped`).
        """
        wanted = None if version is None else whole("version", version, 1, 2**31 - 1)
        return self.run(_operations.rollback(self._core, app, wanted))

    def call(self, function_id: str, value: Value, *, timeout_s: float = math.inf) -> Outcome:
        """Run a function and return how its job ended.

        Ctrl-C cancels the job and waits for that answer; a second one leaves at once and prints the job's id.

        Raises:
            JobTimeoutError: The job did not end within `timeout_s`; it goes on.
            ConnectionLostError: The connection ended before the job's id was known; the call may have run.
        """
        return self.run_call(_calls.call(self._core, function_id, value, timeout_s=seconds("timeout_s", timeout_s)))

    def spawn(self, function_id: str, value: Value) -> str:
        """Create a job and return its id. While too many calls wait, tries again for up to the client's `timeout_s`."""
        return self.run(_operations.spawn(self._core, function_id, value))

    def outcome(self, job_id: str, *, timeout_s: float = math.inf, poll_interval_s: float = 1.0) -> Outcome:
        """Wait for a job and return how it ended; resumes after lost connections. `timeout_s=0` looks once.

        Raises:
            JobTimeoutError: The job did not end within `timeout_s`; it goes on.
        """
        seconds("timeout_s", timeout_s)
        number("poll_interval_s", poll_interval_s, 0.001, 86_400)
        return self.run(_calls.outcome(self._core, job_id, timeout_s=timeout_s, poll_interval_s=poll_interval_s))


def shared_client(client: ControlPlaneClient | None = None, base_url: str | None = None) -> ControlPlaneClient:
    """Return `client`, else the process's client for `base_url` or for the configured address.

    Raises:
        CloudNotRunning: Nothing names an address.
    """
    return client if client is not None else _client_of(resolve(base_url))


@functools.lru_cache(maxsize=16)
def _client_of(endpoint: Endpoint) -> ControlPlaneClient:
    return ControlPlaneClient.from_core(Core(endpoint))
