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
        self._knots: dict[JobId, Knot] = {}
        self._held_by: dict[JobId, Collection[JobId]] = {}
        self._moving: set[JobId] = set()

    def is_stuck(self, job: JobId) -> bool:
        if not self._explore(job):
            return False
        while job not in self._moving:
            found = {other for other in self._knots.keys() - self._moving if self._moves(other)}
            if not found:
                return True
            self._moving |= found
        return False

    def _explore(self, job: JobId) -> bool:
        """Find all that `job` depends on; false when that is too much."""
        todo = [job]
        while todo:
            if len(self._knots) > JOBS_MAX:
                return False
            key = todo.pop()
            if key in self._knots or key in self._moving:
                continue
            knot = self._look(key)
            holders = self._holders(knot.need) if knot is not None and knot.need is not None else ()
            if knot is None or holders is None or (knot.need is None and not knot.awaits):
                self._moving.add(key)
                continue
            self._knots[key], self._held_by[key] = knot, holders
            todo.extend(knot.awaits if knot.need is None else holders)
        return True

    def _moves(self, job: JobId) -> bool:
        knot = self._knots[job]
        if knot.need is not None:
            return any(holder in self._moving for holder in self._held_by[job])
        return all(awaited in self._moving for awaited in knot.awaits)
