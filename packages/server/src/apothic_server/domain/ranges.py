"""Sets of items as ranges, from low to below high."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

END = 2**31 - 1
"""No number of an item is as great."""

Range = tuple[int, int]
"""First item, and the one after the last."""


class Ranges:
    """A set of items as ranges, in order, none empty and none touching another."""

    def __init__(self, ranges: list[Range] | None = None) -> None:
        self._ranges: list[Range] = []
        self.items = 0
        for begin, end in ranges or ():
            self.add(begin, end)

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def __iter__(self) -> Iterator[Range]:
        return iter(self._ranges)

    @property
    def lowest(self) -> Range:
        """The first range; there must be one."""
        return self._ranges[0]

    def add(self, begin: int, end: int) -> None:
        """Put the items from `begin` to below `end` in; none of them may be there."""
        if begin >= end:
            return
        self.items += end - begin
        at = bisect_left(self._ranges, (begin, begin))
        if at < len(self._ranges) and self._ranges[at][0] == end:
            end = self._ranges.pop(at)[1]
        if at and self._ranges[at - 1][1] == begin:
            at -= 1
            begin = self._ranges.pop(at)[0]
        self._ranges.insert(at, (begin, end))

    def remove(self, begin: int, end: int) -> None:
        """Take items out; those that are not there are left alone."""
        if begin >= end:
            return
        at = max(0, bisect_right(self._ranges, (begin, begin)) - 1)
        while at < len(self._ranges) and self._ranges[at][0] < end:
            low, high = self._ranges[at]
            rest = [part for part in ((low, min(high, begin)), (max(low, end), high)) if part[0] < part[1]]
            self.items -= high - low - sum(part[1] - part[0] for part in rest)
            self._ranges[at : at + 1] = rest
            at += len(rest)

    def next_from(self, item: int) -> int | None:
        """Return the lowest item that is not below `item`; None without one."""
        at = bisect_right(self._ranges, (item, item))
        if at and self._ranges[at - 1][1] > item:
            return max(item, self._ranges[at - 1][0])
        return self._ranges[at][0] if at < len(self._ranges) else None

    def has(self, item: int) -> bool:
        return self.next_from(item) == item

    def within(self, ranges: Iterable[Range]) -> list[Range]:
        """Return what of `ranges` is in the set, in order, each item once."""
        return [part for low, high in merged(ranges) for part in self._parts(low, high)]

    def _parts(self, low: int, high: int) -> list[Range]:
        found: list[Range] = []
        at = max(bisect_right(self._ranges, (low, END)) - 1, 0)
        while at < len(self._ranges) and self._ranges[at][0] < high:
            begin, end = self._ranges[at]
            if end > low:
                found.append((max(begin, low), min(end, high)))
            at += 1
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
