"""Batches of calls: a function that takes lists, called for several calls at once, and what it returned for each."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, cast


class ResultMismatch(ValueError):
    """What the function returned is no list with one result for each call."""


def columns(calls: Sequence[tuple[Sequence[Any], dict[str, Any]]]) -> tuple[list[list[Any]], dict[str, list[Any]]]:
    """Return the arguments of one call with lists: for each argument its values, in the order of the calls.

    Args:
        calls: Positional and named arguments of each, at least one call; all name the same ones.

    Raises:
        TypeError: They have no arguments, so nothing would say how many calls there are.
    """
    args, kwargs = calls[0]
    if not args and not kwargs:
        raise TypeError("a function with batching needs an argument in each call: it is called with lists of them")
    by_place = [[call[place] for call, _ in calls] for place in range(len(args))]
    return by_place, {name: [named[name] for _, named in calls] for name in kwargs}


def results_of(returned: Any, count: int) -> list[Any]:
    """Return the results of so many calls, in their order; an exception among them is the failure of its call.

    Raises:
        ResultMismatch: There are not so many, or it is no list.
    """
    if not isinstance(returned, list | tuple):
        kind = type(cast("object", returned)).__name__
        raise ResultMismatch(f"a function with batching returns a list with a result for each call, not a {kind}")
    results = list(cast("Sequence[Any]", returned))
    if len(results) != count:
        raise ResultMismatch(
            f"the function returned {len(results)} results for a batch of {count}; it must return one for each call, "
            "in the same order"
        )
    return results


def single(returned: Any) -> Any:
    """Return the result of a batch of one call, or raise its failure."""
    result = results_of(returned, 1)[0]
    if isinstance(result, Exception):
        raise result
    return result


async def single_later(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """As `single` for what an `async def` function returns."""
    return single(await coroutine)
