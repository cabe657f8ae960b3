"""Rows of their own for items that were executed in a chunk: for those that failed and are tried again, and for those
that wrote output. A row begins with that execution as its first attempt and is written at once, its events with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec

from apothic.wire import chunks as packing
from apothic.wire.link import LogLine
from apothic.wire.runner import error_from_json, error_to_json
from apothic.wire.values import RemoteError, Value
from apothic_server.domain.decide.endings import Ended, Tally, Verdict, judge
from apothic_server.domain.errors import Unavailable
from apothic_server.domain.groups import Part, Slice, item_key
from apothic_server.domain.jobs import JobEvent, JobFields, JobStatus, StoredValue
from apothic_server.services.dispatch.board import Board, Settled
from apothic_server.services.dispatch.live import UNREAD, LiveJob
from apothic_server.services.dispatch.live_groups import LiveGroup
from apothic_server.services.dispatch.records import log_lines, move, new_job, storable, storable_line

_decode = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(frozen=True, slots=True)
class Entry:
    """An item of a chunk that gets a row of its own.

    Attributes:
        item: Its number in the group.
        overlays: The letter of its entry in the chunk: S or F.
        value: Its result, when it has one.
        verdict: What follows from its end.
    """

    item: int
    overlays: str
    value: StoredValue | None
    verdict: Verdict
    lines: Sequence[LogLine] = ()

    @property
    def is_retried(self) -> bool:
        return self.verdict.event is JobEvent.RETRY

    @property
    def is_cancelled(self) -> bool:
        """Whether it ended somehow after its cancellation was asked for."""
        return self.verdict.event is JobEvent.STOPPED


def entries_of(
    job: LiveJob, part: Part, value: StoredValue | None, random: Callable[[], float], unwanted: Sequence[int] = ()
) -> list[Entry]:
    """Return the items of a chunk that get a row of their own; those of `unwanted`, which is in it, were cancelled."""
    covers, spec = job.covers, job.need.spec
    lines = {output.offset: output.lines for output in part.output if output.offset < part.done and output.lines}
    failed = part.failed if spec.max_retries > 0 and not spec.at_most_once else ()
    if covers is None or value is None or not (lines or failed or unwanted):
        return []
    late = {item - covers.first for item in unwanted if item - covers.first < part.done}
    found: list[Entry] = []
    offsets = sorted({*lines, *failed, *late})
    for offset, packed in zip(offsets, packing.cuts(value.value.data, [(one, 1) for one in offsets]), strict=True):
        ended, result = _read(packed[packing.ENTRY_OVERHEAD :], value.value.python)
        status = JobStatus.CANCELLING if offset in late else JobStatus.RUNNING
        verdict = judge(status, ended, Tally(1, 0), spec, random())
        if verdict.event in (JobEvent.RETRY, JobEvent.STOPPED) or offset in lines:
            letter = "F" if result is None else "S"
            found.append(Entry(covers.first + offset, letter, result, verdict, lines.get(offset, ())))
    return found


def _read(entry: bytes, python: str | None) -> tuple[Ended, StoredValue | None]:
    encoding = packing.ENCODINGS.get(entry[:1])
    if encoding is not None:
        return Ended("succeeded", None), StoredValue(Value(encoding, entry[1:], python))
    try:
        error = error_from_json(_decode(entry[1:]))
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError, RecursionError):
        error = RemoteError("apothic.WorkerLost", "the worker reported an error that is none", code="worker_lost")
    return Ended("failed", storable(error)), None


class OwnRows:
    """Writes them."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def write_final(self, chunk: LiveJob, entries: Sequence[Entry]) -> None:
        """Write the rows of items that ended for good; in the commit of what is recorded next, if that waits."""
        for entry in entries:
            with suppress(Unavailable):  # then the end of the chunk is not recorded either
                self._write(self._made(chunk, entry), chunk, entry, lambda _: None)

    def write_retried(self, group: LiveGroup | None, chunk: LiveJob, entries: Sequence[Entry]) -> list[LiveJob]:
        """Write the rows of items that are tried again, and queue them; return their jobs.

        A row that the store refuses is read again with its group.
        """
        made: list[LiveJob] = []
        for entry in entries:
            own = self._made(chunk, entry)
            self._board.jobs[own.id] = own
            if group is not None:
                group.inserting.add(own.id)

            def answered(settled: Settled, own: LiveJob = own) -> None:
                if group is not None:
                    group.inserting.discard(own.id)
                if settled is not True:
                    self._board.reload(own.id)

            try:
                self._write(own, chunk, entry, answered)
            except Unavailable:
                answered(False)
            self._board.retry_after(own, entry.verdict.delay_s)
            made.append(own)
        return made

    def _made(self, chunk: LiveJob, entry: Entry) -> LiveJob:
        covers = chunk.covers
        assert covers is not None, "a chunk covers items"
        own = Slice(covers.group, entry.item, overlays=entry.overlays, spread=covers.spread)
        return LiveJob(
            id=item_key(own.group, own.first),
            function=chunk.function,
            need=chunk.need,
            arguments=UNREAD,
            status=JobStatus.QUEUED,
            attempt=0,
            fence=0,
            losses=0,
            created_at=chunk.created_at,
            outcome=asyncio.get_running_loop().create_future(),
            created_by=chunk.created_by,
            fence_max=chunk.fence,
            deadline_at=chunk.deadline_at,
            parent=chunk.parent,
            depth=chunk.depth,
            covers=own,
        )

    def _write(self, own: LiveJob, chunk: LiveJob, entry: Entry, then: Callable[[Settled], None]) -> None:
        board, verdict = self._board, entry.verdict
        now, term, append = board.clock.now(), board.term, board.records.append_quietly
        started_at = now - timedelta(seconds=max(0.0, board.clock.monotonic() - chunk.started_at))
        append(new_job(own, own.created_at, term=term))
        own.attempt = 1
        fields = JobFields(attempt=1, fence=chunk.fence, worker=chunk.worker, term=term)
        append(move(own, JobEvent.GRANTED, started_at, fields=fields, term=term, fence=chunk.fence))
        append(move(own, JobEvent.STARTED, started_at, fields=JobFields(started_at=started_at)))
        if entry.lines:
            append(log_lines(own, [storable_line(line) for line in entry.lines], 0, now))
        if entry.is_cancelled:
            append(move(own, JobEvent.CANCEL_ASKED, now))
        if entry.is_retried:
            fields = JobFields(run_at=now + timedelta(seconds=verdict.delay_s))
        else:
            error = None if verdict.error is None else error_to_json(verdict.error)
            result = None if entry.is_cancelled else entry.value
            fields = JobFields(result=result, error=error, finished_at=now)
        board.write(move(own, verdict.event, now, fields=fields, error=verdict.error), then)
