"""What the server answers, as values. Times are UTC text with milliseconds; record ids are opaque text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from apothic.wire.functions import FunctionSpec
from apothic.wire.records import record
from apothic.wire.values import RemoteError, Value

if TYPE_CHECKING:
    from apothic._workers import WorkerInfo as WorkerInfo

FINAL = frozenset({"succeeded", "failed", "cancelled", "timed_out"})
"""Statuses after which a job never changes."""


@dataclass(frozen=True)
class KeyInfo:
    """The key in use, without its secret."""

    id: str
    name: str
    prefix: str
    last4: str


@dataclass(frozen=True)
class Identity:
    """Whom the server takes the caller for; `org` is the org's slug."""

    org: str
    key: KeyInfo
    role: str
    scopes: tuple[str, ...]
    server_version: str


@dataclass(frozen=True)
class Check:
    """One part of the server that must work."""

    ok: bool
    detail: str


@dataclass(frozen=True)
class Readiness:
    """Whether the server can do its work, and which part cannot; `role` is `dispatcher` or `standby`."""

    ready: bool
    role: str
    checks: dict[str, Check]


@dataclass(frozen=True)
class AppInfo:
    """One app; `deployment_id` and `version` name the live deployment, `functions` are its sorted names.

    While the app is stopped, both are None and it has no functions.
    """

    app_id: str
    name: str
    deployment_id: str | None
    version: int | None
    functions: tuple[str, ...]
    created_at: str


@dataclass(frozen=True, kw_only=True)
class FunctionInfo(FunctionSpec):
    """One function of a deployment with everything it was deployed with; `app` is the app's name."""

    function_id: str
    app: str
    deployment_id: str


@dataclass(frozen=True)
class DeploymentInfo:
    """One immutable version of an app; `status` is `active`, `superseded`, `stopped` or `deleted`.

    Attributes:
        created_by: A key's id.
        restored_from: Version whose content a rollback brought back; None when it was uploaded for this version.
        manifest: What was deployed besides the files, as JSON; empty when the server does not tell.
    """

    deployment_id: str
    app: str
    version: int
    status: str
    archive_sha256: str
    python: str
    client_version: str
    functions: tuple[FunctionInfo, ...]
    created_by: str | None
    created_at: str
    stopped_at: str | None = None
    deleted_at: str | None = None
    restored_from: int | None = None
    manifest: dict[str, Any] = field(default_factory=dict)  # pyright: ignore[reportUnknownVariableType]


@dataclass(frozen=True)
class DeploymentEntry:
    """A deployment as a list shows it; `status` is `active`, `superseded` or `stopped`."""

    deployment_id: str
    app: str
    version: int
    status: str
    created_at: str
    stopped_at: str | None
    restored_from: int | None = None


@dataclass(frozen=True)
class DeploymentEnd:
    """A deployment after it was stopped or deleted, and how many of its jobs have not ended yet."""

    deployment: DeploymentInfo
    unfinished_jobs: int


@dataclass(frozen=True)
class JobInfo:
    """One job; `waiting_reason` says why it waits, `error` (JSON) why it failed, `retry_of` which job it retries.

    `parent_job_id` is the job whose function called it, and `depth` counts the jobs above it. `schedule_id` is the
    schedule that made it, and `due_at` the due time; None when somebody had the schedule run at once.
    """

    job_id: str
    app: str
    function: str
    function_id: str
    deployment_id: str
    status: str
    attempt: int
    waiting_reason: str | None
    error: dict[str, Any] | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    retry_of: str | None = None
    parent_job_id: str | None = None
    depth: int = 0
    schedule_id: str | None = None
    due_at: str | None = None


@dataclass(frozen=True)
class LogLine:
    """One line of a job's output; `stream` is `stdout`, `stderr` or `system`, `line` has no line end."""

    index: int
    time: str
    stream: str
    line: str


@dataclass(frozen=True)
class LogPage:
    """Lines in order; pass `last_index` as `after` to read on. `is_final`: no line will ever follow."""

    lines: tuple[LogLine, ...]
    last_index: int
    is_final: bool


@dataclass(frozen=True)
class EventRecord:
    """One event of a job's stream."""

    index: int
    event: str
    data: Any


@dataclass(frozen=True)
class EventPage:
    """Events in order; pass `last_index` as `after` to read on. `is_final`: no event will ever follow.

    Attributes:
        next_ordinal: The ordinal after the greatest among items before the page; None when items were not asked for, or
            the job's function yields none.
    """

    events: tuple[EventRecord, ...]
    last_index: int
    is_final: bool
    next_ordinal: int | None = None


@record
class Outcome:
    """How a job ended.

    Attributes:
        status: `succeeded`, `failed`, `cancelled` or `timed_out`.
        value: The encoded result when it succeeded.
        error: What went wrong when it failed or timed out.
        attempt: Attempts granted.
    """

    job_id: str
    status: str
    value: Value | None
    error: RemoteError | None
    attempt: int


@dataclass(frozen=True)
class JobStatus:
    """The short answer about a job."""

    job_id: str
    status: str
