"""Ends of chunks: what worked stays, what failed may be tried again alone, what was not executed goes back.

A chunk's row is ended like that of any job, but it covers the items that ended and no others afterwards. An item that
failed and has retries left gets a row of its own once the chunk's end is on disk; one that wrote output gets it in the
same commit, with its lines. A whole chunk is tried again (J6) only when its worker is gone without a word.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from apothic.wire import chunks as packing
from apothic.wire.limits import CHUNK_OUTCOMES_MAX, VALUE_MAX
from apothic.wire.link import Finished
from apothic.wire.maps import ChunkResult
from apothic.wire.runner import error_to_json
from apothic.wire.values import RemoteError, Value
from apothic_server.domain.decide.chunks import ChunkVerdict, judge_chunk
from apothic_server.domain.decide.endings import Ended
from apothic_server.domain.groups import ITEMS, Part
from apothic_server.domain.jobs import JobEvent, JobFields, StoredValue
from apothic_server.domain.views import Outcome
from apothic_server.services.dispatch.board import Board, Settled
from apothic_server.services.dispatch.grants import Grants
from apothic_server.services.dispatch.live import LiveJob
from apothic_server.services.dispatch.maps import Maps
from apothic_server.services.dispatch.nesting import orphans
from apothic_server.services.dispatch.own_rows import Entry, OwnRows, entries_of
from apothic_server.services.dispatch.records import move

_PYTHON = re.compile(r"3\.[0-9]{1,2}")
_KINDS = frozenset(b"".join((*packing.ENCODINGS, packing.ERROR)))

OUTCOMES_MAX = CHUNK_OUTCOMES_MAX + 2 * VALUE_MAX
"""Packed outcomes of one chunk; its worker ends it when they have `CHUNK_OUTCOMES_MAX` bytes."""


class Chunks:
    """Applies what follows from the end of a chunk's attempt."""

    def __init__(self, board: Board, grants: Grants, maps: Maps) -> None:
        self._board = board
        self._grants = grants
        self._maps = maps
        self._own = OwnRows(board)

    def end(self, job: LiveJob, ended: Ended, value: StoredValue | None, then: Callable[[], None]) -> bool:
        """End the attempt of a chunk as `Endings.end_attempt` does for any job; False when that is to do it."""
        board, covers = self._board, job.covers
        assert covers is not None, "a chunk covers items"
        group = self._maps.groups.get(covers.group)
        part = ended.part if ended.part is not None and value is not None else Part()
        is_stopping = group is not None and group.is_stopping
        unwanted = [] if group is None else [item for item in group.unwanted if covers.first <= item < covers.end]
        verdict = judge_chunk(
            job.status, ended, part, covers.count, job.losses, is_stopping=is_stopping, is_split=bool(unwanted)
        )
        if verdict is None:
            return False
        entries = entries_of(job, part, value, board.random, unwanted)
        ending = None if job.worker is None or ended.outcome == "lost" else (job.worker, job.fence)
        job.ending, by = ending, replace(job)  # whose worker and times are those of the attempt
        left = orphans(board, job, succeeded=verdict.event is JobEvent.SUCCEEDED)
        board.release(job)
        now = board.clock.now()
        self._own.write_final(by, [entry for entry in entries if not entry.is_retried])
        change = move(job, verdict.event, now, fields=_fields(verdict, part, value, ended, now))

        def answered(settled: Settled) -> None:
            if isinstance(settled, bool) and job.ending == ending:
                job.ending = None
            if settled is True:
                board.finish(job, Outcome(job.id, job.status, None, None, job.attempt))
                self._settled(by, entries, part, verdict)
            else:
                board.reload(job.id)
            if isinstance(settled, bool):
                then()

        board.write(change, answered)
        if left:
            board.hints.orphaned(left)
        self._grants.grant_ready()
        return True

    def _settled(self, chunk: LiveJob, entries: list[Entry], part: Part, verdict: ChunkVerdict) -> None:
        covers = chunk.covers
        assert covers is not None, "a chunk covers items"
        group = self._maps.groups.get(covers.group)
        retried = [entry for entry in entries if entry.is_retried]
        rows = self._own.write_retried(group, chunk, retried) if group is None or not group.is_stopping else []
        if group is not None:
            # What a batch returned beyond `CHUNK_OUTCOMES_MAX` was left out, and would be again.
            batching = group.need.spec.batching
            group.is_single |= (
                batching is not None and part.done < covers.count and part.done % batching.max_batch_size > 0
            )
            for entry in entries:
                if entry.is_cancelled:
                    group.ended.turn_cancelled(entry.overlays)
        self._maps.chunk_ended(chunk.id, covers, part, verdict, rows, chunk.ran_s)


def _fields(verdict: ChunkVerdict, part: Part, value: StoredValue | None, ended: Ended, now: datetime) -> JobFields:
    error = error_to_json(ended.error) if verdict.event is JobEvent.FAILED and ended.error is not None else None
    return JobFields(
        result=value if part.done else None,
        error=error,
        finished_at=now,
        chunk_items=verdict.items,
        chunk_done=part.done,
        failed_items=part.failed or None,
    )


def checked(item: Finished, job: LiveJob) -> tuple[Finished, Part]:
    """Return the report on a chunk with its outcomes as the value, and what they say; it may say anything.

    A report that cannot be true counts as one of a lost attempt.
    """
    items, covers = item.items, job.covers
    if items is None or covers is None:
        return replace(item, value=None), Part()
    part = _part(items, covers.count)
    if part is None:
        error = RemoteError("apothic.WorkerLost", "the worker reported outcomes that are none", code="worker_lost")
        return replace(item, outcome="lost", value=None, error=error, never_started=False), Part()
    return replace(item, value=Value(ITEMS, items.data, items.python) if part.done else None), part


def _part(items: ChunkResult, count: int) -> Part | None:
    if len(items.data) > OUTCOMES_MAX or (items.python is not None and _PYTHON.fullmatch(items.python) is None):
        return None
    try:
        kinds = packing.kinds(items.data)
    except ValueError:
        return None
    if len(kinds) != items.done or len(kinds) > count or not _KINDS.issuperset(kinds):
        return None
    error = packing.ERROR[0]
    failed = tuple(place for place, kind in enumerate(kinds) if kind == error) if error in kinds else ()
    return Part(len(kinds), failed, tuple(items.output))
