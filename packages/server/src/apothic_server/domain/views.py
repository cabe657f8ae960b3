"""What services answer to the faces: results as values, with the names a face shows and nothing it must look up."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from apothic.wire.ids import DeploymentId, IncarnationId, JobId, JoinTokenId, KeyId
from apothic.wire.images import HeldImage
from apothic.wire.link import Machine
from apothic.wire.values import RemoteError, Value
from apothic_server.domain.apps import App, Deployment
from apothic_server.domain.group_views import GroupView
from apothic_server.domain.jobs import Job, JobStatus, StoredEvent
from apothic_server.domain.schedules import Tick


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """The caller's key as it may be shown: never more of the token than its prefix and last four characters."""

    org_slug: str
    id: KeyId
    name: str
    prefix: str
    last4: str


@dataclass(frozen=True, slots=True)
class AppView:
    """An app and what its live deployment holds.

    Attributes:
        version: Version of the live deployment; None before the first.
        functions: Names in the live deployment, sorted.
    """

    app: App
    version: int | None
    functions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a job.

    Attributes:
        status: A final one.
        value: The result when succeeded.
        error: What went wrong otherwise; None for `cancelled`.
        attempt: Attempts granted in all.
    """

    job: JobId
    status: JobStatus
    value: Value | None
    error: RemoteError | None
    attempt: int


@dataclass(frozen=True, slots=True)
class Submitted:
    """A call on its way.

    Attributes:
        accepted: Done when the job is durable; raises `Unavailable` when it could not be stored, `KeyTaken` when
            another process made a job with the same idempotency key.
        outcome: Done when the end is durable. Owned by the service: readers never cancel it.
        is_replay: An earlier request with the same idempotency key made the job.
        leave: To be called when nobody waits through this request any more; calling it twice is fine.
    """

    job: JobId
    accepted: Future[None]
    outcome: Future[Outcome]
    is_replay: bool = False
    leave: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as it is now, with the names of its app and function.

    Attributes:
        waiting_reason: Why a waiting job does not run yet; None when it does not wait or nothing is in its way.
        tick: What of a schedule made it; None when somebody called.
    """

    job: Job
    app_name: str
    function_name: str
    waiting_reason: str | None
    is_generator: bool
    tick: Tick | None = None


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One stored line of a job's output; `stream` is `stdout`, `stderr` or `system`."""

    index: int
    at: datetime
    stream: str
    line: str


@dataclass(frozen=True, slots=True)
class LogPage:
    """Lines in the order of their index.

    Attributes:
        last_index: Where to read on: the greatest index looked at, or the given `after` when there was none.
        is_final: The job ended and no line follows.
    """

    lines: tuple[LogEntry, ...]
    last_index: int
    is_final: bool


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One start of a worker; `status` is `live`, `impaired`, `silent` or `ended`, `runners` counts its live runners."""

    id: IncarnationId
    name: str
    status: str
    connected_at: datetime
    machine: Machine
    runners: int
    is_enrolled: bool = False


@dataclass(frozen=True, slots=True)
class EnvironmentView:
    """How far what some functions need is.

    Attributes:
        environment: What is installed; None when nothing is.
        status: `waiting`, `building`, `ready` or `failed`.
        worker: Name of the worker that has it, builds it, or could not; None while it waits.
        reason: Why it waits.
        error: Why it failed.
    """

    environment: str | None
    functions: tuple[str, ...]
    status: str
    worker: str | None
    reason: str | None
    error: RemoteError | None


@dataclass(frozen=True, slots=True)
class PreparationView:
    """How far the environments of a deployment are."""

    deployment: DeploymentId
    environments: tuple[EnvironmentView, ...]

    @property
    def status(self) -> str:
        """`failed` when one failed, else `building`, else `waiting`, and `ready` when all are."""
        found = {one.status for one in self.environments}
        return next((status for status in ("failed", "building", "waiting") if status in found), "ready")


@dataclass(frozen=True, slots=True)
class HeldOn:
    """An environment on a worker, by the worker's name; `is_needed` says whether a live deployment needs it."""

    worker: str
    held: HeldImage
    is_needed: bool


@dataclass(frozen=True, slots=True)
class HeldView:
    """Environments on workers.

    Attributes:
        unanswered: Names of workers that are linked and did not answer in time.
        is_known: False from a process that does not dispatch: no worker is linked to it.
    """

    items: tuple[HeldOn, ...]
    unanswered: tuple[str, ...]
    freed_bytes: int
    is_known: bool


@dataclass(frozen=True, slots=True)
class EnrolledView:
    """A worker on another host, over all its starts.

    Attributes:
        status: `live`, `impaired`, `draining`, `offline` or `removed`.
        start: Its newest start that has not ended.
        jobs: Jobs that it executes; None when only another process knows.
    """

    name: str
    status: str
    is_draining: bool
    joined_at: datetime
    start: IncarnationId | None
    jobs: int | None


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A join token without its secret, which is derived."""

    id: JoinTokenId
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class JoinTokenView:
    """What a join token is known by; one that was revoked has expired."""

    id: JoinTokenId
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Joined:
    """A worker that has joined."""

    name: str
    joined_at: datetime


@dataclass(frozen=True, slots=True)
class Check:
    """Answer of one readiness check; `detail` is a short sentence for people and holds no address or secret."""

    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Streamed:
    """One event of a stream as watchers get it; shared by all of them.

    Attributes:
        value: The result, for `job.result`.
    """

    index: int
    kind: str
    data: dict[str, Any]
    value: Value | None = None

    @property
    def last_index(self) -> int:
        return self.index


@dataclass(frozen=True, slots=True)
class ItemRun:
    """Neighbouring `job.stream_item` events of one attempt, packed as they are kept.

    Attributes:
        index: Of the first item.
        ordinal: Of the first item.
        count: Items in `data`, at least 1.
        data: Packed as `apothic.wire.items` says.
    """

    index: int
    attempt: int
    ordinal: int
    count: int
    encoding: str
    python: str | None
    data: bytes

    kind: ClassVar[str] = "job.stream_item"

    @property
    def last_index(self) -> int:
        return self.index + self.count - 1


@dataclass(frozen=True, slots=True)
class Batch:
    """What a reader gets next.

    Attributes:
        events: In order, without a gap after the index that was asked for.
        last_index: The greatest index looked at.
        is_final: `last_index` is the end of the stream.
        is_whole: Nothing between the index that was asked for and `last_index` has been rotated away.
        has_more: More follows `last_index` already.
    """

    events: tuple[Streamed | ItemRun, ...]
    last_index: int
    is_final: bool
    is_whole: bool = True
    has_more: bool = False


@dataclass(frozen=True, slots=True)
class Gap:
    """The index that was asked for is gone or not there yet (G5.5)."""

    requested: int
    oldest: int
    latest: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a stream tells of, as of `index`: the next event is that index + 1 (G5.3).

    Attributes:
        value: The result of a job that succeeded.
    """

    view: JobView | GroupView | AppView | Deployment
    value: Value | None
    index: int
    is_final: bool


def log_page(found: list[StoredEvent], newest: tuple[int, JobStatus], *, after: int, is_whole: bool) -> LogPage:
    """Return the page of log lines that `found` are, after which a job was at `newest`: its last index and status."""
    lines = tuple(LogEntry(event.index, event.at, event.data["stream"], event.data["line"]) for event in found)
    last_read = lines[-1].index if lines else after
    index, status = newest
    return LogPage(lines, max(last_read, index) if is_whole else last_read, is_whole and status.is_final)
