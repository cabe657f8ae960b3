"""Items of generators on their way to the disk, and who may go on: the window of a generator moves when its items are
on disk and no attached reader is too far behind (G5.4).

Of one job at most one record of items is with the writer; what comes meanwhile waits here and shares the next one.
Items stay here until they are on disk, so that a store that was away loses none. An attempt's end waits for its items.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime

import msgspec

from apothic.wire.ids import JobId
from apothic.wire.items import unpack_pickles
from apothic.wire.limits import ITEM_BATCH_MAX, KIB, MIB
from apothic.wire.link import Items, ItemsTaken
from apothic_server.domain.jobs import ItemSegment, NewItems
from apothic_server.services.dispatch.board import Board, Settled
from apothic_server.services.dispatch.live import NO_ITEMS, ItemFlow, LiveJob

SEGMENT_BYTES = 64 * KIB
"""Batches that follow each other are kept as one segment up to this size."""

RECORD_BYTES = 1 * MIB
"""Items of one record; one batch may exceed it."""

_PYTHON = re.compile(r"3\.[0-9]{1,2}")
_decode = msgspec.json.Decoder(list[msgspec.Raw]).decode


class ItemReader:
    """One attached reader of a job's items. `close` it when done."""

    def __init__(self, flows: ItemFlows, job: JobId, ordinal: int) -> None:
        self.job = job
        self._attempt: int | None = None
        self._ordinal = ordinal
        self._flows = flows

    def ordinal(self, attempt: int) -> int:
        """Return the ordinal below which it was sent the items of an attempt."""
        return self._ordinal if self._attempt in (None, attempt) else 0

    def advance(self, attempt: int, ordinal: int) -> None:
        """The items of an attempt below `ordinal` were sent."""
        self._attempt, self._ordinal = attempt, ordinal
        self._flows.moved(self.job)

    def close(self) -> None:
        """It reads no more; twice is fine."""
        self._flows.detach(self)


class ItemFlows:
    """The items of all jobs in memory, and their attached readers."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._readers: dict[JobId, set[ItemReader]] = {}
        self._stalled: set[JobId] = set()

    # --- from workers

    def received(self, job: LiveJob, item: Items) -> None:
        """Take in a batch; one that is here already is answered again, one out of order or malformed is left out."""
        if job.items is NO_ITEMS:
            job.items = ItemFlow()
        flow = job.items
        if flow.attempt != job.attempt:
            flow.begin(job.attempt)
        if item.first_ordinal + item.count <= flow.received:
            self._tell(job, again=True)
        elif item.first_ordinal == flow.received and is_batch(item):
            flow.received += item.count
            flow.waiting.append(_segment(job, item, self._board.clock.now()))
            self._write(job)

    def hold(self, job: LiveJob, then: Callable[[], None]) -> bool:
        """Whether items of the job are not on disk yet; `then` is called once they are."""
        if not job.items.waiting:
            return False
        job.items.ending = then
        return True

    def flush(self, job: LiveJob) -> None:
        """The attempt is lost: put what came of it before its end, without waiting."""
        rest = job.items.waiting[job.items.writing :]
        if job.items.waiting:
            job.items.waiting = []
        if rest:
            self._board.write_quietly(_record(job, rest), job)

    def go_on(self) -> None:
        """Try again what the store did not take, now that the jobs were read again."""
        stalled, self._stalled = self._stalled, set()
        for job_id in stalled:
            job = self._board.jobs.get(job_id)
            if job is not None:
                self._written_up(job)

    # --- from readers

    def attach(self, job: JobId, ordinal: int) -> ItemReader:
        """Let a reader slow the job's generator down while it is behind; it has the items below `ordinal`."""
        reader = ItemReader(self, job, ordinal)
        self._readers.setdefault(job, set()).add(reader)
        return reader

    def detach(self, reader: ItemReader) -> None:
        """Forget a reader."""
        readers = self._readers.get(reader.job, set())
        readers.discard(reader)
        if not readers:
            self._readers.pop(reader.job, None)
        self.moved(reader.job)

    def moved(self, job_id: JobId) -> None:
        """A reader went on or left: the generator may go on too."""
        job = self._board.jobs.get(job_id)
        if job is not None and job.items.written > job.items.taken:
            self._tell(job)

    # --- inside

    def _write(self, job: LiveJob) -> None:
        flow = job.items
        if flow.writing or not flow.waiting:
            return
        chosen: list[ItemSegment] = []
        size = 0
        for segment in flow.waiting:
            if chosen and size + len(segment.data) > RECORD_BYTES:
                break
            chosen.append(segment)
            size += len(segment.data)
        flow.writing = len(chosen)
        self._board.write(_record(job, chosen), lambda settled: self._written(job, settled))

    def _written(self, job: LiveJob, settled: Settled) -> None:
        flow, count = job.items, job.items.writing
        flow.writing = 0
        if settled is not True:
            self._stalled.add(job.id)
            self._board.reload(job.id)
            return
        for _ in range(min(count, len(flow.waiting))):
            flow.wrote(flow.waiting.pop(0))
        self._written_up(job)

    def _written_up(self, job: LiveJob) -> None:
        self._tell(job)
        self._write(job)
        if not job.items.waiting and job.items.ending is not None:
            then, job.items.ending = job.items.ending, None
            then()

    def _tell(self, job: LiveJob, *, again: bool = False) -> None:
        flow = job.items
        is_free = all(reader.ordinal(flow.attempt) > flow.floor for reader in self._readers.get(job.id, ()))
        upto = flow.written if is_free else flow.taken
        if job.runner is not None and (again or upto > flow.taken):
            flow.taken = upto
            self._board.send(job.runner.worker, "items_taken", ItemsTaken(job.id, job.fence, upto))


def is_batch(item: Items) -> bool:
    """Whether a batch holds what it says; a worker may say anything."""
    try:
        if item.encoding == "json":
            found = len(_decode(item.data)) if item.data[:1] == b"[" and item.data[-1:] == b"]" else 0
        else:
            found = len(unpack_pickles(item.data)) if item.encoding == "pickle" else 0
    except (ValueError, RecursionError):
        return False
    is_version = item.python is None or _PYTHON.fullmatch(item.python) is not None
    return 0 < found == item.count and len(item.data) <= ITEM_BATCH_MAX and is_version


def _segment(job: LiveJob, item: Items, now: datetime) -> ItemSegment:
    return ItemSegment(job.attempt, item.first_ordinal, item.count, now, item.encoding, item.python, item.data)


def _record(job: LiveJob, segments: list[ItemSegment]) -> NewItems:
    return NewItems(job.org, job.id, job.status, job.fence, tuple(_joined(segments)))


def _joined(segments: list[ItemSegment]) -> list[ItemSegment]:
    """Return fewer and larger segments with the same items."""
    found: list[ItemSegment] = []
    group: list[ItemSegment] = []
    size = 0
    for segment in segments:
        fits = group and size + len(segment.data) <= SEGMENT_BYTES
        if fits and (segment.encoding, segment.python) == (group[0].encoding, group[0].python):
            group.append(segment)
            size += len(segment.data)
            continue
        found += [_join(group)] if group else []
        group, size = [segment], len(segment.data)
    return [*found, _join(group)]


def _join(group: list[ItemSegment]) -> ItemSegment:
    first = group[0]
    if len(group) == 1:
        return first
    data = (
        b"[" + b",".join([part.data[1:-1] for part in group]) + b"]"
        if first.encoding == "json"
        else b"".join([part.data for part in group])
    )
    count = sum(part.count for part in group)
    return ItemSegment(first.attempt, first.first_ordinal, count, first.at, first.encoding, first.python, data)
