"""The items of a generator, without I/O: read packed from its job's stream, each handed out once and in order.

A later attempt begins its items again; those whose ordinal an earlier attempt has reached are passed over. Where no
stream gets through, for example behind a proxy that keeps answers back, pages of events are asked for instead.
"""

from __future__ import annotations

import base64
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterator,
)
from typing import Any, NamedTuple, cast

from apothic import _calls
from apothic._answers import EventPage
from apothic._calls import parsed
from apothic._connection import Answer
from apothic._core import Core
from apothic._events import EventReader
from apothic._operations import cancel_job, event_page
from apothic._position import Position
from apothic._ranges import wrong
from apothic._results import decode, result_of
from apothic._steps import Pause, Say, Steps
from apothic.errors import ApothicError, InvalidRequestError, JobStreamResetError, ProtocolError
from apothic.streams import JobResetEvent, JobStreamCheckpoint, JobStreamEvent, JobStreamItemEvent
from apothic.wire.values import ENCODINGS, Value

FIRST_S_MAX = 10.0
"""Our server begins a stream of items at once; one that begins later is kept back by something in between."""

ON_RESET = ("raise", "snapshot", "continue")
ITEM = "job.stream_item"
_PACKED, _ALIVE = "job.stream_items", "job.alive"


class _NoStreamError(Exception):
    """No stream of events gets through."""


class Chunk(NamedTuple):
    """Neighbouring items, not decoded unless they are JSON.

    Attributes:
        first_index: Of the first item.
        items: JSON values, or base64 text.
        python: As `Value.python`; of pickled items.
        is_json: Whether `items` are the values themselves.
    """

    first_index: int
    items: list[Any]
    python: str | None
    is_json: bool


class ItemEvents(EventReader):
    """Reads the events that items come in.

    Args:
        poll_interval_s: Pause between two pages where no stream gets through.
        types: Names of the events to read.
        is_packed: The job's function is a generator, so there are items, and they are read packed.
    """

    _places = (_ALIVE,)

    def __init__(
        self,
        core: Core,
        job: str | Callable[[], Steps[str]],
        last_index: int,
        *,
        timeout_s: float,
        poll_interval_s: float = 1.0,
        types: tuple[str, ...] = (ITEM,),
        is_packed: bool = True,
    ) -> None:
        super().__init__(core, job, Position(last_index, types), timeout_s=timeout_s)
        self._query = {"items": "packed"} if is_packed else {}
        self._poll_interval_s = poll_interval_s
        self._is_polling = False
        self._is_unheard = False

    @property
    def job_id(self) -> str:
        """Id of the job; empty before it was created."""
        return self._job_id

    @property
    def timeout_left_s(self) -> float:
        """Seconds until the deadline, at least 0."""
        return max(0.0, self._waiting.deadline - self._core.clock())

    def more(self) -> Steps[list[JobStreamEvent]]:
        """Return the next events, at least one; an empty list after the end. Errors as those of `EventReader`."""
        return self._more()

    def seek(self, last_index: int) -> None:
        """Go on after another index."""
        self.close()
        self.last_index = last_index
        self._has_ended = False

    def _next(self) -> Steps[list[JobStreamEvent]]:
        if not self._is_polling:
            try:
                return (yield from super()._next())
            except _NoStreamError:
                self.close()
                self._is_polling = True
        return (yield from self._page())

    def _open(self) -> Steps[Answer]:
        self._is_unheard = True
        try:
            return (yield from super()._open())
        except ProtocolError as error:
            raise _NoStreamError from error

    def _receive(self, answer: Answer) -> Steps[bytes]:
        if not self._is_unheard:
            return (yield from super()._receive(answer))
        try:
            data = yield from answer.read(max(0.001, min(FIRST_S_MAX, self.timeout_left_s)))
        except TimeoutError:
            if not self.timeout_left_s:
                raise self._waiting.expired() from None
            raise _NoStreamError from None
        self._is_unheard = False
        return data

    def _page(self) -> Steps[list[JobStreamEvent]]:
        page: EventPage = yield from event_page(self._core, self._path, self.last_index, self._types())
        if self._query and page.next_ordinal is None:
            text = f"The function of {self.job_id} yields no items; wait for its one result instead."
            raise InvalidRequestError(text, code="not_a_generator")
        place = (self.last_index, _ALIVE, {"last_index": self.last_index, "next_ordinal": page.next_ordinal})
        found = self._taken([place, *((entry.index, entry.event, entry.data) for entry in page.events)])
        self.last_index = max(self.last_index, page.last_index)
        self._has_ended = self._has_ended or page.is_final
        if not page.events and not self._has_ended:
            if not self.timeout_left_s:
                raise self._waiting.expired()
            yield Pause(min(self._poll_interval_s, self.timeout_left_s))
        return found

    def _passes(self, kind: str) -> bool:
        return kind in {_PACKED, _ALIVE} or super()._passes(kind)


class ItemSource:
    """Gives items by the chunk, each once, and raises at the end what became of the job.

    Args:
        on_reset: What to do when items are gone: one of `ON_RESET`.
        tells_end: Whether to raise how the job ended, when it did not succeed.

    Attributes:
        last_index: Index of the last item that was handed out; -1 for none.
    """

    def __init__(self, core: Core, events: ItemEvents, on_reset: str, *, tells_end: bool = True) -> None:
        self.last_index = events.last_index
        self._core = core
        self._events = events
        self._on_reset = on_reset
        self._tells_end = tells_end
        self._next_ordinal: int | None = None
        self._reset: JobResetEvent | None = None

    @property
    def job_id(self) -> str:
        """Id of the job; empty before it was created."""
        return self._events.job_id

    def more(self) -> Steps[list[Chunk] | None]:
        """Return the next chunks; None after the last item of a job that succeeded. Errors as those of `mixed`."""
        found = yield from self.mixed()
        return None if found is None else [entry for entry in found if isinstance(entry, Chunk)]

    def mixed(self) -> Steps[list[Chunk | JobStreamEvent] | None]:
        """Return the next chunks with other events that are read, in their order; None as `more`.

        Raises:
            JobStreamResetError: Items are gone, and `on_reset` is `raise`.
            RemoteExecutionError, JobCancelledError, JobTimeoutError: How else the job ended.
        """
        if self._reset is not None:
            reset, self._reset = self._reset, None
            raise _reset_error(self.job_id, reset)
        events = yield from self._events.more()
        if not events:
            if self._tells_end:
                yield from self._check_end()
            return None
        found: list[Chunk | JobStreamEvent] = []
        for event in events:
            if isinstance(event, JobResetEvent):
                self._obey_reset(event)
                if self._on_reset != "raise":
                    found.append(event)
                if self._on_reset != "snapshot":
                    break
            elif event.event == _ALIVE:
                self._begin(event.data.get("next_ordinal"))
            elif event.event not in {ITEM, _PACKED}:
                found.append(event)
            elif (chunk := parsed(self._chunk, event)) is not None:
                found.append(chunk)
        return found

    def each(self, chunks: list[Chunk]) -> Iterator[Any]:
        """Yield the items of chunks, and note which of them was handed out last.

        Raises:
            SerializationError: An item cannot be read here.
        """
        for chunk in chunks:
            for place, item in enumerate(chunk.items, chunk.first_index):
                self.last_index = place
                yield item if chunk.is_json else self._value(item, chunk.python)

    def close(self) -> None:
        """Read no more."""
        self._events.close()

    def cancel(self) -> Steps[None]:
        """Ask for the end of the job, when there is one; says so when that fails."""
        if not self.job_id:
            return
        try:
            yield from cancel_job(self._core, self.job_id)
        except ApothicError as error:
            yield Say(f"apothic: {self.job_id} could not be cancelled: {error}")

    def _value(self, text: Any, python: str | None) -> Any:
        """Return the item that stands as base64 text."""
        data = parsed(base64.b64decode, text)
        return decode(self.job_id, Value("pickle", data, python), allow_pickle=self._core.allow_pickle)

    def _begin(self, ordinal: Any) -> None:
        if self._next_ordinal is None and type(ordinal) is int:
            self._next_ordinal = ordinal

    def _chunk(self, event: JobStreamEvent) -> Chunk | None:
        """Return what an event adds to the items seen so far."""
        data, index = event.data, event.index or 0
        items: Any
        if isinstance(event, JobStreamItemEvent):
            items, first, ordinal = [data["item"]], index, data["ordinal"]
        else:
            items, first, ordinal = data["items"], data["first_index"], data["first_ordinal"]
        encoding, python = data["encoding"], data.get("python")
        if encoding not in ENCODINGS or type(items) is not list or type(first) is not int or type(ordinal) is not int:
            raise ValueError("an event of items is malformed")
        found = cast("list[Any]", items)
        seen = max(0, (self._next_ordinal or 0) - ordinal)
        if seen >= len(found):
            return None
        self._next_ordinal = ordinal + len(found)
        return Chunk(first + seen, found[seen:], python, encoding == "json")

    def _obey_reset(self, event: JobResetEvent) -> None:
        if self._on_reset == "raise":
            self._reset = event
        elif self._on_reset == "continue":
            self._events.seek(max(-1, event.oldest_index - 1))

    def _check_end(self) -> Steps[None]:
        ended = yield from _calls.outcome(self._core, self.job_id)
        if ended.status != "succeeded":
            result_of(ended, allow_pickle=self._core.allow_pickle)


class Reading:
    """How far the items of a job were read."""

    def __init__(self, source: ItemSource) -> None:
        self._source = source

    @property
    def job_id(self) -> str:
        """Id of the job; empty before the first item was asked for."""
        return self._source.job_id

    @property
    def last_index(self) -> int:
        """Index of the last item that came; `Job.wait_gen` goes on after it. -1 before the first."""
        return self._source.last_index

    def checkpoint(self) -> JobStreamCheckpoint:
        """Return what another process needs to go on after the last item that came."""
        return JobStreamCheckpoint(self.job_id, self.last_index)


class JobItems(Reading, Iterator[Any]):
    """Iterates over the items of a job. `close()`, or leaving the loop, ends the reading."""

    def __init__(self, source: ItemSource, inner: Generator[Any, None, None]) -> None:
        super().__init__(source)
        self._inner = inner

    def __next__(self) -> Any:
        return next(self._inner)

    def close(self) -> None:
        """Read no more; of a job that `remote_gen` started this cancels the job. Twice is fine."""
        self._inner.close()


class AsyncJobItems(Reading, AsyncIterator[Any]):
    """`JobItems` for asyncio. `aclose()`, for example by `contextlib.aclosing`, ends the reading at once."""

    def __init__(self, source: ItemSource, inner: AsyncGenerator[Any, None]) -> None:
        super().__init__(source)
        self._inner = inner

    async def __anext__(self) -> Any:
        return await self._inner.__anext__()

    async def aclose(self) -> None:
        """Read no more; of a job that `remote_gen` started this cancels the job. Twice is fine."""
        await self._inner.aclose()


Run = Callable[[Steps[Any]], Any]
RunAsync = Callable[[Steps[Any]], Coroutine[Any, Any, Any]]


def iterate(run: Run, source: ItemSource, *, cancels: bool) -> JobItems:
    """Return the items with a blocking driver; `cancels` has the job cancelled when the reading ends early."""
    return JobItems(source, _iterate(run, source, cancels=cancels))


def iterate_async(run: RunAsync, source: ItemSource, *, cancels: bool) -> AsyncJobItems:
    """Return the items with asyncio."""
    return AsyncJobItems(source, _iterate_async(run, source, cancels=cancels))


def _iterate(run: Run, source: ItemSource, *, cancels: bool) -> Generator[Any, None, None]:
    try:
        while (chunks := run(source.more())) is not None:
            yield from source.each(chunks)
    except (GeneratorExit, KeyboardInterrupt):
        source.close()
        if cancels:
            run(source.cancel())
        raise
    finally:
        source.close()


async def _iterate_async(run: RunAsync, source: ItemSource, *, cancels: bool) -> AsyncGenerator[Any, None]:
    from asyncio import CancelledError

    try:
        while (chunks := await run(source.more())) is not None:
            for item in source.each(chunks):
                yield item
    except (GeneratorExit, CancelledError):
        source.close()
        if cancels:
            await run(source.cancel())
        raise
    finally:
        source.close()


def checked_on_reset(on_reset: Any) -> str:
    """Return `on_reset`; InvalidRequestError when it is none of `ON_RESET`."""
    if on_reset not in ON_RESET:
        raise wrong("on_reset", on_reset, f"one of {', '.join(ON_RESET)}")
    return on_reset


def _reset_error(job_id: str, event: JobResetEvent) -> JobStreamResetError:
    return JobStreamResetError(
        f"Items of {job_id} after index {event.requested_index} are gone; the oldest kept has index "
        f"{event.oldest_index}.",
        job_id=job_id,
        requested_index=event.requested_index,
        oldest_index=event.oldest_index,
        latest_index=event.latest_index,
        event=event,
    )
