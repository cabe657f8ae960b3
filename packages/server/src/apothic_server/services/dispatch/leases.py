"""Leases: when a worker counts as lost, by this process's own clock alone (G3.3, G3.5).

The store says which incarnations live; how long they may be silent is counted here, on monotonic time that goes on
while the machine sleeps. Wall time decides nothing, so no step of it ends a lease. And silence counts only while this
process listened: after a start, a new term, a sleep, a freeze or an outage of the store every lease gets a full grace.
"""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from apothic.wire.ids import IncarnationId
from apothic_server.services.dispatch.board import Board

log = structlog.get_logger("apothic.leases")

PASS_S = 2.0
"""Seconds between two looks at the leases."""

STEP_S = 5.0
"""A look that comes later than it should by more than this, or clocks that went apart so far since the last one."""


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

    def over(self, live: Iterable[IncarnationId]) -> list[IncarnationId]:
        """Return the incarnations whose lease is over; `live` are those that the store calls live."""
        for incarnation in live:
            self.meet(incarnation)
        now, workers = self._board.clock.monotonic(), self._board.fleet.workers
        silent = [worker.id for worker in workers.values() if worker.lease_expires_at <= now]
        for incarnation in [met for met in self._absent if met in workers]:
            del self._absent[incarnation]
        return [*silent, *(met for met, until in self._absent.items() if until <= now)]

    def forget(self, incarnation: IncarnationId) -> None:
        """Its lease has ended."""
        self._absent.pop(incarnation, None)

    def _clocks(self) -> tuple[float, float]:
        clock = self._board.clock
        return clock.now().timestamp(), clock.monotonic()
