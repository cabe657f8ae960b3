"""What `--payload` and `--data` may be: JSON itself, `@FILE`, or `-` for standard input."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any, NoReturn, cast

from apothic.errors import InvalidRequestError, TooLargeError
from apothic.wire.limits import VALUE_MAX
from apothic.wire.values import Value

EXAMPLE = """'{"args": ["world"], "kwargs": {}}'"""


def read_text(source: str) -> str:
    """Return the text that an option's value stands for.

    Raises:
        InvalidRequestError: The file cannot be read or is not UTF-8.
    """
    if source == "-":
        return sys.stdin.read()
    if not source.startswith("@"):
        return source
    try:
        return Path(source[1:]).read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidRequestError(f"Cannot read {source[1:]}: {error.strerror}.", code="file_unreadable") from None
    except ValueError:
        raise InvalidRequestError(f"Cannot read {source[1:]}: it is not UTF-8.", code="file_unreadable") from None


def arguments(source: str | None) -> Value:
    """Return the arguments that a payload holds, encoded; none at all without a payload.

    Raises:
        InvalidRequestError: The payload is no JSON object with `args` (a list), `kwargs` (an object) or both.
        TooLargeError: The arguments exceed `VALUE_MAX`.
    """
    args, kwargs = _split(read_text(source)) if source is not None else ([], {})
    data = json.dumps([args, kwargs], separators=(",", ":"), allow_nan=False).encode("utf-8")
    if len(data) > VALUE_MAX:
        raise TooLargeError(
            f"The arguments have {len(data)} bytes; at most {VALUE_MAX} are allowed.", code="value_too_large"
        )
    return Value("json", data)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:32]} is too large a number")
    return number


def _split(text: str) -> tuple[list[Any], dict[str, Any]]:
    try:
        payload: Any = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        _refuse(f"it is not JSON: {error}")
    if not isinstance(payload, dict):
        _refuse(f"it is a JSON {_kind(payload)}")
    fields = cast("dict[str, Any]", payload)
    unknown = sorted(set(fields) - {"args", "kwargs"})
    if unknown:
        _refuse(f"it has the unknown key {unknown[0]!r}")
    args, kwargs = fields.get("args", []), fields.get("kwargs", {})
    if not isinstance(args, list):
        _refuse(f"`args` is a JSON {_kind(args)}")
    if not isinstance(kwargs, dict):
        _refuse(f"`kwargs` is a JSON {_kind(kwargs)}")
    return cast("list[Any]", args), cast("dict[str, Any]", kwargs)


def _refuse(why: str) -> NoReturn:
    raise InvalidRequestError(
        f"The payload must be a JSON object with a list `args`, an object `kwargs`, or both; {why}. Example: {EXAMPLE}",
        code="payload_invalid",
    )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _kind(value: Any) -> str:
    names = {"dict": "object", "list": "list", "str": "string", "bool": "boolean", "NoneType": "null"}
    return names.get(type(value).__name__, "number")
