"""Liveness: a heartbeat says that a worker's link lives, an echoed ping that orders reach its supervisor (G3.4)."""

from __future__ import annotations

import structlog

from apothic.wire.link import Heartbeat, Ping
from apothic_server.domain.fleet import Worker
from apothic_server.services.dispatch.board import Board

log = structlog.get_logger("apothic.liveness")

ECHO_S = 60.0
"""A worker that beats and has not echoed a ping for this long is impaired."""


class Liveness:
    """Pings workers and judges their echoes."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def linked(self, worker: Worker) -> None:
        """A link opened: what was asked on the one before is not answered any more."""
        worker.pings.clear()
        self._ping(worker)

    def beat(self, worker: Worker, item: Heartbeat) -> None:
        """Judge the echo of a heartbeat, and ask again."""
        now = self._board.clock.monotonic()
        if item.echo in worker.pings:
            for number in [number for number in worker.pings if number <= item.echo]:
                del worker.pings[number]
            if worker.is_impaired:
                worker.is_impaired = False
                log.info("worker.recovered", worker=worker.id, name=worker.name)
        oldest = min(worker.pings.values(), default=now)
        if now - oldest > ECHO_S:
            worker.is_impaired = True
            log.warning("worker.impaired", worker=worker.id, name=worker.name, silent_s=round(now - oldest))
            self._board.dial_again(worker, "orders do not reach the worker's supervisor; dial again")
        else:
            self._ping(worker)

    def _ping(self, worker: Worker) -> None:
        worker.pinged += 1
        worker.pings[worker.pinged] = self._board.clock.monotonic()
        self._board.send(worker, "ping", Ping(worker.pinged))
