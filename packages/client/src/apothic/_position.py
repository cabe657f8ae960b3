"""Where a reader of events begins, from what users may say about it."""

from __future__ import annotations

from typing import Any, NamedTuple

from apothic._ranges import flag, whole, wrong
from apothic.errors import InvalidRequestError
from apothic.streams import EVENT_TYPES, INDEX_MAX, JobStreamCheckpoint, JobStreamCursor, checked_types


class Position(NamedTuple):
    """Where to begin and what to let pass.

    Attributes:
        last_index: The last index already seen; -1 for none.
        event_types: The filter; empty for every event.
        snapshot: Begin with a snapshot and go on behind it, whatever `last_index` says.
    """

    last_index: int = -1
    event_types: tuple[str, ...] = ()
    snapshot: bool = False


def position(
    job_id: str | None,
    *,
    snapshot: Any = False,
    checkpoint: Any = None,
    cursor: Any = None,
    last_index: Any = None,
    event_types: Any = None,
    known: tuple[str, ...] = EVENT_TYPES,
) -> Position:
    """Return where to begin. A filter that is given wins over the one of a checkpoint.

    Args:
        job_id: The job; None for other streams, which have no checkpoints.
        known: Names of the events that the stream can have.

    Raises:
        InvalidRequestError: More than one place is given, one is malformed, or the checkpoint is of another job.
    """
    given = [name for name, value in _places(checkpoint, cursor, last_index) if value is not None]
    if len(given) > 1:
        raise InvalidRequestError(f"{' and '.join(given)} are given; give at most one place to begin at.")
    flag("snapshot", snapshot)
    types = checked_types(event_types, known)
    if checkpoint is not None:
        found = _checkpoint(job_id, checkpoint)
        return Position(found.last_index, found.event_types if event_types is None else types, snapshot)
    return Position(_index(cursor, last_index), types, snapshot)


def _places(checkpoint: Any, cursor: Any, last_index: Any) -> tuple[tuple[str, Any], ...]:
    return (("checkpoint", checkpoint), ("cursor", cursor), ("last_index", last_index))


def _checkpoint(job_id: str | None, checkpoint: Any) -> JobStreamCheckpoint:
    if not isinstance(checkpoint, JobStreamCheckpoint):
        raise wrong("checkpoint", checkpoint, "a JobStreamCheckpoint")
    if checkpoint.job_id != job_id:
        raise InvalidRequestError(f"The checkpoint is of {checkpoint.job_id}, not of {job_id}.")
    return checkpoint


def _index(cursor: Any, last_index: Any) -> int:
    if cursor is not None:
        if not isinstance(cursor, JobStreamCursor):
            raise wrong("cursor", cursor, "a JobStreamCursor")
        return cursor.last_index
    return -1 if last_index is None else whole("last_index", last_index, -1, INDEX_MAX)
