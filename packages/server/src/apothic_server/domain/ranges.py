"""Sets of whole numbers as ranges, from low to below high: which items a reader has not got yet."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

END = 2**31 - 1
"""No number of an item is as great."""

Range = tuple[int, int]


class Missing:
    """The numbers from `first` on that were not taken yet."""

    def __init__(self, first: int) -> None:
        self._ranges: list[Range] = [(first, END)]

    def all(self) -> list[Range]:
        """Return what is missing, in order."""
        return list(self._ranges)

    def within(self, ranges: Iterable[Range]) -> list[Range]:
        """Return what of `ranges` is missing, in order, each number once."""
        return [part for low, high in merged(ranges) for part in self._parts(low, high)]

    def take(self, low: int, high: int) -> None:
        """Numbers from `low` to below `high` are missing no more."""
        start = max(bisect_right(self._ranges, (low, END)) - 1, 0)
        stop = start
        left: list[Range] = []
        while stop < len(self._ranges) and self._ranges[stop][0] < high:
            begin, end = self._ranges[stop]
            left += [part for part in ((begin, min(end, low)), (max(begin, high), end)) if part[0] < part[1]]
            stop += 1
        self._ranges[start:stop] = left

    def _parts(self, low: int, high: int) -> list[Range]:
        start = max(bisect_right(self._ranges, (low, END)) - 1, 0)
        found: list[Range] = []
        for begin, end in self._ranges[start:]:
            if begin >= high:
                break
            if end > low:
                found.append((max(begin, low), min(end, high)))
        return found


def merged(ranges: Iterable[Range]) -> list[Range]:
    """Return the same numbers in order, in ranges that do not touch each other."""
    found: list[Range] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], high))
        else:
            found.append((low, high))
    return found


def without(part: Range, numbers: Iterable[int]) -> list[Range]:
    """Return a range without single numbers, which are given in order."""
    found: list[Range] = []
    low, high = part
    for number in numbers:
        if low <= number < high:
            if low < number:
                found.append((low, number))
            low = number + 1
    if low < high:
        found.append((low, high))
    return found
