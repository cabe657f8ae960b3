"""The dispatcher's role: taken, renewed, lost, given back (D4).

One process of a cloud holds it, by a row that runs out when it is not renewed. All others keep trying, so another one
dispatches within `LEASE` and one try after the holder died. A process that lost the role forgets what it held in
memory; its clients go on waiting, for what the store will say.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import structlog

from apothic_server.domain.errors import Unavailable
from apothic_server.failpoints import fp
from apothic_server.services.dispatch.board import Board
from apothic_server.services.outcomes import Outcomes
from apothic_server.store import dispatcher
from apothic_server.store.database import Database
from apothic_server.store.dispatcher import LEASE
from apothic_server.store.servers import Server

log = structlog.get_logger("apothic.dispatch")


class Role:
    """This process's hold on the role.

    Args:
        me: The holder's name and its address for workers.

    Attributes:
        taken: Called after a new term was taken: every unfinished row is to be looked at.
        lost: Called after the role was lost and the board is empty, for what else was remembered of the fleet.
    """

    def __init__(self, database: Database, board: Board, outcomes: Outcomes, me: Server) -> None:
        self._database = database
        self._board = board
        self._outcomes = outcomes
        self._me = me
        self._is_leaving = False
        self.taken: Callable[[], None] = lambda: None
        self.lost: Callable[[], None] = lambda: None

    async def hold(self) -> None:
        """Renew the term, or try to take the role; a term that was lost meanwhile empties the memory."""
        if self._is_leaving:
            return
        board = self._board
        asked_at = board.clock.monotonic()
        await fp("term.before")
        async with self._database.system_unit() as unit:
            if board.term is not None and await dispatcher.renew_term(unit, term=board.term, holder=self._me.id):
                board.term_until = asked_at + LEASE.total_seconds()
                return
            term = await dispatcher.take_term(unit, holder=self._me.id, url=self._me.url)
        await fp("term.after")
        if board.term is not None:
            self._lose()
        if term is not None:
            log.info("dispatcher.term", term=term)
            board.term, board.term_until = term, asked_at + LEASE.total_seconds()
            self.taken()

    async def step_down(self) -> None:
        """Let another process dispatch from now on; this one goes on as one that does not, and never tries again."""
        self._is_leaving = True
        if self._board.term is not None:
            await self.release()
            self._lose()

    async def release(self) -> None:
        """Give the role back, so that another process need not wait for its lease; best effort."""
        term, self._board.term = self._board.term, None
        if term is None:
            return
        with suppress(Unavailable):
            async with self._database.system_unit() as unit:
                await dispatcher.release_term(unit, term=term, holder=self._me.id)

    def _lose(self) -> None:
        """Somebody else dispatched since: what memory says may be old in every part."""
        board = self._board
        log.warning("dispatcher.lost", term=board.term, jobs=len(board.jobs))
        board.term = None
        for link in list(board.links.values()):
            link.close("unavailable", "another server dispatches now; dial again")
        for job in board.clear():
            if not job.outcome.done():
                self._outcomes.keep(job.org, job.id, job.outcome)
        self.lost()
        self._outcomes.hint_all()
