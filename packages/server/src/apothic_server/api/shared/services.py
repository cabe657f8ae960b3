"""What the faces ask of the services. Every method that touches an org's things takes the actor first (G16.1).

Errors are those of `domain.errors`; `NotFound` is the answer for unknown and foreign things alike.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from apothic.wire.archive_parts import Part
from apothic.wire.functions import Manifest
from apothic.wire.ids import AppId, DeploymentId, FunctionId, JobId, JoinTokenId, ScheduleId
from apothic_server.api.shared.groups import Groups
from apothic_server.api.shared.jobs import Jobs
from apothic_server.api.shared.values import LargeValues
from apothic_server.domain.access import Actor
from apothic_server.domain.apps import Deployment, Function, Switch
from apothic_server.domain.deployments import DeploymentEntry
from apothic_server.domain.idempotency import Keep, KeptAnswer
from apothic_server.domain.schedules import ScheduleView
from apothic_server.domain.stats import AppStats
from apothic_server.domain.streams import StreamRef
from apothic_server.domain.views import (
    AppView,
    Batch,
    Check,
    EnrolledView,
    Gap,
    HeldView,
    Joined,
    JoinToken,
    JoinTokenView,
    KeyInfo,
    PreparationView,
    Snapshot,
    WorkerView,
)


class Keys(Protocol):
    """Who a token is."""

    async def describe(self, actor: Actor) -> KeyInfo: ...


class Apps(Protocol):
    """Apps, deployments and functions of the actor's org."""

    async def list_apps(self, actor: Actor, *, after: AppId | None, limit: int) -> Sequence[AppView]:
        """Return up to `limit` apps with an id greater than `after`, in the order of their ids."""
        ...

    async def get_app(self, actor: Actor, name: str) -> AppView: ...

    async def app_key(self, actor: Actor, name: str) -> AppId: ...

    async def deploy(
        self,
        actor: Actor,
        app_name: str,
        manifest: Manifest,
        archive_sha256: str,
        keep: Keep[Switch] | None = None,
        *,
        if_changed: bool = False,
    ) -> Switch | KeptAnswer:
        """Raises `Conflict` with code `archive_missing` when the archive is not stored in the actor's org."""
        ...

    async def rollback(
        self, actor: Actor, app_name: str, *, version: int | None, keep: Keep[Switch] | None = None
    ) -> Switch | KeptAnswer:
        """Raises `NotFound`, and without `version` `Conflict` with code `no_earlier_version` or `app_stopped`."""
        ...

    async def get_deployment(self, actor: Actor, key: DeploymentId) -> Deployment: ...

    async def get_function(self, actor: Actor, app_name: str, function_name: str) -> Function:
        """The `NotFound` names apps or functions with a similar name; `Conflict` with code `app_stopped`."""
        ...

    async def function_by_id(self, actor: Actor, key: FunctionId) -> Function: ...


class Deployments(Protocol):
    """Deployments of the actor's org."""

    async def list_deployments(
        self, actor: Actor, *, app_name: str | None, before: DeploymentId | None, limit: int
    ) -> Sequence[DeploymentEntry]:
        """Return up to `limit` that are not deleted, newest first, with an id below `before`."""
        ...

    async def stop(
        self,
        actor: Actor,
        key: DeploymentId,
        *,
        cancels: bool,
        keep: Keep[tuple[Deployment, int]] | None = None,
    ) -> tuple[Deployment, int] | KeptAnswer:
        """Return the deployment after it and how many of its jobs have not ended."""
        ...

    async def delete(self, actor: Actor, key: DeploymentId, *, cancels: bool) -> tuple[Deployment, int]:
        """As `stop`; raises `Conflict` with code `deployment_active` or `deployment_busy` unless `cancels`."""
        ...


class Environments(Protocol):
    """Environments of the actor's org."""

    async def prepare(self, actor: Actor, key: DeploymentId) -> PreparationView:
        """As often as wanted; raises `Conflict` with code `deployment_stopped`."""
        ...

    async def list_held(self, actor: Actor) -> HeldView: ...

    async def prune(self, actor: Actor) -> HeldView: ...


class Schedules(Protocol):
    """Schedules of the actor's org; the methods that change one raise `Conflict` with code `schedule_ended`."""

    async def list_schedules(
        self, actor: Actor, *, app_name: str | None, after: ScheduleId | None, limit: int
    ) -> Sequence[ScheduleView]:
        """Return up to `limit` that have not ended, by id, with an id above `after`."""
        ...

    async def get(self, actor: Actor, key: ScheduleId) -> ScheduleView: ...

    async def pause(
        self, actor: Actor, key: ScheduleId, keep: Keep[ScheduleView] | None = None
    ) -> ScheduleView | KeptAnswer: ...

    async def resume(
        self, actor: Actor, key: ScheduleId, keep: Keep[ScheduleView] | None = None
    ) -> ScheduleView | KeptAnswer: ...

    async def run_now(self, actor: Actor, key: ScheduleId, keep: Keep[JobId] | None = None) -> JobId | KeptAnswer: ...


class Archives(Protocol):
    """Uploaded app archives."""

    async def has(self, actor: Actor, sha256: str) -> bool: ...

    async def put(self, actor: Actor, sha256: str, chunks: AsyncIterator[bytes]) -> tuple[int, bool]:
        """Return size and whether it is new.

        Raises `Invalid` with code `digest_mismatch`; errors out of `chunks` pass through and leave nothing behind.
        """
        ...

    async def put_parts(
        self, actor: Actor, sha256: str, base: str, parts: Sequence[Part], new: bytes
    ) -> tuple[int, bool]:
        """As `put`; raises `Conflict` with code `archive_missing` when the base is not stored in the actor's org."""
        ...

    async def open_for_link(self, actor: Actor, deployment_key: DeploymentId) -> AsyncIterator[bytes]: ...


class Stats(Protocol):
    """Numbers of the actor's org."""

    async def of_app(
        self, actor: Actor, app_name: str, *, function_name: str | None, since: datetime | None
    ) -> AppStats:
        """The `NotFound` names apps or functions with a similar name."""
        ...


class Watch(Protocol):
    """One reader of one stream; `close` gives its place back."""

    async def next(self, after: int, *, timeout_s: float, kinds: frozenset[str] | None = None) -> Batch | Gap:
        """Return what follows `after`; an empty batch when nothing came within `timeout_s`.

        `kinds` says what the reader wants: only what it wants can be missing.
        """
        ...

    def wake(self) -> None:
        """Let a `next` that waits return now."""
        ...

    def close(self) -> None: ...


class ItemReader(Protocol):
    """An attached reader of a job's items, whose generator waits for it."""

    def advance(self, attempt: int, ordinal: int) -> None:
        """The items of an attempt below `ordinal` were sent."""
        ...

    def close(self) -> None: ...


class Streams(Protocol):
    """Event streams of jobs, apps and deployments."""

    async def watch(self, actor: Actor, stream: StreamRef) -> Watch:
        """Open a watch; raises `TooMany` with code `too_many_watchers` or `too_many_new_watchers`."""
        ...

    async def snapshot(self, actor: Actor, stream: StreamRef) -> Snapshot: ...

    async def next_ordinal(self, actor: Actor, job: JobId, *, upto: int) -> int:
        """Return the ordinal after the greatest among a job's items up to an index; 0 without any."""
        ...

    def attach(self, job: JobId, ordinal: int) -> ItemReader:
        """Attach a reader that has the items below `ordinal` of a job that its org has."""
        ...


class Workers(Protocol):
    """The installation's workers."""

    async def list_workers(self, actor: Actor) -> Sequence[WorkerView]: ...

    async def list_enrolled(self, actor: Actor) -> Sequence[EnrolledView]: ...

    async def set_draining(
        self, actor: Actor, name: str, *, is_draining: bool, keep: Keep[EnrolledView] | None = None
    ) -> EnrolledView | KeptAnswer: ...

    async def remove(self, actor: Actor, name: str) -> EnrolledView:
        """As often as wanted; raises `NotFound` when no such worker has ever joined."""
        ...


class Enrolment(Protocol):
    """How workers on other hosts join."""

    async def make_token(
        self, actor: Actor, *, life_s: int, keep: Keep[JoinToken] | None = None
    ) -> JoinToken | KeptAnswer:
        """Raises `TooMany` with code `too_many_join_tokens`."""
        ...

    def token_of(self, token: JoinTokenId) -> str:
        """Return the secret of a join token, which is kept nowhere."""
        ...

    async def list_tokens(self, actor: Actor) -> Sequence[JoinTokenView]: ...

    async def revoke_token(self, actor: Actor, token: JoinTokenId) -> JoinTokenView:
        """As often as wanted; raises `NotFound`, and `Conflict` with code `join_token_spent`."""
        ...

    async def join(
        self, actor: Actor, *, name: str, credential: str, keep: Keep[Joined] | None = None
    ) -> Joined | KeptAnswer:
        """Enrol a worker.

        Raises `Unauthenticated` with code `join_token_used` or `join_token_expired`, and `Conflict` with code
        `worker_name_taken`, `credential_taken` or `too_many_workers`.
        """
        ...


class Health(Protocol):
    """Readiness."""

    @property
    def role(self) -> str:
        """`dispatcher` or `standby`."""
        ...

    async def checks(self) -> Mapping[str, Check]:
        """Return every readiness check by name; never raises."""
        ...


class Metrics(Protocol):
    """Numbers for Prometheus."""

    def render(self) -> bytes: ...


class Services(Protocol):
    """Everything the runtime and operations faces need."""

    async def authenticate(self, token: str, attempt: str) -> Actor:
        """Return who holds a well-formed token; `attempt` names the attempt of a token of that kind.

        Raises `Unauthenticated` when the token is unknown, expired or revoked.
        """
        ...

    def recognise(self, authorization: bytes) -> Actor | None:
        """Return who holds the token of a header, if that was looked up a moment ago; else `authenticate` is to say.

        Never user code.
        """
        ...

    def over(self, actor: Actor) -> Future[None] | None:
        """Return what is done when the attempt of `actor` is over; None when it is no user code."""
        ...

    @property
    def keys(self) -> Keys: ...
    @property
    def apps(self) -> Apps: ...
    @property
    def deployments(self) -> Deployments: ...
    @property
    def environments(self) -> Environments: ...
    @property
    def schedules(self) -> Schedules: ...
    @property
    def archives(self) -> Archives: ...
    @property
    def values(self) -> LargeValues: ...
    @property
    def jobs(self) -> Jobs: ...
    @property
    def groups(self) -> Groups: ...
    @property
    def stats(self) -> Stats: ...
    @property
    def streams(self) -> Streams: ...
    @property
    def workers(self) -> Workers: ...
    @property
    def enrolment(self) -> Enrolment: ...
    @property
    def health(self) -> Health: ...
    @property
    def metrics(self) -> Metrics: ...
