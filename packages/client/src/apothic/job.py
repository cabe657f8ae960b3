"""One call of a function, running in the background."""

from __future__ import annotations

import functools
from typing import Any, Generic, TypeVar

from apothic import _calls, _operations
from apothic._core import Core
from apothic._ranges import number, seconds, wrong
from apothic._results import result_of
from apothic._steps import Steps
from apothic.client import ControlPlaneClient

R = TypeVar("R")


class Job(Generic[R]):
    """A handle to one job; may be built from a bare id in any process.

    Args:
        job_id: Id as given by `spawn` or a command, for example `jobs:01jc…`.
        client: The connection to use.
    """

    def __init__(self: Job[Any], job_id: str, client: ControlPlaneClient) -> None:
        if not isinstance(job_id, str) or not job_id:  # pyright: ignore[reportUnnecessaryIsInstance] - users may err
            raise wrong("job_id", job_id, "a job's id such as jobs:01jc…")
        self._job_id = job_id
        self._client = client

    def __repr__(self) -> str:
        return f"<Job {self._job_id}>"

    @property
    def job_id(self) -> str:
        """Id of the job."""
        return self._job_id

    @functools.cached_property
    def aio(self) -> AsyncJob[R]:
        """The same job for asyncio."""
        return AsyncJob(self._job_id, self._client)

    def status(self) -> str:
        """Return the status now: `queued`, `starting`, `running`, `retrying`, `cancelling` or a final one.

        Final are `succeeded`, `failed`, `cancelled` and `timed_out`.
        """
        return self._client.get_job(self._job_id).status

    def logs(self) -> list[str]:
        """Return the lines that the job has written so far, oldest first, without line ends."""
        return self._client.run(_operations.all_lines(self._client.core, self._job_id))

    def cancel(self) -> str:
        """Ask for the end of the job and return its status after that. Asking twice, or after the end, is fine."""
        return self._client.cancel_job(self._job_id)

    def wait(self, *, poll_interval_s: float = 1.0, timeout_s: float = 600.0) -> R:
        """Wait for the job and return its result; resumes after lost connections. Ctrl-C ends the waiting only.

        Args:
            poll_interval_s: Longest pause before a broken wait is resumed, more than 0.
            timeout_s: Bound of the waiting; the job goes on afterwards. 0 looks once.

        Raises:
            JobTimeoutError: The job did not end in time, or exceeded its own limit (`is_final`).
            RemoteExecutionError: User code failed.
            JobCancelledError: The job was cancelled.
            SerializationError: The result cannot be read here.
        """
        return self._client.run(_wait(self._client.core, self._job_id, poll_interval_s, timeout_s))


class AsyncJob(Generic[R]):
    """`Job` for asyncio: the same methods, awaited."""

    def __init__(self, job_id: str, client: ControlPlaneClient) -> None:
        self._job_id = job_id
        self._client = client.aio

    async def status(self) -> str:
        """Return the status now."""
        return (await self._client.get_job(self._job_id)).status

    async def logs(self) -> list[str]:
        """Return the lines that the job has written so far, oldest first, without line ends."""
        return await self._client.run(_operations.all_lines(self._client.core, self._job_id))

    async def cancel(self) -> str:
        """Ask for the end of the job and return its status after that."""
        return await self._client.cancel_job(self._job_id)

    async def wait(self, *, poll_interval_s: float = 1.0, timeout_s: float = 600.0) -> R:
        """Wait for the job and return its result; cancelling the task ends the waiting only."""
        return await self._client.run(_wait(self._client.core, self._job_id, poll_interval_s, timeout_s))


def _wait(core: Core, job_id: str, poll_interval_s: Any, timeout_s: Any) -> Steps[Any]:
    poll = number("poll_interval_s", poll_interval_s, 0.001, 86_400)
    limit = seconds("timeout_s", timeout_s)
    outcome = yield from _calls.outcome(core, job_id, timeout_s=limit, poll_interval_s=poll)
    return result_of(outcome, allow_pickle=core.allow_pickle)
