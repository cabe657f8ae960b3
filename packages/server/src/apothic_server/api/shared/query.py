"""Query parameters: strictly parsed once, then read by name as numbers with bounds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from urllib.parse import unquote_to_bytes

from apothic_server.domain.errors import Invalid, problem

_EMPTY: dict[str, str] = {}
_WHOLE = re.compile(r"-?[0-9]{1,19}")
_DECIMAL = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_SHOWN_MAX = 64


def parse_query(raw: bytes, allowed: frozenset[str]) -> dict[str, str]:
    """Return the parameters of a query string; each may stand once.

    Raises:
        Invalid: A parameter is unknown, stands twice, is no UTF-8 or holds a NUL.
    """
    if not raw:
        return _EMPTY
    found: dict[str, str] = {}
    for part in raw.split(b"&"):
        name, _, value = part.partition(b"=")
        key, text = _decode(name), _decode(value)
        if key not in allowed:
            raise refusal(key, f"is no parameter of this operation; it knows {_listed(allowed)}", "unknown_parameter")
        if key in found:
            raise refusal(key, "stands more than once", "repeated_parameter")
        if "\0" in text:
            raise refusal(key, "holds text with a NUL", "text_invalid")
        found[key] = text
    return found


def whole_number(query: Mapping[str, str], name: str, low: int, high: int, default: int) -> int:
    """Return a whole number from `low` to `high`, or `default` when it is not given.

    Raises:
        Invalid: It is something else.
    """
    text = query.get(name)
    if text is None:
        return default
    if not _WHOLE.fullmatch(text) or not low <= int(text) <= high:
        raise refusal(name, f"must be a whole number from {low} to {high}", "out_of_range")
    return int(text)


def seconds(query: Mapping[str, str], name: str, high: float, default: float) -> float:
    """Return a number from 0 to `high`, or `default` when it is not given.

    Raises:
        Invalid: It is something else.
    """
    text = query.get(name)
    if text is None:
        return default
    value = float(text) if _DECIMAL.fullmatch(text) else math.inf
    if value > high:
        raise refusal(name, f"must be a number of seconds from 0 to {high:g}", "out_of_range")
    return value


def moment(query: Mapping[str, str], name: str) -> datetime | None:
    """Return a time with its zone, or None when it is not given.

    Raises:
        Invalid: It is none, has no zone, or is before 1970.
    """
    text = query.get(name)
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
        is_good = at.tzinfo is not None and at.timestamp() >= 0
    except (ValueError, OverflowError):
        is_good, at = False, None
    if not is_good:
        raise refusal(name, "must be a time after 1970 with its zone, such as 2026-01-31T12:00:00Z", "time_invalid")
    return at


def truth(query: Mapping[str, str], name: str) -> bool:
    """Return whether a parameter says `true`; without it False.

    Raises:
        Invalid: It is something else than `true` or `false`.
    """
    text = query.get(name)
    if text not in (None, "true", "false"):
        raise refusal(name, "must be true or false", "boolean")
    return text == "true"


def refusal(name: str, msg: str, kind: str) -> Invalid:
    """Return the error about one parameter."""
    return Invalid(f"Query parameter: {msg}.", problems=[problem(["query", name[:_SHOWN_MAX]], msg, kind)])


def _decode(raw: bytes) -> str:
    try:
        return unquote_to_bytes(raw.replace(b"+", b" ")).decode()
    except UnicodeDecodeError:
        raise Invalid(
            "The query is not UTF-8.", problems=[problem(["query"], "is not UTF-8", "encoding_invalid")]
        ) from None


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names)) or "none"
