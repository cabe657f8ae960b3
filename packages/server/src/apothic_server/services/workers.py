"""The workers of this installation, for its operator."""

from __future__ import annotations

from datetime import datetime, timedelta

from apothic_server.domain.access import Actor
from apothic_server.domain.views import WorkerView
from apothic_server.services.dispatch.board import Board
from apothic_server.store import workers as rows
from apothic_server.store.database import Database

SHOWN = timedelta(days=1)
"""Incarnations that ended are listed this long."""


class Workers:
    """Rows of all incarnations that were seen lately, with what memory knows of the live ones."""

    def __init__(self, database: Database, board: Board) -> None:
        self._database = database
        self._board = board

    async def list_workers(self, actor: Actor) -> list[WorkerView]:
        """Return the incarnations that live or ended within a day, live ones first, then the newest first."""
        now = self._board.clock.now()
        async with self._database.request_unit(actor.org) as unit:
            found = await rows.list_workers(unit, actor.org, ended_after=now - SHOWN)
        views = [self._view(row, now) for row in reversed(found)]
        return sorted(views, key=lambda view: view.status not in ("live", "impaired"))

    def _view(self, row: rows.StoredWorker, now: datetime) -> WorkerView:
        live = self._board.fleet.workers.get(row.id)
        runners = len(live.runners) if live is not None else 0
        status = "impaired" if live is not None and live.is_impaired else _status(row, now)
        return WorkerView(row.id, row.name, status, row.connected_at, row.machine, runners)


def _status(row: rows.StoredWorker, now: datetime) -> str:
    if row.ended_at is not None:
        return "ended"
    return "live" if row.lease_expires_at > now else "lost"
