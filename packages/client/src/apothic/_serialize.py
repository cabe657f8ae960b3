"""Encode and decode arguments and results: JSON when it round-trips exactly, else pickle protocol 5 by cloudpickle.

JSON is chosen only for values that come back equal and of equal types: dictionaries with text keys, lists, text without
lone surrogates, booleans, None, integers and finite floats, nested at most `JSON_DEPTH_MAX` deep. Tuples, subclasses,
NaN and everything else travel as pickle. Two references to one list come back as two equal lists.

This module runs in the SDK and in runners; the control plane never imports it (G19.3).
"""

from __future__ import annotations

import functools
import importlib
import io
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from types import CodeType, FunctionType
from typing import Any

from apothic.wire.compact_json import encoder, from_text
from apothic.wire.limits import JSON_DEPTH_MAX, MIB, VALUE_MAX
from apothic.wire.values import Value

PICKLE_PROTOCOL = 5
PYTHON_MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
"""`major.minor` of this interpreter, as `Value.python` states it."""

_INT_LIMIT = 1 << 2_000
"""Integers beyond it go as pickle: decimal conversion of long integers is bounded by the interpreter."""

_REASON_LENGTH_MAX = 500
_CONSTRUCTOR_ONLY = 2  # items of a reduction without a state
_SCALARS = frozenset((str, bool, float, type(None)))
_type: Callable[[object], type[object]] = type
_to_text = encoder(ensure_ascii=False, allow_nan=False)


class NotSerializable(Exception):
    """A value cannot be encoded; the message names the argument or the result, its type and the reason."""


class ValueTooLarge(Exception):
    """An encoded value exceeds `VALUE_MAX`."""


class PythonMismatch(Exception):
    """The value holds code or classes by value from another Python minor version, so it cannot be decoded here.

    Attributes:
        made_by: `major.minor` of the interpreter that encoded the value.
    """

    def __init__(self, made_by: str) -> None:
        super().__init__(
            f"the value holds functions or classes by value, made by Python {made_by}; this is Python {PYTHON_MINOR}. "
            "Use the same minor version on both sides, or define them in a module of the app"
        )
        self.made_by = made_by


def encode_arguments(
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    main_alias: str | None = None,
    main_names: Collection[str] | None = None,
) -> Value:
    """Encode the arguments of a call as `[args, kwargs]`.

    Args:
        args: Positional arguments; the container itself may be a tuple or a list.
        kwargs: Keyword arguments.
        main_alias: Module under which a runner imports the file that runs here as `__main__`. Classes and functions of
            that file then travel by name, so that the function gets instances of its own classes and `Mode.FAST` is
            `Mode.FAST`. When `__main__` is another file, they travel by value as without it.
        main_names: Top-level names that the module has there, for example those bound when the app was deployed; all
            others travel by value. None means all.

    Raises:
        NotSerializable: An argument cannot be pickled; the message names it by position (from 1) or keyword.
        ValueTooLarge: The encoded arguments exceed `VALUE_MAX`.
    """
    data = None
    if _all_round_trip(args, JSON_DEPTH_MAX - 2) and (not kwargs or _round_trips(kwargs, JSON_DEPTH_MAX - 1)):
        data = _json_of([list(args), dict(kwargs)])
    if data is not None:
        return Value("json", data if len(data) <= VALUE_MAX else _bounded(data, "the arguments"))
    buffer = _BoundedBuffer("the arguments")
    python = dump_arguments(args, kwargs, buffer, None, main_alias=main_alias, main_names=main_names)
    return Value("pickle", buffer.getvalue(), python)


def dump_arguments(
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    file: Any,
    on_buffer: Callable[[Any], None] | None,
    *,
    main_alias: str | None,
    main_names: Collection[str] | None,
) -> str | None:
    """Pickle `[args, kwargs]` into a file and return the Python it needs, None for any; else as `encode_arguments`.

    `on_buffer` takes each buffer out of band; None writes them into the file, whose `ValueTooLarge` passes through.
    """
    try:
        return _dump([list(args), dict(kwargs)], file, on_buffer, _MainNames.of(main_alias, main_names))
    except ValueTooLarge:
        raise
    except Exception as error:
        raise _refused_argument(args, kwargs, error) from error


def dump_result(result: object, file: Any, on_buffer: Callable[[Any], None] | None) -> str | None:
    """Pickle a result into a file; otherwise as `dump_arguments`."""
    try:
        return _dump(result, file, on_buffer)
    except ValueTooLarge:
        raise
    except Exception as error:
        raise NotSerializable(_refusal("the result", result, error)) from error


def encode_result(result: object) -> Value:
    """Encode what a function returned.

    Raises:
        NotSerializable: The result cannot be pickled.
        ValueTooLarge: The encoded result exceeds `VALUE_MAX`.
    """
    data = _encode_json(result)
    if data is not None:
        return Value("json", data if len(data) <= VALUE_MAX else _bounded(data, "the result"))
    buffer = _BoundedBuffer("the result")
    python = dump_result(result, buffer, None)
    return Value("pickle", buffer.getvalue(), python)


def encode_item(
    item: object, ordinal: int, *, main_alias: str | None = None, main_names: Collection[str] | None = None
) -> Value:
    """Encode what a generator yielded, or an item to map over; errors as `encode_result`, naming it by its number.

    Args:
        ordinal: Its number, from 0.
        main_alias, main_names: As for `encode_arguments`.
    """
    data = _encode_json(item)
    if data is not None and len(data) <= VALUE_MAX:
        return Value("json", data)
    what = f"item {ordinal}"
    if data is not None:
        _bounded(data, what)
    try:
        return _encode_pickle(item, what, _MainNames.of(main_alias, main_names))
    except ValueTooLarge:
        raise
    except Exception as error:
        raise NotSerializable(_refusal(what, item, error)) from error


def decode(value: Value, *, main_alias: str | None = None) -> Any:
    """Return the object that `value` encodes. Pickles run code of their maker: decode only what may be trusted.

    Args:
        value: What `encode_arguments` or `encode_result` made.
        main_alias: Module under which a runner imports the file that runs here as `__main__`. When `__main__` is that
            file, names of the module are taken from `__main__`, so that results hold the caller's own classes and the
            script is not imported a second time. When it is another file, nothing is mapped.

    Raises:
        PythonMismatch: The value needs another Python minor version.
        ValueError: The encoding is unknown or the JSON is broken.
        Exception: Whatever unpickling raises, for example `ModuleNotFoundError` for a class that is not here.
    """
    if value.encoding == "json":
        return from_text(value.data.decode())
    if value.encoding != "pickle":
        raise ValueError(f"unknown encoding {value.encoding!r}")
    return load(io.BytesIO(value.data), None, value.python, main_alias=main_alias)


def load(file: Any, buffers: Any, python: str | None, *, main_alias: str | None = None) -> Any:
    """Return the object whose pickle a file has, and its buffers out of band, None for none; else as `decode`."""
    if python is not None and python != PYTHON_MINOR:
        raise PythonMismatch(python)
    if main_alias is not None and main_alias != "__main__" and _main_is(main_alias):
        return _alias_unpickler()(file, main_alias, buffers).load()
    import pickle

    return pickle.Unpickler(file, buffers=buffers).load()  # noqa: S301 (values come from the caller's own org, D5)


def _encode_json(value: object) -> bytes | None:
    if type(value) is int and -_INT_LIMIT < value < _INT_LIMIT:
        return b"%d" % value
    return _json_of(value) if _round_trips(value, JSON_DEPTH_MAX) else None


def _json_of(value: object) -> bytes | None:
    try:
        return _to_text(value).encode()
    except ValueError:  # NaN, an infinity, a lone surrogate
        return None


def _round_trips(value: Any, depth: int) -> bool:
    kind = _type(value)
    if kind in _SCALARS:
        return kind is not str or len(value) <= VALUE_MAX
    if kind is int:
        return -_INT_LIMIT < value < _INT_LIMIT
    if depth == 0:
        return False
    if kind is list:
        return _SCALARS.issuperset(map(type, value)) or _all_round_trip(value, depth - 1)
    if kind is dict:
        return not value or (set(map(type, value)) <= {str} and _all_round_trip(value.values(), depth - 1))
    return False


def _all_round_trip(values: Any, depth: int) -> bool:
    for value in values:
        if type(value) is int:  # without a call, as most arguments are few
            if not -_INT_LIMIT < value < _INT_LIMIT:
                return False
        elif not _round_trips(value, depth):
            return False
    return True


def _bounded(data: bytes, what: str) -> bytes:
    if len(data) > VALUE_MAX:
        raise ValueTooLarge(
            f"{what} cannot be sent: {_spaced(len(data))} bytes when encoded, of at most {_spaced(VALUE_MAX)}"
        )
    return data


def _spaced(number: int) -> str:
    return f"{number:,}".replace(",", " ")


@dataclass(frozen=True)
class _MainNames:
    """Names of `__main__` that are sent as names of module `alias`."""

    alias: str
    names: Collection[str] | None

    @staticmethod
    def of(alias: str | None, names: Collection[str] | None) -> _MainNames | None:
        return _MainNames(alias, names) if alias is not None and _main_is(alias) else None

    def reduced(self, obj: Any) -> tuple[Any, ...] | None:
        """Return how to find `obj` by name in a runner, or None when it has no name there."""
        if obj.__module__ != "__main__" or (
            self.names is not None and obj.__qualname__.split(".")[0] not in self.names
        ):
            return None
        try:
            found = attrgetter(obj.__qualname__)(sys.modules["__main__"])
        except AttributeError:  # a local one, or bound under another name
            return None
        return (named_object, (self.alias, obj.__qualname__)) if found is obj else None


def named_object(module: str, qualname: str) -> Any:
    """Return an object of an imported module by its name; pickles made with `main_alias` call this."""
    return attrgetter(qualname)(importlib.import_module(module))


def _encode_pickle(value: object, what: str, main: _MainNames | None = None) -> Value:
    buffer = _BoundedBuffer(what)
    python = _dump(value, buffer, None, main)
    return Value("pickle", buffer.getvalue(), python)


def _dump(
    value: object, file: Any, on_buffer: Callable[[Any], None] | None, main: _MainNames | None = None
) -> str | None:
    pickler = _pickler()(file, protocol=PICKLE_PROTOCOL, buffer_callback=on_buffer)
    pickler.main = main
    pickler.dump(value)
    return PYTHON_MINOR if pickler.holds_code else None


class _BoundedBuffer(io.BytesIO):
    """Stops a pickler as soon as the value is too large, instead of filling the memory first."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what

    def write(self, data: Any, /) -> int:
        if self.tell() + memoryview(data).nbytes > VALUE_MAX:
            raise ValueTooLarge(
                f"{self._what} cannot be sent: more than the {VALUE_MAX // MIB} MiB that a value may have"
            )
        return super().write(data)


@functools.cache
def _pickler() -> Any:
    cloudpickle: Any = importlib.import_module("cloudpickle")
    base: Any = cloudpickle.Pickler
    inherited: Callable[[Any, Any], Any] = base.reducer_override

    class Pickler(base):
        """Notes whether it wrote code or a class by value: only such pickles need an equal interpreter."""

        holds_code = False
        main: _MainNames | None = None

        def reducer_override(self, obj: Any) -> Any:
            if self.main is not None and isinstance(obj, (type, FunctionType)):
                by_name = self.main.reduced(obj)
                if by_name is not None:
                    return by_name
            reduced = inherited(self, obj)
            if isinstance(obj, FunctionType):
                self.holds_code |= reduced is not NotImplemented
            elif isinstance(obj, type):
                # A class by value carries a state; a class by reference is NotImplemented or a bare constructor call.
                self.holds_code |= reduced is not NotImplemented and len(reduced) > _CONSTRUCTOR_ONLY
            elif isinstance(obj, CodeType):
                self.holds_code = True
            return reduced

    return Pickler


@functools.cache
def _alias_unpickler() -> Any:
    import pickle

    class AliasUnpickler(pickle.Unpickler):
        """Reads one module's names from `__main__`."""

        def __init__(self, data: Any, alias: str, buffers: Any) -> None:
            super().__init__(data, buffers=buffers)
            self._alias = alias

        def find_class(self, module_name: str, global_name: str, /) -> Any:
            return super().find_class("__main__" if module_name == self._alias else module_name, global_name)

    return AliasUnpickler


def _main_is(module: str) -> bool:
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:  # started by `python -m`
        return spec.name in (module, f"{module}.__main__")
    from pathlib import Path

    file = getattr(main, "__file__", None)
    if not file:
        return False
    parts = Path(file).resolve().with_suffix("").parts
    names = tuple(module.split("."))
    return parts[-len(names) :] == names or parts[-len(names) - 1 :] == (*names, "__init__")


def _refused_argument(args: Sequence[Any], kwargs: Mapping[str, Any], error: Exception) -> NotSerializable:
    named = [(f"argument {index}", item) for index, item in enumerate(args, 1)]
    named += [(f"argument {name!r}", item) for name, item in kwargs.items()]
    for name, item in named:
        try:
            _encode_pickle(item, name)
        except ValueTooLarge:
            continue
        except Exception as reason:
            return NotSerializable(_refusal(name, item, reason))
    return NotSerializable(f"the arguments cannot be sent: {_reason(error)}")


def _refusal(name: str, item: object, error: Exception) -> str:
    kind = type(item)
    return f"{name} of type {kind.__module__}.{kind.__qualname__} cannot be sent: {_reason(error)}"


def _reason(error: Exception) -> str:
    try:
        return str(error)[:_REASON_LENGTH_MAX] or type(error).__name__
    except Exception:
        return type(error).__name__
