"""Builds frozen dataclasses from decoded JSON, strictly typed; fields that are not known here are left out."""

from __future__ import annotations

import functools
import types
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from apothic.errors import ProtocolError

T = TypeVar("T")


def build(kind: type[T], data: Any) -> T:
    """Return `data` as an instance of the dataclass `kind`.

    Raises:
        ProtocolError: A field is missing or has another type than declared.
    """
    return cast("T", _build(kind, data, kind.__name__))


def _build(kind: Any, data: Any, place: str) -> Any:
    if not isinstance(data, dict):
        raise _unfit(place, kind)
    given = cast("dict[str, Any]", data)
    values: dict[str, Any] = {}
    hints = _hints(kind)
    for field in fields(kind):
        if field.name in given:
            values[field.name] = _value(hints[field.name], given[field.name], f"{place}.{field.name}")
        elif field.default is MISSING and field.default_factory is MISSING:
            raise _unfit(f"{place}.{field.name}", hints[field.name])
    return kind(**values)


@functools.cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind)


def _value(hint: Any, data: Any, place: str) -> Any:
    origin = get_origin(hint)
    if hint is Any:
        return data
    if origin in {Union, types.UnionType}:
        return _optional(hint, data, place)
    if origin in {tuple, list}:
        return _sequence(hint, origin, data, place)
    if origin is dict:
        return _mapping(hint, data, place)
    if is_dataclass(hint):
        return _build(hint, data, place)
    return _scalar(hint, data, place)


def _optional(hint: Any, data: Any, place: str) -> Any:
    if data is None:
        return None
    inner = next(part for part in get_args(hint) if part is not type(None))
    return _value(inner, data, place)


def _sequence(hint: Any, origin: Any, data: Any, place: str) -> Any:
    if not isinstance(data, list):
        raise _unfit(place, hint)
    inner = get_args(hint)[0]
    return origin(_value(inner, entry, f"{place}[]") for entry in cast("list[Any]", data))


def _mapping(hint: Any, data: Any, place: str) -> Any:
    if not isinstance(data, dict):
        raise _unfit(place, hint)
    inner = get_args(hint)[1]
    return {key: _value(inner, entry, f"{place}.{key}") for key, entry in cast("dict[str, Any]", data).items()}


def _scalar(hint: Any, data: Any, place: str) -> Any:
    if hint is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if type(data) is not hint:
        raise _unfit(place, hint)
    return data


def _unfit(place: str, kind: Any) -> ProtocolError:
    return ProtocolError(f"The server's answer does not fit: {place} must be {getattr(kind, '__name__', kind)}.")
