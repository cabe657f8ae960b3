"""Items of generators as readers get them: one event for each, or packed by the run for those who ask for that."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import msgspec

from apothic_server.domain.views import ItemRun
from apothic_server.services.runs import items_of

PIECE_BYTES = 64 * 1024
"""Events of single items are handed on by pieces of about this size."""

PACKED = "job.stream_items"
"""Kind of a packed event; its `id` is the index of its last item."""


def item_records(run: ItemRun) -> list[dict[str, Any]]:
    """Return one record per item, as in a page of events."""
    return [
        {"index": run.index + place, "event": run.kind, "data": _data(run, place, item)}
        for place, item in enumerate(items_of(run))
    ]


def item_pieces(run: ItemRun) -> Iterator[bytes]:
    """Return one server-sent event per item, several in each piece."""
    python = "null" if run.python is None else f'"{run.python}"'
    middle = f',"encoding":"{run.encoding}","python":{python},"item":'.encode()
    pieces: list[bytes] = []
    size = 0
    for place, item in enumerate(items_of(run)):
        text = _one_line(item) if run.encoding == "json" else b'"' + base64.b64encode(item) + b'"'
        pieces.append(
            b'id: %d\nevent: job.stream_item\ndata: {"attempt":%d,"ordinal":%d%b%b}\n\n'
            % (run.index + place, run.attempt, run.ordinal + place, middle, text)
        )
        size += len(pieces[-1])
        if size >= PIECE_BYTES:
            yield b"".join(pieces)
            pieces, size = [], 0
    if pieces:
        yield b"".join(pieces)


def packed_data(run: ItemRun) -> dict[str, Any]:
    """Return the data of a packed event: the items of a run as one array."""
    is_json = run.encoding == "json"
    items = msgspec.Raw(run.data) if is_json else [base64.b64encode(item).decode() for item in items_of(run)]
    return {
        "first_index": run.index,
        "attempt": run.attempt,
        "first_ordinal": run.ordinal,
        "encoding": run.encoding,
        "python": run.python,
        "items": items,
    }


def _data(run: ItemRun, place: int, item: bytes) -> dict[str, Any]:
    value = msgspec.Raw(item) if run.encoding == "json" else base64.b64encode(item).decode()
    return {
        "attempt": run.attempt,
        "ordinal": run.ordinal + place,
        "encoding": run.encoding,
        "python": run.python,
        "item": value,
    }


def _one_line(text: bytes) -> bytes:
    return text.replace(b"\r", b" ").replace(b"\n", b" ") if b"\n" in text or b"\r" in text else text
