"""What operators order of enrolled workers, carried out by the process that dispatches: no new work, or no link."""

from __future__ import annotations

from apothic.wire.ids import EnrolledId
from apothic_server.domain.fleet import Worker
from apothic_server.services.dispatch.board import Board
from apothic_server.services.dispatch.grants import Grants
from apothic_server.store import enrolment as rows
from apothic_server.store.database import Database
from apothic_server.store.enrolment import Order

REMOVED = "this worker was removed from the cloud"


class Cordons:
    """Keeps memory as the rows say; `refresh` finds what was ordered through another process."""

    def __init__(self, database: Database, board: Board, grants: Grants) -> None:
        self._database = database
        self._board = board
        self._grants = grants

    async def refresh(self) -> None:
        """Read what was ordered of the workers that are linked, and carry it out."""
        enrolled = {worker.enrolled for worker in self._board.fleet.workers.values() if worker.enrolled is not None}
        if not enrolled:
            return
        async with self._database.system_unit() as unit:
            found = await rows.orders_of(unit, sorted(enrolled))
        for key, order in found.items():
            self.carry_out(key, order)

    def carry_out(self, enrolled: EnrolledId, order: Order) -> None:
        """Give a draining worker nothing new and end its idle runners; close the link of a removed one.

        A removed worker keeps its attempts until its lease ends: only then nothing runs there any more for certain.
        """
        for worker in self.starts_of(enrolled):
            was_cordoned, worker.is_cordoned = worker.is_cordoned, order.is_draining or order.is_removed
            if worker.is_cordoned and not was_cordoned:
                self._end_idle(worker)
            if order.is_removed:
                self._cut(worker)
            if was_cordoned and not worker.is_cordoned:
                self._grants.grant_ready()

    def starts_of(self, enrolled: EnrolledId) -> list[Worker]:
        """Return the starts of a worker that this process sees."""
        return [worker for worker in self._board.fleet.workers.values() if worker.enrolled == enrolled]

    def _end_idle(self, worker: Worker) -> None:
        for runner in list(worker.runners.values()):
            if runner.is_idle:
                self._grants.stop_runner(runner)

    def _cut(self, worker: Worker) -> None:
        worker.is_removed, worker.is_linked = True, False
        link = self._board.links.pop(worker.id, None)
        if link is not None:
            link.close("unauthenticated", REMOVED)
