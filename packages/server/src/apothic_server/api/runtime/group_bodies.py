"""The JSON bodies of requests about groups, read strictly."""

from __future__ import annotations

from typing import Any

from apothic.wire.limits import GROUP_ITEMS_MAX, GROUP_KEY_LENGTH_MAX
from apothic_server.api.shared.bodies import (
    as_array,
    as_object,
    check_storable,
    invalid_body,
    parse_json,
    unknown_fields,
)
from apothic_server.domain.errors import Invalid, problem
from apothic_server.domain.group_views import NewGroup

CANCELLED_AT_ONCE_MAX = 10_000
"""Items that one request names."""


def read_new_group(body: bytes) -> NewGroup:
    """Return what a group is to be like.

    Raises:
        Invalid: The body does not say.
    """
    data = _object(body, ("spread", "key", "stop_after"))
    spread, key, stop_after = data.get("spread", False), data.get("key"), data.get("stop_after")
    if type(spread) is not bool:
        raise _wrong("spread", "must be true or false", "wrong_type")
    if key is not None:
        if not isinstance(key, str):
            raise _wrong("key", "must be text", "wrong_type")
        check_storable(key, ["body", "key"])
        if not 1 <= len(key) <= GROUP_KEY_LENGTH_MAX:
            raise _wrong("key", f"must have 1 to {GROUP_KEY_LENGTH_MAX} characters", "out_of_range")
    if stop_after is not None:
        stop_after = _whole(stop_after, "stop_after", 1, GROUP_ITEMS_MAX)
    return NewGroup(spread, key, stop_after)


def read_total(body: bytes) -> int:
    """Return how many items a group is said to have.

    Raises:
        Invalid: The body does not say.
    """
    data = _object(body, ("total",))
    if "total" not in data:
        raise _wrong("total", "is required", "missing")
    return _whole(data["total"], "total", 0, GROUP_ITEMS_MAX)


def read_items(body: bytes) -> list[int] | None:
    """Return the numbers of some items, sorted, each once; None for all, which an empty body says too.

    Raises:
        Invalid: The body does not say.
    """
    items = _object(body, ("items",)).get("items") if body else None
    if items is None:
        return None
    numbers = as_array(items)
    if numbers is None:
        raise _wrong("items", "must be an array, or null", "wrong_type")
    if not numbers:
        raise _wrong("items", "must name an item", "too_short")
    if len(numbers) > CANCELLED_AT_ONCE_MAX:
        raise _wrong("items", f"must name {CANCELLED_AT_ONCE_MAX} items at most", "too_long")
    return sorted({_whole(number, "items", 0, GROUP_ITEMS_MAX - 1) for number in numbers})


def _whole(value: Any, field: str, low: int, high: int) -> int:
    if type(value) is not int:
        raise _wrong(field, "must be a whole number", "wrong_type")
    if not low <= value <= high:
        raise _wrong(field, f"must be from {low} to {high}", "out_of_range")
    return value


def _object(body: bytes, fields: tuple[str, ...]) -> dict[str, Any]:
    data = as_object(parse_json(body))
    if data is None:
        raise invalid_body("must be an object", "wrong_type")
    problems = unknown_fields(data, fields, ["body"])
    if problems:
        raise Invalid("The body is not valid.", problems=problems)
    return data


def _wrong(field: str, msg: str, kind: str) -> Invalid:
    return Invalid("The body is not valid.", problems=[problem(["body", field], msg, kind)])
