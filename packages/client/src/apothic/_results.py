"""From arguments to the bytes of a call, and from an outcome to a result or the right exception."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apothic import _serialize
from apothic._answers import Outcome
from apothic._core import Core
from apothic._steps import Steps
from apothic._transfers import downloaded
from apothic.errors import (
    ApothicError,
    JobCancelledError,
    JobTimeoutError,
    ProtocolError,
    RemoteExecutionError,
    SerializationError,
    TooLargeError,
    remote_error,
)
from apothic.wire.large import LARGE, Reference
from apothic.wire.values import Value

if TYPE_CHECKING:
    from apothic._large import LargeBody

_main_modules: dict[str, str] = {}
_main_names: dict[str, frozenset[str]] = {}


def note_main_module(file: str, module: str) -> None:
    """Remember how runners call the module that runs here as `__main__`, and which names it has by now."""
    _main_modules[file] = module
    _main_names[file] = frozenset(vars(sys.modules["__main__"]))


def encode_call(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Value | LargeBody:
    """Return the encoded arguments of a call; large ones have to be uploaded and must not change until then.

    Raises:
        SerializationError: An argument cannot be sent; the message names it.
        TooLargeError: The arguments are too large.
    """
    file = _main_file()
    alias, names = _main_modules.get(file), _main_names.get(file)
    try:
        return _serialize.encode_arguments(args, kwargs, main_alias=alias, main_names=names)
    except _serialize.ValueTooLarge:
        return _encode_large(args, kwargs, alias, names)
    except _serialize.NotSerializable as error:
        raise _refused(error) from error.__cause__


def _encode_large(
    args: Sequence[Any], kwargs: Mapping[str, Any], alias: str | None, names: Collection[str] | None
) -> LargeBody:
    from apothic._large import encode_large_arguments

    try:
        return encode_large_arguments(args, kwargs, main_alias=alias, main_names=names)
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


def received(core: Core, outcome: Outcome) -> Steps[Any]:
    """Return the result of a job that succeeded, which may have to be fetched; errors as `result_of`."""
    value = outcome.value
    if outcome.status != "succeeded" or value is None or value.encoding != LARGE:
        return result_of(outcome, allow_pickle=core.allow_pickle)
    _check_pickle(outcome.job_id, value, allow_pickle=core.allow_pickle)
    try:
        reference = Reference.parse(value.data)
    except ValueError as error:
        raise ProtocolError(f"The server's answer does not fit: {error}.") from None
    descriptor = yield from downloaded(core, reference)
    return decode(outcome.job_id, value, allow_pickle=core.allow_pickle, descriptor=descriptor)


def result_of(outcome: Outcome, *, allow_pickle: bool) -> Any:
    """Return the result of a job that succeeded and has no large one.

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


def decode(job_id: str, value: Value, *, allow_pickle: bool, descriptor: int | None = None) -> Any:
    """Return the object that a job's result encodes; SerializationError when it cannot be read here.

    `descriptor` is the file of a large one, closed here.
    """
    _check_pickle(job_id, value, allow_pickle=allow_pickle)
    try:
        if descriptor is not None:
            from apothic._large import decode_large

            return decode_large(descriptor, value, main_alias=_main_alias())
        return _serialize.decode(value, main_alias=_main_alias() if value.encoding == "pickle" else None)
    except _serialize.PythonMismatch as error:
        raise SerializationError(f"The result of {job_id}: {error}.", code="python_mismatch") from None
    except Exception as error:
        raise SerializationError(
            f"The result of {job_id} cannot be read here: {type(error).__name__}: {error}", code="result_unreadable"
        ) from error


def _check_pickle(job_id: str, value: Value, *, allow_pickle: bool) -> None:
    if value.encoding != "json" and not allow_pickle:
        raise SerializationError(
            f"The result of {job_id} is a pickle, which this client refuses to read (allow_pickle=False).",
            code="pickle_refused",
        )


def _main_alias() -> str | None:
    """Return the name of `__main__` on runners: as deployed from this process, else the file's own name."""
    file = _main_file()
    return _main_modules.get(file, Path(file).stem) if file else None


def _main_file() -> str:
    return getattr(sys.modules.get("__main__"), "__file__", None) or ""


def _sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."
