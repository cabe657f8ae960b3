"""Checks of one option each: the value has the right type and range, else a sentence says what is allowed."""

from __future__ import annotations

import math
from typing import Any, cast

from apothic.errors import InvalidRequestError


def whole(name: str, value: Any, low: int, high: int) -> int:
    """Return `value` when it is a whole number from `low` to `high`; a bool is none."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise wrong(name, value, f"a whole number from {low:,} to {high:,}")
    return value


def number(name: str, value: Any, low: float, high: float = math.inf) -> float:
    """Return `value` as a float when it is a finite number from `low` to `high`; a bool is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not _within(value, low, high):
        top = f" to {high:,g}" if high != math.inf else " up"
        raise wrong(name, value, f"a finite number from {low:,g}{top}")
    return float(value)


def seconds(name: str, value: Any) -> float:
    """Return `value` as a float when it is 0 or more; infinity means without a limit."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value) or value < 0:
        raise wrong(name, value, "a number of seconds, 0 or more")
    return float(value)


def flag(name: str, value: Any) -> bool:
    """Return `value` when it is True or False."""
    if not isinstance(value, bool):
        raise wrong(name, value, "True or False")
    return value


def texts(name: str, value: Any) -> list[str]:
    """Return one text or a list of texts as a list; none may be empty."""
    entries: list[Any] = cast("list[Any]", value) if isinstance(value, list) else [value]
    if not entries or not all(isinstance(entry, str) and entry for entry in entries):
        raise wrong(name, value, "a text or a list of texts, none empty")
    return [str(entry) for entry in entries]


def wrong(name: str, value: Any, allowed: str) -> InvalidRequestError:
    """Return the error for a parameter, naming what was given and what is allowed."""
    given = repr(value)
    shown = given if len(given) <= 80 else f"{given[:77]}…"
    return InvalidRequestError(f"{name}: {shown} ({type(value).__name__}) is not allowed; it must be {allowed}")


def _within(value: float, low: float, high: float) -> bool:
    try:
        return math.isfinite(value) and low <= value <= high
    except OverflowError:
        return False
