"""Whether a job can ever end, when jobs wait for each other and for the places of full functions (G2.7).

A job *moves* when something can still happen to it: it executes and waits for no job that is stuck, or it waits for a
place that is free or that a moving job holds. What never moves is stuck. The search begins with nothing moving and adds
until nothing more can be added, so a circle of jobs that only wait for each other is stuck.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from apothic.wire.ids import JobId
from apothic_server.domain.decide.placement import Need

JOBS_MAX = 1_000
"""Jobs looked at in one search; with more of them a job counts as moving."""

LINKS_MAX = 10_000
"""Waits and places between those jobs, likewise: a search costs no more than some milliseconds."""


@dataclass(frozen=True, slots=True)
class Knot:
    """An unfinished job as the search sees it.

    Attributes:
        need: What it waits for a place of; None while it executes.
        awaits: Jobs that it waits for.
    """

    need: Need | None
    awaits: Collection[JobId]


Look = Callable[[JobId], Knot | None]
"""Returns an unfinished job, None for one that has ended."""

Holders = Callable[[Need], Collection[JobId] | None]
"""Returns who holds the places of a full function; None while it has a free one."""


def is_stuck(job: JobId, look: Look, holders: Holders) -> bool:
    """Return whether `job` can never end, because all it depends on waits for it or for others that are stuck."""
    return _Search(look, holders).is_stuck(job)


class _Search:
    def __init__(self, look: Look, holders: Holders) -> None:
        self._look = look
        self._holders = holders
        self._needed: dict[JobId, int] = {}
        self._waiters: dict[JobId, list[JobId]] = {}
        self._moving: list[JobId] = []

    def is_stuck(self, job: JobId) -> bool:
        if not self._explore(job):
            return False
        done: set[JobId] = set()
        while self._moving:
            key = self._moving.pop()
            if key in done:
                continue
            if key == job:
                return False
            done.add(key)
            for waiter in self._waiters.get(key, ()):
                self._needed[waiter] -= 1
                if not self._needed[waiter]:
                    self._moving.append(waiter)
        return True

    def _explore(self, job: JobId) -> bool:
        """Find all that `job` depends on, and who waits for whom; false when that is too much."""
        todo, seen, links = [job], {job}, 0
        while todo:
            key = todo.pop()
            knot = self._look(key)
            depends = None if knot is None else self._depends(knot)
            if knot is None or depends is None or (knot.need is None and not depends):
                self._moving.append(key)
                continue
            links += len(depends)
            if len(seen) > JOBS_MAX or links > LINKS_MAX:
                return False
            depends = set(depends)
            self._needed[key] = len(depends) if knot.need is None else 1
            for other in depends:
                self._waiters.setdefault(other, []).append(key)
            todo.extend(depends - seen)
            seen |= depends
        return True

    def _depends(self, knot: Knot) -> Collection[JobId] | None:
        """Return the jobs it waits for, all of them, or those of which one has to free a place; none when it moves."""
        return knot.awaits if knot.need is None else self._holders(knot.need)
