"""Runs of outcomes out of the rows that cover a group's items. An item's own row counts before its chunk's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from apothic.wire import chunks
from apothic.wire.limits import CHUNK_ITEMS_MAX
from apothic.wire.runner import error_to_json
from apothic.wire.values import RemoteError
from apothic_server.domain.decide.endings import NEVER_RETRIED
from apothic_server.domain.group_views import OutcomeRun
from apothic_server.domain.groups import Group, GroupStatus
from apothic_server.domain.jobs import JobStatus
from apothic_server.domain.ranges import Range, Ranges, without
from apothic_server.services.group_items import error_in
from apothic_server.store.groups import StoredEnd

ITEMS = "items"
"""Encoding of the result of a chunk."""

_encode = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(slots=True)
class Runs:
    """Gathers the outcomes that a reader lacks.

    Attributes:
        missing: What it lacks; what was added here is taken out.
        is_tried_again: An entry that tells of a failure is not the end of its item, which gets a row of its own.
    """

    missing: Ranges
    is_tried_again: bool
    runs: list[OutcomeRun] = field(default_factory=list[OutcomeRun])
    _alone: list[tuple[int, str | None, bytes]] = field(default_factory=list[tuple[int, str | None, bytes]])

    def add(self, row: StoredEnd, data: bytes) -> None:
        """Add what a row tells; `data` is its result, wherever it lies."""
        if row.done is None:
            if self.missing.within([(row.first, row.first + 1)]):
                self._alone.append((row.first, _python(row), entry_of(row, data)))
                self.missing.remove(row.first, row.first + 1)
            return
        self._flush()
        own = row.own
        if self.is_tried_again and row.failed:
            own = sorted({*own, *_tried_again(row, data)})
        told = row.first + row.done
        parts = self._parts((row.first, told), own)
        is_whole = parts == [(row.first, told)]
        packed = [data] if is_whole else chunks.cuts(data, [(low - row.first, high - low) for low, high in parts])
        for (low, high), part in zip(parts, packed, strict=True):
            self.runs.append(OutcomeRun(low, high - low, _python(row), part))
        if row.status is not JobStatus.SUCCEEDED:
            entry = entry_of(row, b"")
            for low, high in self._parts((told, row.first + row.count), own):
                self.runs.append(OutcomeRun(low, high - low, None, chunks.pack([entry] * (high - low))))

    def done(self) -> list[OutcomeRun]:
        """Return all that was added."""
        self._flush()
        return self.runs

    def _parts(self, part: Range, own: tuple[int, ...] | list[int]) -> list[Range]:
        found = self.missing.within(without(part, own))
        for low, high in found:
            self.missing.remove(low, high)
        return found

    def _flush(self) -> None:
        """Make runs of the items that have rows of their own: one of neighbours, or one for each Python."""
        alone, self._alone = self._alone, []
        if not alone:
            return
        numbers = [number for number, _, _ in alone]
        pythons = {python for _, python, _ in alone}
        is_dense = all(number + 1 == following for number, following in pairwise(numbers))
        for python in sorted(pythons, key=lambda one: one or ""):
            mine = [(number, entry) for number, its, entry in alone if its == python]
            packed = chunks.pack([entry for _, entry in mine])
            indexes = None if is_dense and len(pythons) == 1 else [number for number, _ in mine]
            self.runs.append(OutcomeRun(mine[0][0], len(mine), python, packed, indexes))


def rest_of(group: Group, missing: Ranges) -> OutcomeRun | None:
    """Return the outcomes of the next items that never began of a group that has ended; None without any."""
    found = missing.within([(0, group.uploaded)])
    if not found:
        return None
    low, high = found[0][0], min(found[0][1], found[0][0] + CHUNK_ITEMS_MAX)
    missing.remove(low, high)
    entry = _error(group.error or _cancelled(group.status is GroupStatus.CANCELLED))
    return OutcomeRun(low, high - low, None, chunks.pack([entry] * (high - low)))


def entry_of(row: StoredEnd, data: bytes) -> bytes:
    """Return the outcome of one item as an entry: its value, or how it ended otherwise."""
    if row.result is not None and row.status is JobStatus.SUCCEEDED:
        return chunks.KINDS[row.result.value.encoding] + data
    return _error(row.error or _cancelled(row.status is JobStatus.CANCELLED))


def _tried_again(row: StoredEnd, data: bytes) -> Iterator[int]:
    """Yield the numbers of those items of a chunk that failed and will get another attempt."""
    entries = chunks.unpack(data)
    for offset in row.failed:
        if error_in(entries[offset]).get("code") not in NEVER_RETRIED:
            yield row.first + offset


def _python(row: StoredEnd) -> str | None:
    return None if row.result is None else row.result.value.python


def _cancelled(is_cancelled: bool) -> dict[str, Any]:
    text, code = ("the item was cancelled", "cancelled") if is_cancelled else ("the item did not end", "lost")
    return error_to_json(RemoteError("", text, code=code))


def _error(error: dict[str, Any]) -> bytes:
    return chunks.ERROR + _encode(error).encode()
