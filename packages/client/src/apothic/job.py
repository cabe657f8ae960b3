"""One call of a function, running in the background."""

from __future__ import annotations

import functools
from typing import Any, Generic, TypeVar

from apothic import _calls, _operations
from apothic._core import Core
from apothic._events import AsyncEvents, EventReader, Events, follow, follow_async
from apothic._items import AsyncJobItems, ItemEvents, ItemSource, JobItems, checked_on_reset, iterate, iterate_async
from apothic._position import position
from apothic._ranges import number, seconds, wrong
from apothic._results import received
from apothic._steps import Steps
from apothic.client import ControlPlaneClient
from apothic.streams import JobStreamCheckpoint, JobStreamCursor

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

    def retry(self) -> Job[R]:
        """Make a new job with the same function and arguments, in the app's live version; this one stays as it ended.

        Raises:
            ConflictError: This job has not ended (`job_not_ended`), or its app was stopped.
            NotFoundError: There is no such job, or its app has the function no longer.
        """
        return Job(self._client.retry_job(self._job_id), self._client)

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

    def wait_gen(
        self,
        *,
        poll_interval_s: float = 1.0,
        timeout_s: float = 600.0,
        checkpoint: JobStreamCheckpoint | None = None,
        cursor: JobStreamCursor | None = None,
        last_index: int | None = None,
        on_reset: str = "raise",
    ) -> JobItems:
        """Yield the items of a generator's job in order, from the first on or after a place, until it ends.

        Leaving the loop ends the reading only. While the loop runs, the generator waits when more than about 4 MiB of
        its items are unread. A later attempt's items are passed over up to where an earlier one had come. Give at most
        one of `checkpoint`, `cursor` and `last_index`; `last_index` of what this returns is where the reading is.

        Args:
            poll_interval_s: Pause between two looks where no stream of events gets through, more than 0.
            timeout_s: Bound of the whole iteration; the job goes on afterwards.
            checkpoint: Go on where another reader of this job was; its filter does not matter.
            cursor: Go on at this place.
            last_index: The last index already seen; -1 for none.
            on_reset: What to do when items are gone, or the place does not exist: `raise` an error, go on behind a
                `snapshot` of now, or `continue` with the oldest item kept.

        Raises:
            InvalidRequestError: An argument is malformed, or of another job; raised at once. Or the job's function
                yields no items (`not_a_generator`).
            JobStreamResetError: Items are gone; `event` is the `JobResetEvent`.
            JobTimeoutError: Not all items came in time, or the job exceeded its own limit (`is_final`).
            RemoteExecutionError: The function failed; raised after its last item.
            JobCancelledError: The job was cancelled; raised after its last item.
            SerializationError: An item cannot be read here.
        """
        source = _items(
            self._client.core, self._job_id, poll_interval_s, timeout_s, on_reset, (checkpoint, cursor, last_index)
        )
        return iterate(self._client.run, source, cancels=False)

    def stream_events(
        self,
        *,
        checkpoint: JobStreamCheckpoint | None = None,
        cursor: JobStreamCursor | None = None,
        last_index: int | None = None,
        event_types: list[str] | tuple[str, ...] | None = None,
    ) -> Events:
        """Yield the job's events until its end; as `watch` without a snapshot."""
        return self.watch(checkpoint=checkpoint, cursor=cursor, last_index=last_index, event_types=event_types)

    def watch(
        self,
        *,
        snapshot: bool = False,
        checkpoint: JobStreamCheckpoint | None = None,
        cursor: JobStreamCursor | None = None,
        last_index: int | None = None,
        event_types: list[str] | tuple[str, ...] | None = None,
    ) -> Events:
        """Yield the job's events in order until `job.end`: each once, none left out, also after lost connections.

        Events that are gone, or that do not exist, come as one `JobResetEvent` instead. Leaving the loop closes the
        connection; the job goes on. Give at most one of `checkpoint`, `cursor` and `last_index`; without one, events
        come from the first on.

        Args:
            snapshot: Begin with `job.snapshot`, the job as it is now, and go on behind it wherever else it would begin.
            checkpoint: Go on where another reader of this job was, with its filter.
            cursor: Go on at this place.
            last_index: The last index already seen; -1 for none.
            event_types: Names of the events to yield; None or empty for all. `job.status` stands for `job.queued` and
                `job.running` too. A reset always comes.

        Raises:
            InvalidRequestError: An argument is malformed, or of another job; raised at once.
            UnavailableError: The stream could not be resumed; the message says after which index to go on.
            NotFoundError: There is no such job.
        """
        begin = position(
            self._job_id,
            snapshot=snapshot,
            checkpoint=checkpoint,
            cursor=cursor,
            last_index=last_index,
            event_types=event_types,
        )
        return follow(self._client.run, EventReader(self._client.core, self._job_id, begin))

    def checkpoint(
        self,
        *,
        cursor: JobStreamCursor | None = None,
        last_index: int | None = None,
        event_types: list[str] | tuple[str, ...] | None = None,
    ) -> JobStreamCheckpoint:
        """Return what another process needs to read on from a place; asks nobody.

        Args:
            cursor: The place; not together with `last_index`.
            last_index: The index of the last event that was dealt with; without a place, the beginning.
            event_types: The filter to read on with; None or empty for all events.

        Raises:
            InvalidRequestError: An argument is malformed.
        """
        return _checkpoint(self._job_id, cursor, last_index, event_types)


class AsyncJob(Generic[R]):
    """`Job` for asyncio: the same methods, awaited."""

    def __init__(self, job_id: str, client: ControlPlaneClient) -> None:
        self._job_id = job_id
        self._owner = client
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

    async def retry(self) -> Job[R]:
        """Make a new job with the same function and arguments; this one stays as it ended."""
        return Job(await self._client.retry_job(self._job_id), self._owner)

    async def wait(self, *, poll_interval_s: float = 1.0, timeout_s: float = 600.0) -> R:
        """Wait for the job and return its result; cancelling the task ends the waiting only."""
        return await self._client.run(_wait(self._client.core, self._job_id, poll_interval_s, timeout_s))

    def wait_gen(
        self,
        *,
        poll_interval_s: float = 1.0,
        timeout_s: float = 600.0,
        checkpoint: JobStreamCheckpoint | None = None,
        cursor: JobStreamCursor | None = None,
        last_index: int | None = None,
        on_reset: str = "raise",
    ) -> AsyncJobItems:
        """Yield the items of a generator's job, as `Job.wait_gen` does; ending the reading never stops the job."""
        source = _items(
            self._client.core, self._job_id, poll_interval_s, timeout_s, on_reset, (checkpoint, cursor, last_index)
        )
        return iterate_async(self._client.run, source, cancels=False)

    def stream_events(
        self,
        *,
        checkpoint: JobStreamCheckpoint | None = None,
        cursor: JobStreamCursor | None = None,
        last_index: int | None = None,
        event_types: list[str] | tuple[str, ...] | None = None,
    ) -> AsyncEvents:
        """Yield the job's events until its end; as `watch` without a snapshot."""
        return self.watch(checkpoint=checkpoint, cursor=cursor, last_index=last_index, event_types=event_types)

    def watch(
        self,
        *,
        snapshot: bool = False,
        checkpoint: JobStreamCheckpoint | None = None,
        cursor: JobStreamCursor | None = None,
        last_index: int | None = None,
        event_types: list[str] | tuple[str, ...] | None = None,
    ) -> AsyncEvents:
        """Yield the job's events in order until `job.end`, as `Job.watch` does.

        `aclose()`, for example by `contextlib.aclosing`, closes the connection at once; a loop that is left without it
        closes it when the event loop runs next.
        """
        begin = position(
            self._job_id,
            snapshot=snapshot,
            checkpoint=checkpoint,
            cursor=cursor,
            last_index=last_index,
            event_types=event_types,
        )
        return follow_async(self._client.run, EventReader(self._client.core, self._job_id, begin))

    def checkpoint(
        self,
        *,
        cursor: JobStreamCursor | None = None,
        last_index: int | None = None,
        event_types: list[str] | tuple[str, ...] | None = None,
    ) -> JobStreamCheckpoint:
        """Return what another process needs to read on from a place; asks nobody and is not awaited."""
        return _checkpoint(self._job_id, cursor, last_index, event_types)


def _checkpoint(job_id: str, cursor: Any, last_index: Any, event_types: Any) -> JobStreamCheckpoint:
    begin = position(job_id, cursor=cursor, last_index=last_index, event_types=event_types)
    return JobStreamCheckpoint(job_id, begin.last_index, begin.event_types)


def _wait(core: Core, job_id: str, poll_interval_s: Any, timeout_s: Any) -> Steps[Any]:
    poll = number("poll_interval_s", poll_interval_s, 0.001, 86_400)
    limit = seconds("timeout_s", timeout_s)
    outcome = yield from _calls.outcome(core, job_id, timeout_s=limit, poll_interval_s=poll)
    return (yield from received(core, outcome))


def _items(
    core: Core, job_id: str, poll_interval_s: Any, timeout_s: Any, on_reset: Any, place: tuple[Any, Any, Any]
) -> ItemSource:
    poll = number("poll_interval_s", poll_interval_s, 0.001, 86_400)
    limit = seconds("timeout_s", timeout_s)
    checkpoint, cursor, last_index = place
    begin = position(job_id, checkpoint=checkpoint, cursor=cursor, last_index=last_index)
    events = ItemEvents(core, job_id, begin.last_index, timeout_s=limit, poll_interval_s=poll)
    return ItemSource(core, events, checked_on_reset(on_reset))
