"""Runs of items, merged with other events by index, and cut where a reader needs it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from apothic.wire.items import pack_items, unpack_pickles
from apothic_server.domain.jobs import StoredItems
from apothic_server.domain.views import ItemRun, Streamed

_decode = msgspec.json.Decoder(list[msgspec.Raw]).decode


def run_of(stored: StoredItems) -> ItemRun:
    """Return a stored segment as readers get it."""
    part = stored.segment
    return ItemRun(stored.index, part.attempt, part.first_ordinal, part.count, part.encoding, part.python, part.data)


def items_of(run: ItemRun) -> list[bytes]:
    """Return the encoded items of a run."""
    if run.encoding == "json":
        return [bytes(raw) for raw in _decode(run.data)]
    return unpack_pickles(run.data)


def rest_of(run: ItemRun, index: int) -> ItemRun:
    """Return what of a run lies after an index; at least its last item must."""
    skipped = index + 1 - run.index
    if skipped <= 0:
        return run
    data = pack_items(run.encoding, items_of(run)[skipped:])
    return ItemRun(
        run.index + skipped, run.attempt, run.ordinal + skipped, run.count - skipped, run.encoding, run.python, data
    )


def merged(events: Sequence[Streamed], runs: Sequence[ItemRun]) -> list[Streamed | ItemRun]:
    """Return both in the order of their indexes."""
    found: list[Streamed | ItemRun] = [*events, *runs]
    found.sort(key=lambda entry: entry.index)
    return found
