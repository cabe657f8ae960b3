"""What requests read of one job: its row, or for an item of a group without one, what the group tells of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from apothic.wire.ids import JobId
from apothic_server.domain.access import Actor
from apothic_server.domain.errors import no_such
from apothic_server.domain.jobs import Job, StoredOutcome, StoredValue
from apothic_server.domain.views import LogPage, log_page
from apothic_server.services.group_items import GroupItems
from apothic_server.store import jobs as rows
from apothic_server.store.connection import Connection
from apothic_server.store.database import Database

T = TypeVar("T")


class JobRows:
    """Jobs of an org as the store has them; those that the actor may not see are not there."""

    def __init__(self, database: Database, items: GroupItems) -> None:
        self._database = database
        self._items = items

    async def get(self, actor: Actor, key: JobId) -> Job:
        """Raises: NotFound."""
        item = await self._items.find(actor.org, key, with_value=False)
        found = (
            item.job if item is not None else await self._row(actor, lambda unit: rows.get_job(unit, actor.org, key))
        )
        if not actor.sees(found.app, found.parent):
            raise no_such("job")
        return found

    async def outcome(self, actor: Actor, key: JobId) -> StoredOutcome:
        """Return status, result and error as they are now; raises NotFound."""
        item = await self._items.find(actor.org, key)
        if item is not None:
            return item.outcome
        return await self._row(actor, lambda unit: rows.get_outcome(unit, actor.org, key))

    async def _row(self, actor: Actor, read: Callable[[Connection], Awaitable[T | None]]) -> T:
        """Return what the row of a job tells; raises NotFound."""
        async with self._database.request_unit(actor.org) as unit:
            found = await read(unit)
        if found is None:
            raise no_such("job")
        return found

    async def arguments(self, actor: Actor, job: Job) -> StoredValue:
        """Return what a job that was read was called with."""
        stored = await self._items.arguments(actor.org, job.id)
        if stored is None:
            async with self._database.request_unit(actor.org) as unit:
                stored = await rows.get_arguments(unit, actor.org, job.id)
        if stored is None:
            raise no_such("job")
        return stored

    async def logs(self, actor: Actor, key: JobId, after: int, limit: int) -> LogPage:
        """Return up to `limit` lines with an index above `after`, in order; raises NotFound."""

        async def read(unit: Connection) -> LogPage | None:
            newest = await rows.get_last_index(unit, actor.org, key)
            if newest is None:
                return None
            found = await rows.get_log_lines(unit, actor.org, key, after=after, limit=limit)
            return log_page(found, newest, after=after, is_whole=len(found) < limit)

        item = await self._items.find(actor.org, key, with_value=False)
        if item is not None:
            return log_page([], (item.last_index, item.job.status), after=after, is_whole=True)
        return await self._row(actor, read)
