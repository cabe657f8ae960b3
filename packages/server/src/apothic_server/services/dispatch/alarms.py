"""Which unfinished jobs may run into a time limit next, without looking at all of them."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping

from apothic.wire.ids import JobId
from apothic_server.services.dispatch.live import LiveJob

STALE_MAX = 1_024
"""Entries of the heap beyond twice the number of jobs; more, and it is built anew."""


class Alarms:
    """A heap with at most one valid entry per job: the earliest moment at which to look at it.

    An entry that comes too early is harmless, so a job whose limit moves away keeps its entry, and the usual short job
    makes one.

    Args:
        jobs: The unfinished jobs; entries of others are dropped when met.
    """

    def __init__(self, jobs: Mapping[JobId, LiveJob]) -> None:
        self._jobs = jobs
        self._heap: list[tuple[float, JobId]] = []

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def next_at(self) -> float:
        """Monotonic seconds of the earliest entry; infinity without one."""
        return self._heap[0][0] if self._heap else math.inf

    def set(self, job: LiveJob, at: float) -> bool:
        """Have `job` looked at by `at`, and say whether that is earlier than everything else."""
        if job.alarm_at <= at:
            return False
        is_first = at < self.next_at
        job.alarm_at = at
        heapq.heappush(self._heap, (at, job.id))
        if len(self._heap) > 2 * len(self._jobs) + STALE_MAX:
            self._rebuild()
        return is_first

    def take_due(self, now: float) -> list[LiveJob]:
        """Return the jobs to look at by `now`, in the order of their times; they have no entry any more."""
        due: list[LiveJob] = []
        while self._heap and self._heap[0][0] <= now:
            at, job_id = heapq.heappop(self._heap)
            job = self._jobs.get(job_id)
            if job is not None and job.alarm_at == at:
                job.alarm_at = math.inf
                due.append(job)
        return due

    def _rebuild(self) -> None:
        self._heap = [(job.alarm_at, job.id) for job in self._jobs.values() if job.alarm_at < math.inf]
        heapq.heapify(self._heap)
