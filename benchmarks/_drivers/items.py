"""The items of the map benchmark, as every contender gets them. Standard library only: drivers run in the environments
of the contenders.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

LOOKS = 100
LOGS_EACH, FAILS_EACH = 100, 1_000


def work(x: int) -> int:
    """Return the item; one in a hundred writes a line, one in a thousand fails."""
    if x % LOGS_EACH == 7:
        print("item", x)
    if fails(x):
        raise ValueError(f"item {x} fails")
    return x


def fails(x: int) -> bool:
    """Return whether an item fails."""
    return x % FAILS_EACH == 500


def mapped(
    run: Callable[[Sequence[int]], Iterable[Any]], look: Callable[[list[int]], object] | None = None
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return the request that maps `work` over as many new items as it asks for and looks at some of them afterwards.

    Args:
        run: Gives the outcome of each item in their order: the value, or an exception.
        look: Asks what became of the items with these numbers; None where nobody can be asked.
    """
    firsts = itertools.count(0, 1_000_000)

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        count, first = request["items"], next(firsts)
        numbers = range(first, first + count)
        chosen = random.Random(first).sample(range(count), min(LOOKS, count))
        began = time.perf_counter()
        _check(numbers, list(run(numbers)))
        items_s = time.perf_counter() - began
        if look is not None:
            look(chosen)
        return {"seconds": time.perf_counter() - began, "items_s": items_s}

    return answer


def _check(numbers: Sequence[int], found: list[Any]) -> None:
    if len(found) != len(numbers):
        raise RuntimeError(f"{len(found)} outcomes of {len(numbers)} items")
    for number, value in zip(numbers, found, strict=True):
        if not (isinstance(value, BaseException) if fails(number) else value == number):
            raise RuntimeError(f"item {number} became {value!r}")
