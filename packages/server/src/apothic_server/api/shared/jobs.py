"""What the faces ask of jobs, as `api.shared.services` says of all of them."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Sequence
from typing import Protocol

from apothic.wire.ids import FunctionId, JobId
from apothic.wire.values import Value
from apothic_server.domain.access import Actor
from apothic_server.domain.idempotency import Keep, KeptAnswer, RequestKey
from apothic_server.domain.jobs import JobEntry, JobFilter, JobStatus
from apothic_server.domain.views import JobView, LogPage, Outcome, Submitted


class Jobs(Protocol):
    """Calls and their jobs."""

    async def submit(
        self,
        actor: Actor,
        function: FunctionId | tuple[str, str],
        value: Value,
        *,
        blocking: bool,
        key: RequestKey | None = None,
    ) -> Submitted:
        """Start a call of a function given by id or by (app name, function name).

        Args:
            blocking: The caller waits for the outcome, so its records may share one commit (D9).
            key: A repeat of it answers the same job; `accepted` raises `KeyTaken` when `repeated` must be asked.
        """
        ...

    def submit_now(
        self, actor: Actor, function: FunctionId, value: Value, *, key: RequestKey | None = None
    ) -> Submitted | None:
        """As `submit` of a blocking call, if memory is all that it takes; else None, and nothing was done."""
        ...

    async def retry(self, actor: Actor, job: JobId, *, key: RequestKey | None = None) -> Submitted:
        """Raises `Conflict` with code `job_not_ended` unless the job has ended; `key` as for `submit`."""
        ...

    async def repeated(self, actor: Actor, key: RequestKey) -> Submitted: ...

    async def get(self, actor: Actor, key: JobId) -> JobView: ...

    def attend(self, actor: Actor, key: JobId) -> Callable[[], None]:
        """Note that the caller waits for a job until the returned function is called.

        Raises `Conflict` with code `call_cycle_deadlock` when user code would wait for ever.
        """
        ...

    def follow(self, actor: Actor, key: JobId) -> Callable[[], None]:
        """Note that the caller reads the events of a job until the returned function is called."""
        ...

    async def list_jobs(
        self, actor: Actor, wanted: JobFilter, *, limit: int
    ) -> tuple[Sequence[JobEntry], JobId | None]:
        """Return a page, newest first, and the job after which the next one begins."""
        ...

    def obstacle(self, actor: Actor, key: JobId) -> str | None:
        """Return why no connected machine could ever run a job that waits; None when one could."""
        ...

    async def outcome(self, actor: Actor, key: JobId) -> Outcome | Future[Outcome]:
        """Return the outcome of a job that ended, else the future of it; readers never cancel the future."""
        ...

    async def logs(self, actor: Actor, key: JobId, after: int, limit: int) -> LogPage: ...

    async def cancel(self, actor: Actor, key: JobId, keep: Keep[JobStatus] | None = None) -> JobStatus | KeptAnswer: ...
