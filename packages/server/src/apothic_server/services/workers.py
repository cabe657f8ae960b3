"""The workers of this installation, for its operator."""

from __future__ import annotations

from datetime import datetime, timedelta

from apothic_server.domain.access import Actor
from apothic_server.domain.errors import no_such
from apothic_server.domain.idempotency import Keep, KeptAnswer
from apothic_server.domain.views import EnrolledView, WorkerView
from apothic_server.services.dispatch.board import Board
from apothic_server.services.dispatch.cordons import Cordons
from apothic_server.services.keys import Keys
from apothic_server.services.repeats import held, keep_result
from apothic_server.store import enrolment
from apothic_server.store import keys as key_rows
from apothic_server.store import workers as rows
from apothic_server.store.connection import Connection
from apothic_server.store.database import Database
from apothic_server.store.enrolment import EnrolledWorker, ListedWorker, Order

SHOWN = timedelta(days=1)
"""Incarnations that ended are listed this long."""


class Workers:
    """Rows of all incarnations that were seen lately and of all enrolled workers, with what memory knows of them."""

    def __init__(self, database: Database, board: Board, cordons: Cordons, keys: Keys) -> None:
        self._database = database
        self._board = board
        self._cordons = cordons
        self._keys = keys

    async def list_workers(self, actor: Actor) -> list[WorkerView]:
        """Return the incarnations that live or ended within a day, live ones first, then the newest first."""
        now = self._board.clock.now()
        async with self._database.request_unit(actor.org) as unit:
            found = await rows.list_workers(unit, actor.org, ended_after=now - SHOWN)
        views = [self._view(row, now) for row in reversed(found)]
        return sorted(views, key=lambda view: view.status not in ("live", "impaired"))

    async def list_enrolled(self, actor: Actor) -> list[EnrolledView]:
        """Return the workers that joined and were not removed, by name."""
        async with self._database.request_unit(actor.org) as unit:
            found = await enrolment.list_enrolled(unit, actor.org)
        return [self._enrolled(row) for row in found]

    async def set_draining(
        self, actor: Actor, name: str, *, is_draining: bool, keep: Keep[EnrolledView] | None = None
    ) -> EnrolledView | KeptAnswer:
        """Give a worker nothing new, or work again; what it runs goes on. Asking twice changes nothing.

        Raises:
            NotFound: No worker of this name has joined, or it was removed.
        """
        async with self._database.request_unit(actor.org) as unit:
            kept = await held(unit, actor, keep)
            if kept is not None:
                return kept
            worker = await self._locked(unit, actor, name)
            if worker.removed_at is not None:
                raise no_such("worker")
            await enrolment.set_draining(unit, actor.org, worker.id, is_draining=is_draining)
            view = self._enrolled((await enrolment.list_enrolled(unit, actor.org, worker.id))[0])
            await keep_result(unit, actor, keep, view, self._board.clock)
        self._cordons.carry_out(worker.id, Order(is_draining, is_removed=False))
        return view

    async def remove(self, actor: Actor, name: str) -> EnrolledView:
        """End a worker's credential and its link; its name is free. Asking twice changes nothing.

        What it runs is lost when its lease ends: until then it may go on where no word of this reaches it.

        Raises:
            NotFound: No worker of this name has ever joined.
        """
        now = self._board.clock.now()
        async with self._database.request_unit(actor.org) as unit:
            worker = await self._locked(unit, actor, name)
            if worker.removed_at is None:
                await enrolment.remove_enrolled(unit, actor.org, worker.id, now)
                await key_rows.revoke_key(unit, actor.org, worker.key, now)
        self._keys.forget(worker.key)
        self._cordons.carry_out(worker.id, Order(is_draining=worker.is_draining, is_removed=True))
        return EnrolledView(worker.name, "removed", worker.is_draining, worker.joined_at, None, self._jobs(worker))

    async def _locked(self, unit: Connection, actor: Actor, name: str) -> EnrolledWorker:
        found = await enrolment.enrolled_by_name(unit, actor.org, name)
        if found is None:
            raise no_such("worker")
        return found

    def _view(self, row: rows.StoredWorker, now: datetime) -> WorkerView:
        live = self._board.fleet.workers.get(row.id)
        runners = len(live.runners) if live is not None else 0
        status = "impaired" if live is not None and live.is_impaired else _status(row, now)
        is_enrolled = row.enrolled is not None
        return WorkerView(row.id, row.name, status, row.connected_at, row.machine, runners, is_enrolled)

    def _enrolled(self, row: ListedWorker) -> EnrolledView:
        worker = row.worker
        return EnrolledView(
            worker.name, self._status(row), worker.is_draining, worker.joined_at, row.start, self._jobs(worker)
        )

    def _status(self, row: ListedWorker) -> str:
        """Where this process dispatches it knows the link; elsewhere the lease says whether the worker is there."""
        live = self._board.fleet.workers.get(row.start) if row.start is not None else None
        if self._board.dispatches:
            is_there = live is not None and live.is_linked
        else:
            is_there = row.lease_expires_at is not None and row.lease_expires_at > self._board.clock.now()
        if not is_there:
            return "offline"
        if row.worker.is_draining:
            return "draining"
        return "impaired" if live is not None and live.is_impaired else "live"

    def _jobs(self, worker: EnrolledWorker) -> int | None:
        """Only the process that dispatches knows."""
        if not self._board.dispatches:
            return None
        return sum(start.held for start in self._cordons.starts_of(worker.id))


def _status(row: rows.StoredWorker, now: datetime) -> str:
    if row.ended_at is not None:
        return "ended"
    return "live" if row.lease_expires_at > now else "silent"
