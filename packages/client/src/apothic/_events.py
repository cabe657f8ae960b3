"""Reading the events of a stream, without I/O: one streamed answer, resumed after the last index when it breaks.

The server ends a stream after `job.end` or `deployment.end`. A reader therefore always asks for the end, shows it only
when it passes the filter, and takes every other end for a loss: a proxy or a stopping server may end an answer as
cleanly. Then one page says whether anything can follow, because a reader that begins behind the end gets an answer
without events.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Mapping
from typing import Any, NamedTuple, cast

from apothic._answers import EventPage
from apothic._calls import SILENCE_S_MAX, Waiting, finish, parsed
from apothic._connection import Answer
from apothic._core import Core, Lost
from apothic._exchange import RESUMES_MAX, open_stream
from apothic._http import Request
from apothic._operations import event_page, part, target
from apothic._position import Position
from apothic._sse import SSE_TYPE, EventParser, Received
from apothic._steps import Pause, Say, Steps
from apothic.errors import ApothicError, CloudNotRunning, ConnectionLostError, UnavailableError
from apothic.streams import JobStreamEvent, event_of, other_event_of

OPEN_S_MAX = 120.0
"""Longest time to open or resume a stream, longer than a server takes to restart."""

_STATUS_KINDS = frozenset({"job.queued", "job.running"})
"""What the filter `job.status` stands for beside itself."""


class Subject(NamedTuple):
    """What has a stream that is not a job's.

    Attributes:
        kind: `app` or `deployment`; names of its events begin with it.
        name: How messages call it.
        path: Where its events are.
    """

    kind: str
    name: str
    path: str


class EventReader:
    """Reads the events of one stream in order, each once.

    Args:
        job: Id of the job, or the operation that creates it and returns its id; or what else has a stream, whose events
            then come as `other_event_of` makes them.
        timeout_s: Bound of all the reading.

    Attributes:
        last_index: The last index seen, also of hidden events.
    """

    _query: Mapping[str, str] = {}
    _places: tuple[str, ...] = ()

    def __init__(
        self,
        core: Core,
        job: str | Callable[[], Steps[str]] | Subject,
        position: Position,
        *,
        timeout_s: float = math.inf,
    ) -> None:
        self.last_index = position.last_index
        self._core = core
        self._subject = job if isinstance(job, Subject) else None
        self._kind = "job" if self._subject is None else self._subject.kind
        self._create = None if isinstance(job, (str, Subject)) else job
        known = job if isinstance(job, str) else self._subject.name if self._subject is not None else None
        self._waiting = Waiting(core, known, timeout_s)
        self._filter = position.event_types
        self._needs_snapshot = position.snapshot
        self._has_snapshot = position.snapshot
        self._answer: Answer | None = None
        self._parser = EventParser()
        self._heard_at = 0.0
        self._losses = 0
        self._has_ended = False

    def more(self) -> Steps[list[JobStreamEvent]]:
        """Return the next events, at least one; an empty list after the end.

        Raises:
            JobTimeoutError: `timeout_s` passed; the job goes on.
            UnavailableError: The stream could not be resumed; the message says after which index to go on.
            ProtocolError: What came are no events.
        """
        try:
            return (yield from self._more())
        except KeyboardInterrupt:
            if self._create is not None and self._waiting.job_id is not None:
                yield Say(f"apothic: left {self._place()}; it goes on")
            raise

    def close(self) -> None:
        """Close the connection, so that the server sees that nobody reads any more; twice is fine."""
        if self._answer is not None:
            self._answer.close_unless_finished()
            self._answer = None

    def _more(self) -> Steps[list[JobStreamEvent]]:
        if self._create is not None and self._waiting.job_id is None:
            self._waiting.job_id = yield from self._create()
        while not self._has_ended:
            try:
                found = yield from self._next()
            except Lost as lost:
                self.close()
                yield from self._pause(lost)
                continue
            except (CloudNotRunning, ConnectionLostError, UnavailableError) as error:
                raise self._given_up(error) from error
            if found:
                return found
        if self._answer is not None:
            yield from finish(self._answer)
            self.close()
        return []

    def _next(self) -> Steps[list[JobStreamEvent]]:
        """Return what the next bytes complete.

        Raises:
            Lost: The stream broke.
        """
        answer = self._answer
        if answer is None:
            answer = self._answer = yield from self._open()
            self._parser, self._heard_at = EventParser(), self._core.clock()
        data = yield from self._receive(answer)
        if not data:
            return (yield from self._ask_for_end(answer))
        self._heard_at, self._losses = self._core.clock(), 0
        return self._taken(parsed(_decoded, parsed(self._parser.feed, data)))

    def _open(self) -> Steps[Answer]:
        types = self._types()
        query = {"snapshot": "true"} if self._needs_snapshot else {"after": str(self.last_index)}
        query |= self._query
        path = target(self._core, self._path, query | ({"types": types} if types else {}))
        request = Request("GET", path, (("Accept", SSE_TYPE),), is_repeatable=True)
        deadline = min(self._waiting.deadline, self._core.clock() + OPEN_S_MAX)
        return open_stream(self._core, request, deadline, tries_max=RESUMES_MAX, content_type=SSE_TYPE)

    def _receive(self, answer: Answer) -> Steps[bytes]:
        now = self._core.clock()
        until = min(self._waiting.deadline, self._heard_at + SILENCE_S_MAX)
        if now >= self._waiting.deadline:
            raise self._waiting.expired()
        try:
            return (yield from answer.read(max(0.001, until - now)))
        except TimeoutError as error:
            if self._core.clock() >= self._waiting.deadline:
                raise self._waiting.expired() from None
            raise Lost(error, was_sent=True) from None

    def _ask_for_end(self, answer: Answer) -> Steps[list[JobStreamEvent]]:
        """The answer ended without the end of the stream: return what one page has, and note whether that is all."""
        answer.finish()
        self._answer = None
        if not self._needs_snapshot:
            page: EventPage = yield from event_page(self._core, self._path, self.last_index, self._types())
            found = self._taken((entry.index, entry.event, entry.data) for entry in page.events)
            self.last_index = max(self.last_index, page.last_index)
            self._has_ended = self._has_ended or page.is_final
            if found or self._has_ended:
                return found
        raise Lost(ConnectionResetError(f"the stream ended before the {self._kind}"), was_sent=True)

    def _taken(self, received: Iterable[tuple[int, str, Any]]) -> list[JobStreamEvent]:
        found: list[JobStreamEvent] = []
        for index, kind, data in received:
            is_place = kind in (f"{self._kind}.reset", f"{self._kind}.snapshot", *self._places)
            if self._has_ended or (index <= self.last_index and not is_place):
                continue
            self.last_index = index
            if is_place:
                self._needs_snapshot = False
            self._has_ended = kind == f"{self._kind}.end"
            if self._passes(kind):
                found.append(parsed(self._event, kind, data, index))
        return found

    def _event(self, kind: str, data: Any, index: int) -> JobStreamEvent:
        if self._subject is not None:
            return cast("JobStreamEvent", other_event_of(kind, data, index))
        return event_of(kind, data, index, allow_pickle=self._core.allow_pickle)

    def _passes(self, kind: str) -> bool:
        if kind == f"{self._kind}.alive":
            return False
        if not self._filter or kind in self._filter or kind == f"{self._kind}.reset":
            return True
        return (kind in _STATUS_KINDS and "job.status" in self._filter) or (
            kind == f"{self._kind}.snapshot" and self._has_snapshot
        )

    def _types(self) -> str:
        """Return the filter that the server is asked for, empty for none."""
        end = () if self._kind == "app" else (f"{self._kind}.end",)
        return ",".join(sorted({*self._filter, *end})) if self._filter else ""

    def _pause(self, lost: Lost) -> Steps[None]:
        self._losses += 1
        if self._losses >= RESUMES_MAX:
            error = UnavailableError(f"The events of {self._job_id} break off again and again: {lost.cause}.")
            raise self._given_up(error) from lost.cause
        pause_s = self._core.pause_s(self._losses)
        if self._core.clock() + pause_s >= self._waiting.deadline:
            raise self._waiting.expired()
        yield Pause(pause_s)

    def _given_up(self, error: ApothicError) -> ApothicError:
        if self._core.clock() >= self._waiting.deadline:
            return self._waiting.expired()
        message = f"{error} ({self._place()}; it may go on.)"
        return type(error)(message, code=error.code, retryable=error.retryable)

    def _place(self) -> str:
        return f"{self._job_id} was read up to index {self.last_index}"

    @property
    def _path(self) -> str:
        return f"/v1/jobs/{part(self._job_id)}/events" if self._subject is None else self._subject.path

    @property
    def _job_id(self) -> str:
        return self._waiting.job_id or ""


def follow(run: Callable[[Steps[list[JobStreamEvent]]], list[JobStreamEvent]], reader: EventReader) -> Events:
    """Yield a reader's events with a blocking driver; ending the generator closes the connection."""
    try:
        while events := run(reader.more()):
            yield from events
    finally:
        reader.close()


async def follow_async(
    run: Callable[[Steps[list[JobStreamEvent]]], Coroutine[Any, Any, list[JobStreamEvent]]], reader: EventReader
) -> AsyncEvents:
    """Yield a reader's events with asyncio; ending the generator closes the connection."""
    try:
        while events := await run(reader.more()):
            for event in events:
                yield event
    finally:
        reader.close()


Events = Generator[JobStreamEvent, None, None]
AsyncEvents = AsyncGenerator[JobStreamEvent, None]


def _decoded(events: list[Received]) -> list[tuple[int, str, Any]]:
    try:
        return [(index, kind, json.loads(data)) for index, kind, data in events]
    except RecursionError:
        raise ValueError("an event nests too deep") from None
