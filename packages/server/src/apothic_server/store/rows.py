"""Records of the batching writer as rows of its statements (`sql/writer.sql`).

A row is a mapping from column to value without the columns that stay empty. A flush sends its rows as one JSON
document: for the driver that is a single parameter, which costs a fifth of an array per column. Values, which are
bytes, travel beside the document in arrays of their own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from apothic_server.domain.groups import ITEMS, SPREAD, Slice
from apothic_server.domain.idempotency import KeyRow, RequestKey
from apothic_server.domain.jobs import (
    LETTERS,
    NEW,
    ItemSegment,
    JobChange,
    JobFields,
    JobStatus,
    NewItems,
    NewJob,
    StoredValue,
    StreamEvent,
)

Row: TypeAlias = dict[str, Any]

ARGUMENTS, RESULT, EVENTS = "arguments", "result", "events"
"""Columns outside of the document, and the column whose text is encoded already."""

SEGMENTS = "segments"
"""What a row of items holds beside its document: `ItemSegment`s."""

_STATUS_OF = {letter: status.value for status, letter in LETTERS.items()}
_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_json = msgspec.json.Encoder()


class UnwritableRecord(ValueError):
    """A record that no store accepts: NUL or a lone surrogate in text, no event, an unknown path."""


def new_row(record: NewJob) -> Row:
    """Return the row that inserts a job as queued.

    Raises:
        UnwritableRecord: The record cannot be stored.
    """
    value = record.arguments.value
    row: Row = {
        "id": record.id,
        "org": record.org,
        "app": record.app,
        "deployment": record.deployment,
        "function": record.function,
        "status": JobStatus.QUEUED.value,
        "path": NEW + LETTERS[JobStatus.QUEUED],
        "arguments_encoding": value.encoding,
        "created_by": record.created_by,
        "created_at": record.created_at,
    }
    if value.python is not None:
        row["arguments_python"] = value.python
    if record.key is not None:
        _add_key(row, record.key)
    if record.retry_of is not None:
        row["retry_of"] = record.retry_of
    if record.parent is not None:
        row |= {"parent": record.parent, "depth": record.depth, "waited_fence": record.waited_fence}
    if record.term is not None:
        row["guard_term"] = record.term
    if record.covers is None:
        _add_value(row, ARGUMENTS, record.arguments)
    else:
        _add_slice(row, record.covers)
    _check_texts(row)
    _add_events(row, record.events, is_chunk=record.covers is not None and record.covers.is_chunk)
    return row


def change_row(record: JobChange) -> Row:
    """Return the row that changes a job.

    Raises:
        UnwritableRecord: The record cannot be stored.
    """
    row: Row = {
        "id": record.job,
        "org": record.org,
        "expect_status": record.expect_status.value,
        "expect_fence": record.expect_fence,
    }
    if record.term is not None:
        row["guard_term"] = record.term
    if record.path:
        row["path"], row["status"] = record.path, _STATUS_OF.get(record.path[-1])
    if record.key is not None:
        _add_key(row, record.key)
        row["key_at"] = record.events[-1].at if record.events else None
        if record.key.answer is not None:
            row["key_status"], row["key_body"] = record.key.answer.status, _bytea(record.key.answer.body)
    if row.get("status", "") is None:
        raise UnwritableRecord(f"path {record.path!r} of job {record.job} ends in no status")
    _add_fields(row, record.fields)
    _check_texts(row)
    _add_events(row, record.events, is_chunk=record.is_chunk)
    return row


def items_row(record: NewItems) -> Row:
    """Return the row that appends items to a job's stream.

    Raises:
        UnwritableRecord: There are none.
    """
    if not record.segments:
        raise UnwritableRecord("a record of items needs at least one")
    first = record.segments[0]
    return {
        "id": record.job,
        "org": record.org,
        "expect_status": record.expect_status.value,
        "expect_fence": record.expect_fence,
        "attempt": first.attempt,
        "first_ordinal": first.first_ordinal,
        "item_count": sum(segment.count for segment in record.segments),
        "item_bytes": sum(len(segment.data) for segment in record.segments),
        SEGMENTS: record.segments,
    }


def items_arguments(rows: Sequence[Row]) -> list[Any]:
    """Return the parameters of `append_items` for these rows: the document, then an array per column of segments."""
    inside = [
        {"place": place, **{name: row[name] for name in row if name != SEGMENTS}} for place, row in enumerate(rows)
    ]
    parts: list[tuple[int, ItemSegment]] = [(place, part) for place, row in enumerate(rows) for part in row[SEGMENTS]]
    return [
        _json.encode(inside).decode(),
        [place for place, _ in parts],
        [part.first_ordinal for _, part in parts],
        [part.count for _, part in parts],
        [part.at for _, part in parts],
        [part.encoding for _, part in parts],
        [part.python for _, part in parts],
        [part.data for _, part in parts],
    ]


def merge(row: Row, later: Row) -> None:
    """Fold the change `later` into `row`: paths and events are joined, of each field the later value wins."""
    between = "," if row["event_count"] and later["event_count"] else ""
    joined = {
        "event_count": row["event_count"] + later["event_count"],
        EVENTS: f"{row[EVENTS][:-1]}{between}{later[EVENTS][1:]}",
    }
    if "path" in row and "path" in later:
        joined["path"] = row["path"] + later["path"][1:]
    expected = {name: row[name] for name in ("expect_status", "expect_fence") if name in row}
    row.update(later)
    if not expected:
        del row["expect_status"], row["expect_fence"]
    row.update(expected)
    row.update(joined)


def document(rows: Sequence[Row]) -> str:
    """Return the JSON document of `rows`, in their order."""
    outside = (ARGUMENTS, RESULT)
    inside = [
        {name: value for name, value in row.items() if name not in outside}
        | {EVENTS: msgspec.Raw(row[EVENTS].encode())}
        for row in rows
    ]
    return _json.encode(inside).decode()


def size_of(row: Row) -> int:
    """Return about how many bytes a row keeps in memory and sends to the store."""
    if SEGMENTS in row:
        return 512 + sum(len(segment.data) for segment in row[SEGMENTS])
    values = len(row.get(ARGUMENTS) or b"") + len(row.get(RESULT) or b"")
    return 512 + values + len(row[EVENTS])


def _add_fields(row: Row, fields: JobFields) -> None:
    for name in _PLAIN_FIELDS:
        value = getattr(fields, name)
        if value is not None:
            row[name] = value
    if fields.error is not None:
        row["error"] = msgspec.Raw(_json_text(fields.error).encode())
    if fields.result is not None:
        row["result_encoding"] = fields.result.value.encoding
        if fields.result.value.python is not None:
            row["result_python"] = fields.result.value.python
        _add_value(row, RESULT, fields.result)


_PLAIN_FIELDS = (
    "attempt", "fence", "losses", "worker", "term", "run_at", "started_at", "finished_at",
    "chunk_items", "chunk_done", "failed_items",
)  # fmt: skip


def _add_key(row: Row, key: RequestKey | KeyRow) -> None:
    row["key_digest"], row["key_fingerprint"] = _bytea(key.digest), _bytea(key.fingerprint)


def _bytea(data: bytes) -> str:
    return f"\\x{data.hex()}"


def _add_value(row: Row, name: str, stored: StoredValue) -> None:
    if stored.blob is None:
        row[name] = stored.value.data
    else:
        row[f"{name}_blob"] = stored.blob


def _add_slice(row: Row, covers: Slice) -> None:
    row |= {"group_id": covers.group, "first_item": covers.first}
    row["arguments_encoding"] = SPREAD if covers.spread else ITEMS
    if covers.is_chunk:
        row["chunk_items"] = covers.count
    if covers.overlays is not None:
        row["overlays"] = covers.overlays


def _add_events(row: Row, events: tuple[StreamEvent, ...], *, is_chunk: bool) -> None:
    # A change without an event could not be told from one that was never written (`find_flush`), and none exists: every
    # change of a job is announced in its stream. The row of a chunk says itself which flush wrote it.
    if is_chunk == bool(events):
        raise UnwritableRecord("a record needs at least one event, that of a chunk none")
    if not events:
        row[EVENTS], row["event_count"] = "[]", 0
        return
    row[EVENTS] = _json_text(events)
    row["event_count"] = len(events)


def _json_text(value: object) -> str:
    try:
        text = _json.encode(value).decode()
    except (UnicodeEncodeError, TypeError, ValueError, RecursionError) as error:
        raise UnwritableRecord(f"data that is no JSON: {error}") from error
    if "\\u0000" in text and _ESCAPED_NUL.search(text):
        raise UnwritableRecord("text with a NUL character")
    return text


def _check_texts(row: Row) -> None:
    text = "".join([value for value in row.values() if isinstance(value, str)])
    if "\x00" in text:
        raise UnwritableRecord("text with a NUL character")
    if not text.isascii() and _SURROGATE.search(text):
        raise UnwritableRecord("text with a lone surrogate")
