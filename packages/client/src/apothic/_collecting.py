"""From the outcomes of a group's items to what `map` and its like return, by what is wished for items that fail."""

from __future__ import annotations

import json
from typing import Any

from apothic._core import Core
from apothic._groups import GroupInfo
from apothic._ranges import wrong
from apothic._results import decode
from apothic.errors import (
    ApothicError,
    JobCancelledError,
    JobTimeoutError,
    ProtocolError,
    RemoteExecutionError,
    SerializationError,
    remote_error,
)
from apothic.wire import chunks
from apothic.wire.runner import error_from_json
from apothic.wire.values import RemoteError, Value

ON_ERRORS = ("raise", "collect", "drop")
_JSON, _PICKLE, _ERROR = b"jpe"
_LIMITS = frozenset({"timeout", "queue_timeout", "startup_timeout", "deadline_exceeded"})
"""Codes of errors by which items ran out of time."""

_from_text = json.JSONDecoder().decode
_GONE: Any = object()
"""Stands in a list where no value is."""


class Collector:
    """Decodes outcomes and keeps what is wished of them.

    Args:
        errors: `raise` the failure of the item with the smallest number; `collect` errors in the place of values;
            `drop` items that failed.
        keeps: Whether values are kept at all; else only failures count.

    Attributes:
        failures: How many items have failed.
        group_id: Id of the group; set once it is known.
    """

    def __init__(self, core: Core, errors: str, *, keeps: bool = True) -> None:
        self.failures = 0
        self.group_id = ""
        self._core = core
        self._errors = errors
        self._keeps = keeps
        self._values: list[Any] = []
        self._first: tuple[bool, int, ApothicError] | None = None

    def take(self, number: int, entry: bytes, python: str | None) -> None:
        """Take the outcome of one item."""
        if not self._keeps and entry[:1] != chunks.ERROR:
            return
        try:
            value = value_of(self._core, self.group_id, number, entry, python)
        except (SerializationError, JobCancelledError, JobTimeoutError, RemoteExecutionError) as error:
            self.fail(number, error)
        else:
            self._place(number, value)

    def fail(self, number: int, error: ApothicError) -> None:
        """Take that an item has no value."""
        self.failures += 1
        if self._errors == "collect":
            self._place(number, error)
        elif self._errors == "raise":
            rank = isinstance(error, JobCancelledError), number
            if self._first is None or rank < self._first[:2]:
                self._first = (*rank, error)

    def result(self) -> list[Any]:
        """Return the values by the numbers of their items.

        Raises:
            ApothicError: An item failed, and that is to be raised.
        """
        if self._first is not None:
            raise told(self._first[2], self.failures)
        return [value for value in self._values if value is not _GONE] if self.failures else self._values

    def _place(self, number: int, value: Any) -> None:
        values = self._values
        if number == len(values):
            values.append(value)
            return
        if number > len(values):
            values.extend([_GONE] * (number + 1 - len(values)))
        values[number] = value


def value_of(core: Core, group_id: str, number: int, entry: bytes, python: str | None) -> Any:
    """Return the value of an item.

    Raises:
        RemoteExecutionError, JobCancelledError, JobTimeoutError: It has none, because it ended so.
        SerializationError: Its value cannot be read here.
        ValueError: The entry is malformed.
    """
    kind = entry[0] if entry else 0
    if kind == _JSON:
        return _from_text(entry[1:].decode())
    if kind == _PICKLE:
        try:
            return decode(job_of(group_id, number), Value("pickle", entry[1:], python), allow_pickle=core.allow_pickle)
        except SerializationError as error:
            error.item = number
            raise
    if kind != _ERROR:
        raise ValueError("an outcome of an unknown kind")
    raise item_error(group_id, number, error_from_json(_from_text(entry[1:].decode())))


def item_error(group_id: str, number: int, error: RemoteError) -> ApothicError:
    """Return the exception for an item that ended with an error."""
    job_id = job_of(group_id, number)
    made: ApothicError
    if error.code == "cancelled":
        made = JobCancelledError(f"{job_id} was cancelled.", job_id=job_id)
    elif error.code in _LIMITS:
        text = f"{job_id} timed out: {error.message}"
        made = JobTimeoutError(text, job_id=job_id, is_final=True, code=error.code)
    else:
        made = remote_error(error, job_id=job_id)
    made.item = number
    return made


def ended_error(group: GroupInfo, number: int) -> ApothicError:
    """Return the exception for an item that its group ended before."""
    if group.error is None or group.status == "cancelled":
        return item_error(group.id, number, RemoteError("", "", code="cancelled"))
    try:
        return item_error(group.id, number, error_from_json(group.error))
    except (KeyError, TypeError, AttributeError) as error:
        raise ProtocolError(f"The error of {group.id} does not fit: {error}.") from error


def told(error: ApothicError, failures: int) -> ApothicError:
    """Return the error, told how many other items have failed."""
    add_note = getattr(error, "add_note", None)  # not in Python 3.10
    if add_note is not None and failures > 1:
        add_note(f'{failures - 1} more items have no value; errors="collect" returns all errors.')
    return error


def job_of(group_id: str, number: int) -> str:
    """Return the id of the job that an item is."""
    return f"jobs:{group_id.partition(':')[2]}.{number}"


def checked_errors(errors: Any, allowed: tuple[str, ...] = ON_ERRORS) -> str:
    """Return `errors`; InvalidRequestError when it is none of the allowed."""
    if errors not in allowed:
        raise wrong("errors", errors, f"one of {', '.join(allowed)}")
    return errors
