"""From arguments to the bytes of a call, and from an outcome to a result or the right exception."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apothic import _serialize
from apothic._answers import Outcome
from apothic.errors import (
    ApothicError,
    JobCancelledError,
    JobTimeoutError,
    RemoteExecutionError,
    SerializationError,
    TooLargeError,
    remote_error,
)
from apothic.wire.values import Value

_main_modules: dict[str, str] = {}
_main_names: dict[str, frozenset[str]] = {}


def note_main_module(file: str, module: str) -> None:
    """Remember how runners call the module that runs here as `__main__`, and which names it has by now."""
    _main_modules[file] = module
    _main_names[file] = frozenset(vars(sys.modules["__main__"]))


def encode_call(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Value:
    """Return the encoded arguments of a call.

    Raises:
        SerializationError: An argument cannot be sent; the message names it.
        TooLargeError: The arguments are too large.
    """
    file = _main_file()
    try:
        return _serialize.encode_arguments(
            args, kwargs, main_alias=_main_modules.get(file), main_names=_main_names.get(file)
        )
    except (_serialize.ValueTooLarge, _serialize.NotSerializable) as error:
        raise _refused(error) from error.__cause__


def encode_item(item: Any, number: int) -> Value:
    """Return an encoded item to map over; errors as `encode_call`, naming the item by its number from 0."""
    file = _main_file()
    try:
        return _serialize.encode_item(
            item, number, main_alias=_main_modules.get(file), main_names=_main_names.get(file)
        )
    except (_serialize.ValueTooLarge, _serialize.NotSerializable) as error:
        raise _refused(error) from error.__cause__


def _refused(error: _serialize.ValueTooLarge | _serialize.NotSerializable) -> ApothicError:
    if isinstance(error, _serialize.ValueTooLarge):
        return TooLargeError(_sentence(error), code="value_too_large")
    return SerializationError(_sentence(error))


def result_of(outcome: Outcome, *, allow_pickle: bool) -> Any:
    """Return the result of a job that succeeded.

    Raises:
        RemoteExecutionError: User code failed.
        JobCancelledError: The job was cancelled.
        JobTimeoutError: The job exceeded a time limit of its own, named by `code`; `is_final` is True.
        SerializationError: The result cannot be read here.
    """
    if outcome.status == "succeeded":
        return None if outcome.value is None else decode(outcome.job_id, outcome.value, allow_pickle=allow_pickle)
    if outcome.status == "cancelled":
        raise JobCancelledError(f"{outcome.job_id} was cancelled.", job_id=outcome.job_id)
    if outcome.status == "timed_out":
        reason = outcome.error.message if outcome.error else "it ran longer than its timeout_s"
        code = outcome.error.code if outcome.error else None
        raise JobTimeoutError(f"{outcome.job_id} timed out: {reason}", job_id=outcome.job_id, is_final=True, code=code)
    if outcome.error is None:
        raise RemoteExecutionError("unknown", "the server sent no reason", job_id=outcome.job_id)
    raise remote_error(outcome.error, job_id=outcome.job_id)


def decode(job_id: str, value: Value, *, allow_pickle: bool) -> Any:
    """Return the object that a job's result encodes; SerializationError when it cannot be read here."""
    if value.encoding == "pickle" and not allow_pickle:
        raise SerializationError(
            f"The result of {job_id} is a pickle, which this client refuses to read (allow_pickle=False).",
            code="pickle_refused",
        )
    try:
        return _serialize.decode(value, main_alias=_main_alias() if value.encoding == "pickle" else None)
    except _serialize.PythonMismatch as error:
        raise SerializationError(f"The result of {job_id}: {error}.", code="python_mismatch") from None
    except Exception as error:
        raise SerializationError(
            f"The result of {job_id} cannot be read here: {type(error).__name__}: {error}", code="result_unreadable"
        ) from error


def _main_alias() -> str | None:
    """Return the name of `__main__` on runners: as deployed from this process, else the file's own name."""
    file = _main_file()
    return _main_modules.get(file, Path(file).stem) if file else None


def _main_file() -> str:
    return getattr(sys.modules.get("__main__"), "__file__", None) or ""


def _sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."
