"""Records of the batching writer as rows of its statements (`sql/writer.sql`).

Rows are made when a flush takes them, each in one pass over the records that were folded into it. A flush sends its
rows as one JSON document: for the driver that is a single parameter, which costs a fifth of an array per column.
Values, which are bytes, travel beside the document in arrays of their own. A flush of one new job, which is what a call
alone needs, is sent without a document: `lone_arguments`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from apothic_server.domain.groups import ITEMS, SPREAD, Slice
from apothic_server.domain.idempotency import KeyRow, RequestKey
from apothic_server.domain.jobs import LETTERS, ItemSegment, JobChange, NewItems, NewJob, StoredValue, StreamEvent

_STATUS_OF = {letter: status.word for status, letter in LETTERS.items()}
_SHORT = frozenset({"job.queued", "job.status", "job.running", "job.result", "job.end"})
"""Kinds of events whose data nobody outside chooses."""

_SHORT_SIZE = 128
_ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_json = msgspec.json.Encoder()


class UnwritableRecord(ValueError):
    """A record that no store accepts: NUL or a lone surrogate in what user code wrote, no event, no items."""


class Columns(msgspec.Struct, omit_defaults=True):
    """What the document says of one row; a column that is None stays as it is, or empty."""

    id: str
    org: str
    event_count: int = -1
    app: str | None = None
    deployment: str | None = None
    function: str | None = None
    status: str | None = None
    path: str | None = None
    expect_status: str | None = None
    expect_fence: int | None = None
    attempt: int | None = None
    fence: int | None = None
    losses: int | None = None
    worker: str | None = None
    term: int | None = None
    run_at: datetime | None = None
    arguments_blob: str | None = None
    arguments_encoding: str | None = None
    arguments_python: str | None = None
    result_blob: str | None = None
    result_encoding: str | None = None
    result_python: str | None = None
    error: dict[str, Any] | None = None
    created_by: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    retry_of: str | None = None
    parent: str | None = None
    depth: int | None = None
    waited_fence: int | None = None
    group_id: str | None = None
    first_item: int | None = None
    chunk_items: int | None = None
    chunk_done: int | None = None
    failed_items: tuple[int, ...] | None = None
    overlays: str | None = None
    guard_term: int | None = None
    key_digest: str | None = None
    key_fingerprint: str | None = None
    key_status: int | None = None
    key_body: str | None = None
    key_at: datetime | None = None
    events: list[StreamEvent] = []


class Row:
    """One row write.

    Attributes:
        arguments, result: Inline values, beside the document.
    """

    __slots__ = ("arguments", "columns", "result")

    def __init__(self, columns: Columns, arguments: bytes | None = None) -> None:
        self.columns = columns
        self.arguments = arguments
        self.result: bytes | None = None


def row_of(first: NewJob | JobChange, later: Sequence[JobChange] = ()) -> Row:
    """Return the row write of a record and of those that follow it exactly: of each column the last value wins."""
    if type(first) is NewJob:
        row = _new_row(first)
    else:
        expected = first.expect_status.word
        columns = Columns(first.job, first.org, expect_status=expected, expect_fence=first.expect_fence, events=[])
        row = Row(columns)
        _apply(row, first)
    for change in later:
        _apply(row, change)
    row.columns.event_count = len(row.columns.events)
    return row


def size_of(record: NewJob | JobChange | NewItems) -> int:
    """Return about how many bytes a record keeps in memory and sends to the store.

    Raises:
        UnwritableRecord: The record cannot be stored.
    """
    if type(record) is NewItems:
        if not record.segments:
            raise UnwritableRecord("a record of items needs at least one")
        return 512 + sum([len(segment.data) for segment in record.segments])
    value = record.arguments if type(record) is NewJob else record.fields.result
    size = 512 if value is None else 512 + len(value.value.data)
    # A change without an event could not be told from one that was never written (`find_flush`), and none exists: every
    # change of a job is announced in its stream. The row of a chunk says itself which flush wrote it.
    if record.is_chunk == bool(record.events):
        raise UnwritableRecord("a record needs at least one event, that of a chunk none")
    for event in record.events:
        size += _SHORT_SIZE if event.kind in _SHORT else len(_checked(event.data))
    return size


def document(rows: Sequence[Row]) -> str:
    """Return the JSON document of `rows`, in their order."""
    return _json.encode([row.columns for row in rows]).decode()


def lone_arguments(row: Row, flush: int) -> tuple[Any, ...] | None:
    """Return the parameters of `insert_job`, or None when the row has a column that the statement does not fill."""
    its = row.columns
    if (
        its.retry_of is not None
        or its.parent is not None
        or its.group_id is not None
        or its.error is not None
        or its.losses is not None
        or its.run_at is not None
        or its.arguments_blob is not None
        or its.result_blob is not None
    ):
        return None
    events = its.events
    return (
        its.id, its.org, its.app, its.deployment, its.function, its.status, its.path,
        its.attempt or 0, its.fence or 0, its.worker, its.term,
        row.arguments, its.arguments_encoding, its.arguments_python, row.result, its.result_encoding, its.result_python,
        its.event_count, its.created_by, its.created_at, its.started_at, its.finished_at,
        its.guard_term, its.key_digest, its.key_fingerprint,
        [event.kind for event in events], [event.at for event in events], [_text(event.data) for event in events],
        flush,
    )  # fmt: skip


def items_arguments(records: Sequence[NewItems]) -> list[Any]:
    """Return the parameters of `append_items` for these records: the document, then an array per column of segments."""
    parts: list[tuple[int, ItemSegment]] = []
    inside: list[dict[str, object]] = []
    for place, record in enumerate(records):
        first = record.segments[0]
        inside.append(
            {
                "place": place,
                "id": record.job,
                "org": record.org,
                "expect_status": record.expect_status.word,
                "expect_fence": record.expect_fence,
                "attempt": first.attempt,
                "first_ordinal": first.first_ordinal,
                "item_count": sum([segment.count for segment in record.segments]),
                "item_bytes": sum([len(segment.data) for segment in record.segments]),
            }
        )
        parts += [(place, segment) for segment in record.segments]
    return [
        _text(inside),
        [place for place, _ in parts],
        [part.first_ordinal for _, part in parts],
        [part.count for _, part in parts],
        [part.at for _, part in parts],
        [part.encoding for _, part in parts],
        [part.python for _, part in parts],
        [part.data for _, part in parts],
    ]


def _new_row(record: NewJob) -> Row:
    stored = record.arguments
    columns = Columns(
        record.id,
        record.org,
        app=record.app,
        deployment=record.deployment,
        function=record.function,
        status="queued",
        path="nq",
        arguments_encoding=stored.value.encoding,
        arguments_python=stored.value.python,
        created_by=record.created_by,
        created_at=record.created_at,
        retry_of=record.retry_of,
        guard_term=record.term,
        events=[*record.events],
    )
    if record.key is not None:
        _add_key(columns, record.key)
    if record.parent is not None:
        columns.parent, columns.depth, columns.waited_fence = record.parent, record.depth, record.waited_fence
    if record.covers is not None:
        _add_slice(columns, record.covers)
        return Row(columns)
    columns.arguments_blob = stored.blob
    return Row(columns, stored.value.data if stored.blob is None else None)


def _apply(row: Row, change: JobChange) -> None:
    """Add a change to the row that it follows."""
    columns, path, fields = row.columns, change.path, change.fields
    columns.events += change.events
    if path:
        columns.path = path if columns.path is None else columns.path + path[1:]
        columns.status = _STATUS_OF.get(path[-1])
    if change.term is not None:
        columns.guard_term = change.term
    if change.key is not None:
        _add_key(columns, change.key)
        columns.key_at = change.events[-1].at if change.events else None
        if change.key.answer is not None:
            columns.key_status, columns.key_body = change.key.answer.status, _bytea(change.key.answer.body)
    for name in _FIELDS:
        value = getattr(fields, name)
        if value is not None:
            setattr(columns, name, value)
    if fields.result is not None:
        _add_result(row, fields.result)


_FIELDS = (
    "attempt", "fence", "losses", "worker", "term", "run_at", "started_at", "finished_at", "error",
    "chunk_items", "chunk_done", "failed_items",
)  # fmt: skip


def _add_result(row: Row, stored: StoredValue) -> None:
    row.columns.result_encoding, row.columns.result_python = stored.value.encoding, stored.value.python
    if stored.blob is None:
        row.result = stored.value.data
    else:
        row.columns.result_blob = stored.blob


def _add_key(columns: Columns, key: RequestKey | KeyRow) -> None:
    columns.key_digest, columns.key_fingerprint = _bytea(key.digest), _bytea(key.fingerprint)


def _bytea(data: bytes) -> str:
    return f"\\x{data.hex()}"


def _add_slice(columns: Columns, covers: Slice) -> None:
    columns.group_id, columns.first_item = covers.group, covers.first
    columns.arguments_encoding = SPREAD if covers.spread else ITEMS
    if covers.is_chunk:
        columns.chunk_items = covers.count
    columns.overlays = covers.overlays


def _text(value: object) -> str:
    return _json.encode(value).decode()


def _checked(value: object) -> bytes:
    try:
        text = _json.encode(value)
    except (UnicodeEncodeError, TypeError, ValueError, RecursionError) as error:
        raise UnwritableRecord(f"data that is no JSON: {error}") from error
    if b"\\u0000" in text and _ESCAPED_NUL.search(text.decode()):
        raise UnwritableRecord("text with a NUL character")
    return text
