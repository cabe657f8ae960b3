"""Builds the store records of each move: status, fields and events together, in one place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol

from apothic.wire.ids import JobId
from apothic.wire.limits import ERROR_CAUSES_MAX
from apothic.wire.link import LogLine
from apothic.wire.runner import error_to_json
from apothic.wire.values import RemoteError
from apothic_server.domain.idempotency import Keep, KeyRow, RequestKey
from apothic_server.domain.jobs import (
    JOB,
    Job,
    JobChange,
    JobEvent,
    JobFields,
    JobStatus,
    NewItems,
    NewJob,
    StreamEvent,
)
from apothic_server.services.dispatch.live import LiveJob

NO_FIELDS = JobFields()
STREAMS = frozenset({"stdout", "stderr", "system"})
AT_MS_MAX = 253_402_300_799_000
"""Last millisecond of the year 9999; a worker's clock may be anything."""


class Records(Protocol):
    """The batching writer, as the dispatcher uses it."""

    def append(self, record: NewJob | JobChange | NewItems) -> asyncio.Future[bool]: ...

    def append_told(
        self,
        record: NewJob | JobChange | NewItems,
        on_answer: Callable[[bool | Exception], None],
        *,
        within_s: float = 0.0,
    ) -> None: ...

    def append_quietly(
        self,
        record: NewJob | JobChange | NewItems,
        on_settled: Callable[[bool], None] | None = None,
        *,
        patience_s: float = 0.0,
    ) -> None: ...


def storable(error: RemoteError, depth: int = ERROR_CAUSES_MAX) -> RemoteError:
    """Return the error without the one character that the store cannot hold, and without causes deeper than `depth`."""
    return RemoteError(
        type=_clean(error.type),
        message=_clean(error.message),
        traceback=_clean(error.traceback),
        code=_clean(error.code),
        causes=tuple(storable(cause, depth - 1) for cause in error.causes[:ERROR_CAUSES_MAX]) if depth else (),
    )


def _clean(text: str) -> str:
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def storable_line(line: LogLine) -> LogLine:
    """Return the line without that character, of a stream that exists."""
    return replace(line, text=_clean(line.text), stream=line.stream if line.stream in STREAMS else "system")


def new_job(
    job: LiveJob,
    now: datetime,
    key: RequestKey | None = None,
    retry_of: JobId | None = None,
    term: int | None = None,
) -> NewJob:
    """J1; with `term` it needs the dispatcher's term."""
    function = job.function
    events = () if job.is_chunk else (StreamEvent("job.queued", now, {"status": "queued"}),)
    return NewJob(
        id=job.id,
        org=job.org,
        app=function.app,
        deployment=function.deployment,
        function=function.id,
        arguments=job.arguments,
        created_by=job.created_by,
        created_at=now,
        events=events,
        key=key,
        retry_of=retry_of,
        parent=job.parent,
        depth=job.depth,
        waited_fence=job.waited_fence,
        covers=job.covers,
        term=term,
    )


def move(
    job: LiveJob,
    event: JobEvent,
    now: datetime,
    *,
    fields: JobFields = NO_FIELDS,
    error: RemoteError | None = None,
    term: int | None = None,
    fence: int | None = None,
    key: KeyRow | None = None,
) -> JobChange:
    """Fire `event` on `job` in memory and return the record that does the same in the store.

    Args:
        fields: Columns beside the status; `finished_at` is added for final moves.
        error: Told by a `job.error` event before the status event.
        term: Dispatcher's term that the grant needs.
        fence: New fence of a grant; the job's stays when None.
        key: Kept in the same commit.
    """
    before, expect_fence = job.status, job.fence
    after = job.status = JOB.fire(before, event)
    if fence is not None:
        job.fence = fence
    is_chunk = job.is_chunk
    events = () if is_chunk else _events(job.attempt, before, after, error, now)
    path = before.letter + after.letter
    return JobChange(job.org, job.id, before, expect_fence, path, fields, events, term, key, is_chunk)


def ask_to_cancel(row: Job, now: datetime, keep: Keep[JobStatus] | None = None) -> tuple[JobChange, JobStatus]:
    """Return J7 or J8 for a row as it was read, and the status after it: for processes that hold no memory of it."""
    after = JOB.fire(row.status, JobEvent.CANCEL_ASKED)
    change = JobChange(
        org=row.org,
        job=row.id,
        expect_status=row.status,
        expect_fence=row.fence,
        path=row.status.letter + after.letter,
        fields=JobFields(finished_at=now) if after.is_final else NO_FIELDS,
        events=(_status_event(row.attempt, row.status, after, now),),
        key=keep.row(after) if keep is not None else None,
    )
    return change, after


def log_lines(job: LiveJob, lines: list[LogLine], first_number: int, now: datetime) -> JobChange:
    """Append output; the job's status and fence must still be those in memory."""
    numbered = enumerate(lines, first_number)
    events = tuple(StreamEvent("job.log", now, {**_line(line), "number": number}) for number, line in numbered)
    return JobChange(
        org=job.org,
        job=job.id,
        expect_status=job.status,
        expect_fence=job.fence,
        path="",
        fields=NO_FIELDS,
        events=events,
    )


def _line(line: LogLine) -> dict[str, Any]:
    data: dict[str, Any] = {"stream": line.stream, "line": line.text, "time": min(max(line.at_ms, 0), AT_MS_MAX) / 1000}
    return {**data, "partial": True} if line.is_partial else data


def _events(
    attempt: int, before: JobStatus, after: JobStatus, error: RemoteError | None, now: datetime
) -> tuple[StreamEvent, ...]:
    told = _status_event(attempt, before, after, now)
    if error is not None:
        return StreamEvent("job.error", now, {**error_to_json(error), "attempt": attempt}), told
    if after is JobStatus.SUCCEEDED:
        return StreamEvent("job.result", now, {"attempt": attempt}), told
    return (told,)


def _status_event(attempt: int, before: JobStatus, after: JobStatus, now: datetime) -> StreamEvent:
    if after is JobStatus.RUNNING:
        return StreamEvent("job.running", now, {"status": "running", "attempt": attempt})
    if after.is_final:
        return StreamEvent("job.end", now, {"status": after.word})
    return StreamEvent("job.status", now, {"status": after.word, "previous": before.word, "attempt": attempt})
