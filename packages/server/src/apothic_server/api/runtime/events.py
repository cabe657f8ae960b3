"""Event streams: server-sent events for watchers, pages of JSON for pollers.

What several watchers get is encoded once, and they share the bytes. A stream ends after `job.end`, `group.end` or
`deployment.end`; that of an app goes on.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any

import msgspec

from apothic.wire.ids import JobId, parse_record_id
from apothic.wire.limits import KEEP_ALIVE_S, WAIT_S_MAX
from apothic_server.api.runtime import records
from apothic_server.api.runtime.apps import app_name
from apothic_server.api.runtime.event_kinds import APP, DEPLOYMENT, GROUP, JOB, Vocabulary, event_data, snapshot_data
from apothic_server.api.runtime.item_frames import PACKED, PIECE_BYTES, item_pieces, item_records, packed_data
from apothic_server.api.shared.query import refusal, seconds, truth, whole_number
from apothic_server.api.shared.request import Request
from apothic_server.api.shared.response import Response, json_response, stream_response
from apothic_server.api.shared.services import ItemReader, Services, Watch
from apothic_server.domain.access import Actor
from apothic_server.domain.errors import Invalid
from apothic_server.domain.streams import StreamRef
from apothic_server.domain.views import Batch, Gap, ItemRun, Snapshot, Streamed
from apothic_server.services.tails import PAGE

SSE_TYPE = "text/event-stream"
ITEM = "job.stream_item"
ITEM_READER_IDLE_S = 86_400.0
"""A generator waits so long for an attached reader that takes nothing: one may be busy for hours with one item."""

INDEX_MAX = 2**63 - 1
SHARED_MAX = 64
"""Pieces that are kept for the watchers that come to them next, each about as large as `PIECE_BYTES`."""

_encode = msgspec.json.Encoder().encode


class EventHandlers:
    """Handlers of event streams."""

    def __init__(self, services: Services) -> None:
        self._apps = services.apps
        self._jobs = services.jobs
        self._streams = services.streams
        self._shared: OrderedDict[tuple[str, int, int, frozenset[str]], bytes] = OrderedDict()

    async def get_events(self, request: Request) -> Response:
        """Answer a job's events after an index, as a stream or as one page."""
        return await self._answer(request, JOB, records.job_key(request.params["job_id"]))

    async def get_deployment_events(self, request: Request) -> Response:
        """Answer a deployment's events."""
        return await self._answer(request, DEPLOYMENT, records.deployment_key(request.params["deployment_id"]))

    async def get_group_events(self, request: Request) -> Response:
        """Answer a group's events."""
        return await self._answer(request, GROUP, records.group_key(request.params["group_id"]))

    async def get_app_events(self, request: Request) -> Response:
        """Answer the events of an app, given by name or id."""
        key = parse_record_id(request.params["app"], "apps")
        if key is None:
            key = await self._apps.app_key(request.actor, app_name(request))
        return await self._answer(request, APP, key)

    async def _answer(self, request: Request, words: Vocabulary, key: str) -> Response:
        chosen = words.chosen(request.query.get("types"))
        after = _after(request)
        wants_snapshot = truth(request.query, "snapshot")
        wait_s = seconds(request.query, "wait_s", WAIT_S_MAX, 0.0)
        limit = whole_number(request.query, "limit", 1, 1_000, PAGE)
        is_stream = SSE_TYPE.encode() in request.headers.get(b"accept", b"")
        is_packed = _is_packed(request.query.get("items"), is_stream=is_stream)
        await request.body()
        stream = StreamRef(words.kind, key)
        watch = await self._streams.watch(request.actor, stream)
        feed = Feed(self, watch, request.actor, stream, words, chosen, after)
        is_handed_on = False
        try:
            if words is JOB and (is_stream or wait_s > 0):
                feed.leave = self._jobs.follow(request.actor, JobId(key))
            if wants_snapshot:
                await feed.begin_with_snapshot()
            if is_stream:
                await feed.prefetch()
                if is_packed:
                    await feed.pack()
                feed.end_with(request)
                is_handed_on = True
                return stream_response(feed, SSE_TYPE, reader_idle_s=ITEM_READER_IDLE_S if is_packed else None)
            page = await feed.page(limit, wait_s)
            if words is JOB and ITEM in chosen:
                yields = (await self._jobs.get(request.actor, JobId(key))).is_generator
                ordinal = self._streams.next_ordinal
                page["next_ordinal"] = await ordinal(request.actor, JobId(key), upto=after) if yields else None
        finally:
            if not is_handed_on:
                feed.close()
        return json_response(page)

    async def check_yields(self, actor: Actor, job: JobId) -> None:
        """Raise Invalid (`not_a_generator`) for a job that can have no items."""
        view = await self._jobs.get(actor, job)
        if not view.is_generator:
            text = f"{view.function_name} yields no items; wait for its one result instead"
            raise Invalid(text, code="not_a_generator")

    async def attach(self, actor: Actor, job: JobId, after: int) -> tuple[ItemReader, int]:
        """Attach a reader of a job's items after an index; returns it and the ordinal of the next item for it."""
        ordinal = await self._streams.next_ordinal(actor, job, upto=after)
        return self._streams.attach(job, ordinal), ordinal

    async def snapshot(self, actor: Actor, stream: StreamRef) -> Snapshot:
        """Return what a stream tells of, as of an index."""
        return await self._streams.snapshot(actor, stream)

    def pieces(self, key: str, batch: Batch, chosen: frozenset[str]) -> Iterable[bytes]:
        """Return the chosen events of a batch of the stream with this key, encoded; made once for all watchers."""
        if not batch.events or not batch.is_whole:
            return gathered(_encoded(batch, chosen))
        place = (key, batch.events[0].index, batch.last_index, chosen)
        known = self._shared.get(place)
        if known is not None:
            return (known,) if known else ()
        made = gathered(_encoded(batch, chosen))
        pieces = list(islice(made, 2))
        if len(pieces) == 2 or sum(map(len, pieces)) > 2 * PIECE_BYTES:
            return chain(pieces, made)
        self._shared[place] = b"".join(pieces)
        if len(self._shared) > SHARED_MAX:
            self._shared.popitem(last=False)
        return pieces


class Feed:
    """The pieces of one answer; gives the watch's place back however it ends."""

    def __init__(
        self,
        handlers: EventHandlers,
        watch: Watch,
        actor: Actor,
        stream: StreamRef,
        words: Vocabulary,
        chosen: frozenset[str],
        after: int,
    ) -> None:
        self._handlers = handlers
        self._watch = watch
        self._actor = actor
        self._stream = stream
        self._words = words
        self._chosen = chosen
        self._after = after
        self._first: list[tuple[str, int, dict[str, Any]]] = []
        self._fetched: Batch | Gap | None = None
        self._ended = False
        self._gone: asyncio.Future[None] | None = None
        self._reader: ItemReader | None = None
        self.leave: Callable[[], None] = _stay

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._frames()

    def close(self) -> None:
        """Give the watch's place back; the items of a generator wait for this reader no more."""
        self.leave()
        self._watch.close()
        if self._reader is not None:
            self._reader.close()

    async def aclose(self) -> None:
        """Give the watch's place back and wait for nothing more."""
        self.close()
        if self._gone is not None:
            self._gone.cancel()
            await asyncio.gather(self._gone, return_exceptions=True)

    def end_with(self, request: Request) -> None:
        """End as soon as the client leaves, even when nothing happens in the stream."""
        self._gone = asyncio.ensure_future(request.gone())
        self._gone.add_done_callback(lambda _: self._leave())

    def _leave(self) -> None:
        self._ended = True
        self._watch.wake()

    async def begin_with_snapshot(self) -> None:
        """Put a snapshot before everything else and go on after its index."""
        found = await self._handlers.snapshot(self._actor, self._stream)
        self._first.append((self._words.snapshot, found.index, snapshot_data(found)))
        self._after = found.index
        self._ended = found.is_final

    async def prefetch(self) -> None:
        """Read what is there before the answer begins, so that a missing stream is still a 404."""
        self._fetched = await self._watch.next(self._after, timeout_s=0.0, kinds=self._chosen)

    async def pack(self) -> None:
        """Send items packed, after telling where they begin, and let the job's generator wait for this reader."""
        await self._handlers.check_yields(self._actor, JobId(self._stream.key))
        self._reader, ordinal = await self._handlers.attach(self._actor, JobId(self._stream.key), self._after)
        self._first.append((self._words.alive, self._after, {"last_index": self._after, "next_ordinal": ordinal}))

    async def page(self, limit: int, wait_s: float) -> dict[str, Any]:
        """Return one page, after waiting up to `wait_s` for its first event."""
        events = [_record(kind, index, data) for kind, index, data in self._first]
        self._first.clear()
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        while True:
            batch = await self._next(until - loop.time())
            events += [_record(kind, index, data) for kind, index, data in self._first]
            self._first.clear()
            chosen = [event for event in batch.events if event.kind in self._chosen]
            for event in chosen:
                events += _records(event)
            if events or batch.is_final or loop.time() >= until:
                break
        cut = events[:limit]
        last = self._after if len(cut) == len(events) else cut[-1]["index"]
        return {"events": cut, "last_index": last, "is_final": self._ended and last == self._after}

    async def _frames(self) -> AsyncGenerator[bytes]:
        for kind, index, data in self._first:
            yield sse(kind, index, data)
        self._first.clear()
        loop = asyncio.get_running_loop()
        sent_at = loop.time()
        while not self._ended:
            batch = await self._next(KEEP_ALIVE_S - (loop.time() - sent_at))
            for piece in self._pieces(batch):
                yield piece
                sent_at = loop.time()
            self._sent(batch)
            if not self._ended and loop.time() - sent_at >= KEEP_ALIVE_S:
                yield sse(self._words.alive, self._after, {"last_index": self._after})
                sent_at = loop.time()

    def _pieces(self, batch: Batch) -> Iterable[bytes]:
        if self._reader is None and not self._first:
            return self._handlers.pieces(self._stream.key, batch, self._chosen)
        first = [sse(kind, index, data) for kind, index, data in self._first]
        self._first.clear()
        return gathered(chain(first, _encoded(batch, self._chosen, is_packed=self._reader is not None)))

    def _sent(self, batch: Batch) -> None:
        """Note how far the items of a batch have gone that the client has taken all of."""
        last = next((event for event in reversed(batch.events) if isinstance(event, ItemRun)), None)
        if self._reader is not None and last is not None:
            self._reader.advance(last.attempt, last.ordinal + last.count)

    async def _next(self, timeout_s: float) -> Batch:
        found, self._fetched = self._fetched, None
        if found is None or (isinstance(found, Batch) and not found.events and not found.is_final):
            found = await self._watch.next(self._after, timeout_s=timeout_s, kinds=self._chosen)
        if isinstance(found, Gap):
            return await self._reset(found)
        self._after = max(self._after, found.last_index)
        self._ended = self._ended or found.is_final
        return found

    async def _reset(self, gap: Gap) -> Batch:
        """Tell of the gap with a fresh snapshot and go on behind it (G5.5)."""
        fresh = await self._handlers.snapshot(self._actor, self._stream)
        data = {
            "requested_index": gap.requested,
            "oldest_index": gap.oldest,
            "latest_index": fresh.index,
            "snapshot": snapshot_data(fresh),
        }
        self._first.append((self._words.reset, fresh.index, data))
        self._after, self._ended = fresh.index, fresh.is_final
        if self._reader is not None:
            self._reader.close()
            self._reader, _ = await self._handlers.attach(self._actor, JobId(self._stream.key), self._after)
        return Batch((), fresh.index, fresh.is_final)


def _encoded(batch: Batch, chosen: frozenset[str], *, is_packed: bool = False) -> Iterator[bytes]:
    """Yield the chosen events of a batch as server-sent events."""
    for event in batch.events:
        if event.kind not in chosen:
            continue
        if isinstance(event, Streamed):
            yield sse(event.kind, event.index, event_data(event))
        elif is_packed:
            yield sse(PACKED, event.last_index, packed_data(event))
        else:
            yield from item_pieces(event)


def _stay() -> None:
    """Nobody follows, so nobody leaves."""


def gathered(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Return the same bytes in fewer pieces, of about `PIECE_BYTES`."""
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= PIECE_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def sse(kind: str, index: int, data: dict[str, Any]) -> bytes:
    """Return one server-sent event with one data line: line breaks in JSON of user code are but white space."""
    text = _encode(data)
    if b"\n" in text or b"\r" in text:
        text = text.replace(b"\r", b" ").replace(b"\n", b" ")
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (index, kind.encode(), text)


def _record(kind: str, index: int, data: dict[str, Any]) -> dict[str, Any]:
    return {"index": index, "event": kind, "data": data}


def _records(event: Streamed | ItemRun) -> list[dict[str, Any]]:
    if isinstance(event, ItemRun):
        return item_records(event)
    return [_record(event.kind, event.index, event_data(event))]


def _is_packed(text: str | None, *, is_stream: bool) -> bool:
    if text not in (None, "packed"):
        raise refusal("items", "must be packed, or left out", "unknown_value")
    if text is not None and not is_stream:
        raise refusal("items", f"needs a stream: send Accept: {SSE_TYPE}", "no_stream")
    return text is not None


def _after(request: Request) -> int:
    query = dict(request.query)
    last = request.headers.get(b"last-event-id")
    if last is not None and "after" not in query:
        query["after"] = last.decode("latin-1")
    return whole_number(query, "after", -1, INDEX_MAX, -1)
