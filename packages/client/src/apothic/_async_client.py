"""The connection to a control plane for asyncio; `client.py` has the blocking one and says what both are."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from apothic import _calls, _environments, _job_lists, _join_tokens, _operations, _preparing, _schedules
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
from apothic._async_groups import AsyncGroupMethods
from apothic._core import Core
from apothic._http import Response
from apothic._ranges import flag, number, seconds, whole
from apothic._steps import Steps
from apothic.wire.functions import Manifest
from apothic.wire.limits import JOIN_TOKEN_S_DEFAULT
from apothic.wire.values import Value

if TYPE_CHECKING:
    from apothic._environments import HeldEnvironments
    from apothic._job_lists import AppStats, JobEntry
    from apothic._preparing import Preparation
    from apothic._schedules import ScheduleInfo
    from apothic._workers import EnrolledWorker, JoinToken, JoinTokenInfo, WorkerInfo
    from apothic.streams import JobStreamCursor, StreamEvent

T = TypeVar("T")


class AsyncControlPlaneClient(AsyncGroupMethods):
    """`ControlPlaneClient` for asyncio: the same methods with the same meaning, awaited.

    Cancelling the awaiting task ends the waiting only; no job stops.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    @property
    def base_url(self) -> str:
        """Address of the control plane, without a trailing slash."""
        return self._core.endpoint.url

    @property
    def core(self) -> Core:
        """What operations run on; for this package's own modules."""
        return self._core

    async def run_call(self, steps: Steps[T]) -> T:
        """Perform a call; for this package's own modules."""
        return await self.run(steps)

    async def run(self, steps: Steps[T]) -> T:
        """Perform an operation; for this package's own modules."""
        from apothic import _asynchronous

        return await _asynchronous.run(steps)

    def close(self) -> None:
        """Close this thread's idle connections; the client stays usable."""
        self._core.idle.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        json: Any = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send any request under the base URL and return the answer whatever its status."""
        return await self.run(
            _operations.raw(self._core, method, path, query=query, json_body=json, body=body, headers=headers)
        )

    async def identity(self) -> Identity:
        """Return whom the server takes this key for."""
        return await self.run(_operations.identity(self._core))

    async def readiness(self) -> Readiness:
        """Return whether the server can work, and which part cannot; needs no key."""
        return await self.run(_operations.readiness(self._core))

    async def list_workers(self) -> tuple[WorkerInfo, ...]:
        """Return the starts of workers that live or ended within a day; needs an operator's key."""
        return await self.run(_operations.list_workers(self._core))

    async def list_enrolled_workers(self) -> tuple[EnrolledWorker, ...]:
        """Return the workers that have joined, by name; needs an operator's key."""
        return await self.run(_operations.list_enrolled_workers(self._core))

    async def make_join_token(self, *, life_s: int = JOIN_TOKEN_S_DEFAULT) -> JoinToken:
        """Return a token with which one worker can join within 60 to 86,400 seconds; needs an operator's key."""
        return await self.run(_join_tokens.make(self._core, life_s))

    async def list_join_tokens(self) -> tuple[JoinTokenInfo, ...]:
        """Return the tokens that a worker can still join with, the oldest first, without their secrets."""
        return await self.run(_join_tokens.list_unused(self._core))

    async def revoke_join_token(self, join_token_id: str) -> JoinTokenInfo:
        """End a token at once. Asking twice is fine. ConflictError when a worker has joined with it already."""
        return await self.run(_join_tokens.revoke(self._core, join_token_id))

    async def drain_worker(self, name: str) -> EnrolledWorker:
        """Give a worker no new work; what it runs goes on. Asking twice is fine. NotFoundError when none has joined."""
        return await self.run(_operations.drain_worker(self._core, name))

    async def resume_worker(self, name: str) -> EnrolledWorker:
        """Give a worker work again. Asking twice is fine. NotFoundError when none of this name has joined."""
        return await self.run(_operations.resume_worker(self._core, name))

    async def remove_worker(self, name: str) -> EnrolledWorker:
        """End a worker's credential and its link at once; its jobs run again after its lease. Asking twice is fine."""
        return await self.run(_operations.remove_worker(self._core, name))

    async def list_apps(self) -> tuple[AppInfo, ...]:
        """Return all apps of the key's org."""
        return await self.run(_operations.list_apps(self._core))

    async def get_app(self, name: str) -> AppInfo:
        """Return one app by name; NotFoundError when there is none."""
        return await self.run(_operations.get_app(self._core, name))

    async def get_deployment(self, deployment_id: str) -> DeploymentInfo:
        """Return one deployment; NotFoundError when there is none."""
        return await self.run(_operations.get_deployment(self._core, deployment_id))

    async def list_deployments(self, app: str | None = None) -> tuple[DeploymentEntry, ...]:
        """Return all deployments that are not deleted, newest first; NotFoundError when there is no such app."""
        return await self.run(_operations.list_deployments(self._core, app))

    async def list_schedules(self, app: str | None = None) -> tuple[ScheduleInfo, ...]:
        """Return all schedules that have not ended, those of one app or all."""
        return await self.run(_schedules.list_schedules(self._core, app))

    async def get_schedule(self, schedule_id: str) -> ScheduleInfo:
        """Return one schedule; NotFoundError when there is none."""
        return await self.run(_schedules.get_schedule(self._core, schedule_id))

    async def pause_schedule(self, schedule_id: str) -> ScheduleInfo:
        """Let a schedule make no jobs until it is resumed; running ones go on. ConflictError when it has ended."""
        return await self.run(_schedules.order(self._core, schedule_id, "pause"))

    async def resume_schedule(self, schedule_id: str) -> ScheduleInfo:
        """Let a paused schedule go on with the first tick after now. ConflictError when it has ended."""
        return await self.run(_schedules.order(self._core, schedule_id, "resume"))

    async def run_schedule(self, schedule_id: str) -> str:
        """Make a job of a schedule at once and return its id. ConflictError when it has ended."""
        return await self.run(_schedules.run_schedule(self._core, schedule_id))

    async def list_environments(self) -> HeldEnvironments:
        """Return the environments of the key's org on the workers that are linked; asks them for at most 5 seconds."""
        return await self.run(_environments.list_held(self._core))

    async def prune_environments(self) -> HeldEnvironments:
        """Remove the environments that no live deployment needs and nobody uses; return them. Asking twice is fine."""
        return await self.run(_environments.prune(self._core))

    async def prepare_deployment(self, deployment_id: str) -> Preparation:
        """Have a worker make the environments of a deployment ready, and return how far they are; ask again to follow.

        Raises:
            ConflictError: It was stopped or deleted.
        """
        return await self.run(_preparing.prepare(self._core, deployment_id))

    async def stop_deployment(self, deployment_id: str, *, now: bool = False) -> DeploymentEnd:
        """Let a deployment take no more calls: its waiting jobs end as failed. Asking twice is fine.

        Args:
            now: Cancel its running jobs too; else they finish.
        """
        return await self.run(_operations.stop_deployment(self._core, deployment_id, flag("now", now)))

    async def delete_deployment(self, deployment_id: str, *, now: bool = False) -> DeploymentEnd:
        """Delete a deployment; records of its jobs stay. Asking twice is fine.

        Args:
            now: Delete it in any case, cancelling its jobs.

        Raises:
            ConflictError: Without `now`: it is active, or has jobs that have not ended.
        """
        return await self.run(_operations.delete_deployment(self._core, deployment_id, flag("now", now)))

    def watch_app(
        self,
        app: str,
        *,
        snapshot: bool = False,
        cursor: JobStreamCursor | None = None,
        last_index: int | None = None,
        event_types: list[str] | tuple[str, ...] | None = None,
    ) -> AsyncGenerator[StreamEvent]:
        """Yield the events of an app, given by name or id, as the blocking method does; does not end by itself."""
        from apothic import _events, _watching

        reader = _watching.app_reader(
            self._core, app, snapshot=snapshot, cursor=cursor, last_index=last_index, event_types=event_types
        )
        return _events.follow_async(self.run, reader)

    def watch_deployment(
        self,
        deployment_id: str,
        *,
        snapshot: bool = False,
        cursor: JobStreamCursor | None = None,
        last_index: int | None = None,
        event_types: list[str] | tuple[str, ...] | None = None,
    ) -> AsyncGenerator[StreamEvent]:
        """Yield the events of a deployment until it is deleted; otherwise as `watch_app`."""
        from apothic import _events, _watching

        reader = _watching.deployment_reader(
            self._core, deployment_id, snapshot=snapshot, cursor=cursor, last_index=last_index, event_types=event_types
        )
        return _events.follow_async(self.run, reader)

    async def get_function(self, app: str, name: str) -> FunctionInfo:
        """Return a function of an app's live deployment; the NotFoundError names near matches."""
        return await self.run(_operations.get_function(self._core, app, name))

    async def function_by_id(self, function_id: str) -> FunctionInfo:
        """Return a function by its id; NotFoundError when there is none."""
        return await self.run(_operations.function_by_id(self._core, function_id))

    async def get_job(self, job_id: str) -> JobInfo:
        """Return one job; NotFoundError when there is none."""
        return await self.run(_operations.get_job(self._core, job_id))

    async def list_jobs(
        self,
        *,
        app: str | None = None,
        function: str | None = None,
        deployment: str | None = None,
        group: str | None = None,
        status: str | None = None,
        unfinished: bool = False,
        since: str | None = None,
        limit: int = 50,
    ) -> tuple[JobEntry, ...]:
        """Return up to `limit` jobs, newest first; `since` is a time with its zone such as 2026-01-31T12:00:00Z."""
        given = {"app": app, "function": function, "deployment": deployment}
        given |= {"group": group, "status": status, "since": since}
        wanted = _job_lists.wanted(given, flag("unfinished", unfinished))
        return await self.run(_job_lists.list_jobs(self._core, wanted, whole("limit", limit, 1, 100_000)))

    async def app_stats(self, app: str, function: str | None = None, *, since: str | None = None) -> AppStats:
        """Return how the calls of an app went, of one function or of each."""
        return await self.run(_job_lists.app_stats(self._core, app, function, since))

    async def job_logs(self, job_id: str, after: int = -1) -> LogPage:
        """Return one page of a job's output; `after` is the last index already read, -1 for none."""
        return await self.run(_operations.job_logs(self._core, job_id, after))

    async def cancel_job(self, job_id: str) -> str:
        """Ask for the end of a job and return its status after that; asking twice is fine."""
        return await self.run(_operations.cancel_job(self._core, job_id))

    async def retry_job(self, job_id: str) -> str:
        """Make a new job with the function and the arguments of one that has ended; return its id."""
        return await self.run(_operations.retry_job(self._core, job_id))

    async def has_archive(self, sha256: str) -> bool:
        """Whether the org has already uploaded an archive with this digest."""
        return await self.run(_operations.has_archive(self._core, sha256))

    async def put_archive(self, source: bytes | Path, sha256: str) -> None:
        """Upload an archive; a digest that does not fit is refused. Uploading it again changes nothing."""
        return await self.run(_operations.put_archive(self._core, source, sha256))

    async def create_deployment(
        self, app: str, manifest: Manifest, sha256: str, *, if_changed: bool = False
    ) -> DeploymentInfo:
        """Make an uploaded archive the live version of an app, which is made when it is new.

        Args:
            if_changed: Make none when the live one has the same manifest and archive; return that one.
        """
        steps = _operations.create_deployment(self._core, app, manifest, sha256, flag("if_changed", if_changed))
        return (await self.run(steps))[0]

    async def rollback(self, app: str, version: int | None = None) -> DeploymentInfo:
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
        return await self.run(_operations.rollback(self._core, app, wanted))

    async def call(self, function_id: str, value: Value, *, timeout_s: float = math.inf) -> Outcome:
        """Run a function and return how its job ended; cancelling the task leaves the job running."""
        return await self.run(_calls.call(self._core, function_id, value, timeout_s=seconds("timeout_s", timeout_s)))

    async def spawn(self, function_id: str, value: Value) -> str:
        """Create a job and return its id. While too many calls wait, tries again for up to the client's `timeout_s`."""
        return await self.run(_operations.spawn(self._core, function_id, value))

    async def outcome(self, job_id: str, *, timeout_s: float = math.inf, poll_interval_s: float = 1.0) -> Outcome:
        """Wait for a job and return how it ended; resumes after lost connections. `timeout_s=0` looks once."""
        seconds("timeout_s", timeout_s)
        number("poll_interval_s", poll_interval_s, 0.001, 86_400)
        return await self.run(_calls.outcome(self._core, job_id, timeout_s=timeout_s, poll_interval_s=poll_interval_s))
