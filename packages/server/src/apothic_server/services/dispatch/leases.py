"""Leases: when a worker counts as lost, by this process's own clock alone (G3.3, G3.5).

The store says which incarnations live; how long they may be silent is counted here, on monotonic time that goes on
while the machine sleeps. Wall time decides nothing, so no step of it ends a lease. And silence counts only while this
process listened: after a start, a new term, a sleep, a freeze or an outage of the store every lease gets a full grace.

The grace is that of the cloud, or of the function (`disconnect_grace_s`): a silent worker may lose one attempt and keep
another. It is lost itself, and its row ended, when the last one of its attempts is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog

from apothic.wire.ids import IncarnationId
from apothic.wire.lease import HEARTBEATS, heartbeat_of
from apothic_server.domain.fleet import Worker
from apothic_server.services.dispatch.board import Board
from apothic_server.services.dispatch.live import LiveJob

log = structlog.get_logger("apothic.leases")

PASS_S = 2.0
"""Seconds between two looks at the leases."""

STEP_S = 5.0
"""A look that comes later than it should by more than this, or clocks that went apart so far since the last one."""


@dataclass(frozen=True, slots=True)
class Over:
    """What is over by now.

    Attributes:
        incarnations: Nothing of theirs is leased any more.
        attempts: Jobs whose attempt is over on a worker that is not.
        silent: Those workers in memory, and others whose own lease is over while attempts of theirs go on.
    """

    incarnations: list[IncarnationId] = field(default_factory=list[IncarnationId])
    attempts: list[LiveJob] = field(default_factory=list[LiveJob])
    silent: list[Worker] = field(default_factory=list[Worker])


class Leases:
    """The leases of all workers: of those in memory theirs, of others one grace since they were met."""

    def __init__(self, board: Board, grace_s: float) -> None:
        self._board = board
        self._grace_s = grace_s
        self._absent: dict[IncarnationId, float] = {}
        self._looked: tuple[float, float] | None = None

    def meet(self, incarnation: IncarnationId) -> None:
        """Count from now on for an incarnation that holds an attempt, unless it is counted already."""
        if incarnation not in self._board.fleet.workers:
            self._absent.setdefault(incarnation, self._board.clock.monotonic() + self._grace_s)

    def begin_look(self) -> None:
        """Start a look at the leases: after an interruption every one of them gets a full grace."""
        before, now = self._looked, self._clocks()
        if before is None:
            return
        wall_s, elapsed_s = now[0] - before[0], now[1] - before[1]
        if elapsed_s > PASS_S + STEP_S or abs(wall_s - elapsed_s) > STEP_S:
            log.warning("leases.interrupted", elapsed_s=round(elapsed_s, 1), wall_s=round(wall_s, 1))
            self.extend_all()

    def end_look(self) -> None:
        """The look is done, the store has answered: count on from here."""
        self._looked = self._clocks()

    def extend_all(self) -> None:
        """Give every lease a full grace from now on."""
        until = self._board.clock.monotonic() + self._grace_s
        for worker in self._board.fleet.workers.values():
            worker.lease_expires_at = max(worker.lease_expires_at, until)
        for incarnation in self._absent:
            self._absent[incarnation] = until

    def over(self, live: Iterable[IncarnationId]) -> Over:
        """Return what has been silent for too long; `live` are the incarnations that the store calls live."""
        for incarnation in live:
            self.meet(incarnation)
        now, workers = self._board.clock.monotonic(), self._board.fleet.workers
        for incarnation in [met for met in self._absent if met in workers]:
            del self._absent[incarnation]
        until = {worker.id: worker.lease_expires_at for worker in workers.values()} | self._absent
        shortest_s = min(self._grace_s, HEARTBEATS * heartbeat_of(self._grace_s))
        until = {met: at for met, at in until.items() if at - self._grace_s + shortest_s <= now}
        if not until:
            return Over()
        kept, late = self._attempts_of(until, now)
        lost = [met for met, at in until.items() if at <= now and met not in kept]
        late = [job for job in late if job.worker not in lost]
        silent = {met for met in kept if until[met] <= now} | {job.worker for job in late}
        return Over(lost, late, [worker for worker in workers.values() if worker.id in silent])

    def _attempts_of(self, until: dict[IncarnationId, float], now: float) -> tuple[set[IncarnationId], list[LiveJob]]:
        """Return those incarnations that keep an attempt, and the jobs whose attempt is over."""
        kept: set[IncarnationId] = set()
        late: list[LiveJob] = []
        for job in self._board.jobs.values():
            at = until.get(IncarnationId(job.worker)) if job.worker is not None and job.is_granted else None
            if at is None or job.worker is None:
                continue
            if at - self._grace_s + self._board.grace_of(job) <= now:
                late.append(job)
            else:
                kept.add(IncarnationId(job.worker))
        return kept, late

    def forget(self, incarnation: IncarnationId) -> None:
        """Its lease has ended."""
        self._absent.pop(incarnation, None)

    def _clocks(self) -> tuple[float, float]:
        clock = self._board.clock
        return clock.now().timestamp(), clock.monotonic()
