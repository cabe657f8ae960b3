"""Readiness: whether this process can do its work now, part by part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from apothic_server.domain.errors import PlatformError
from apothic_server.domain.views import Check
from apothic_server.services.dispatch.board import Board
from apothic_server.store.database import Database
from apothic_server.store.disk import MIB, Disk


class Stepping(Protocol):
    """A background loop, as far as readiness looks at it."""

    name: str

    def check(self) -> Check: ...


class Health:
    """Asks the store, the dispatcher and every loop."""

    def __init__(self, database: Database, board: Board, disk: Disk) -> None:
        self._database = database
        self._board = board
        self._disk = disk
        self.loops: Sequence[Stepping] = ()

    async def checks(self) -> dict[str, Check]:
        """Return all checks by name; ready means that all are ok."""
        found = {
            "store": await self._store(),
            "disk": self._room(),
            "dispatcher": self._dispatcher(),
            "worker": self._worker(),
        }
        return {**found, **{f"loop {loop.name}": loop.check() for loop in self.loops}}

    async def _store(self) -> Check:
        try:
            async with self._database.system_unit() as unit:
                await unit.fetchval("SELECT 1")
        except PlatformError as error:
            return Check(False, error.detail)
        return Check(True, "answers")

    def _room(self) -> Check:
        free = f"{self._disk.free_bytes // MIB:,} MiB free"
        if self._disk.takes_new:
            return Check(True, free)
        return Check(False, f"{free}: no new work is taken until there is room")

    @property
    def role(self) -> str:
        """`dispatcher`, or `standby`: a process that serves everything and grants nothing."""
        return "dispatcher" if self._board.dispatches else "standby"

    def _dispatcher(self) -> Check:
        if self._board.is_draining:
            return Check(False, "this process is stopping")
        if self._board.dispatches:
            return Check(True, f"dispatches in term {self._board.term}")
        return Check(True, "stands by: another server dispatches, or this one will within seconds")

    def _worker(self) -> Check:
        if not self._board.dispatches:
            return Check(True, "workers link to the server that dispatches")
        linked = sum(worker.is_linked for worker in self._board.fleet.workers.values())
        return Check(linked > 0, f"{linked} connected" if linked else "no worker is connected; jobs wait")
