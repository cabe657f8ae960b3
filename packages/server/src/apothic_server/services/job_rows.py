"""What requests read of one job: its row, or for an item of a group without one, what the group tells of it."""

from __future__ import annotations

from apothic.wire.ids import JobId
from apothic_server.domain.access import Actor
from apothic_server.domain.errors import no_such
from apothic_server.domain.jobs import Job, StoredOutcome, StoredValue
from apothic_server.domain.views import LogPage, log_page
from apothic_server.services.group_items import GroupItems
from apothic_server.store import jobs as rows
from apothic_server.store.database import Database


class JobRows:
    """Jobs of an org as the store has them; those that the actor may not see are not there."""

    def __init__(self, database: Database, items: GroupItems) -> None:
        self._database = database
        self._items = items

    async def get(self, actor: Actor, key: JobId) -> Job:
        """Raises: NotFound."""
        async with self._database.request_unit(actor.org) as unit:
            found = await rows.get_job(unit, actor.org, key)
        if found is None and (item := await self._items.find(actor.org, key)) is not None:
            found = item.job
        if found is None or not actor.sees(found.app, found.parent):
            raise no_such("job")
        return found

    async def outcome(self, actor: Actor, key: JobId) -> StoredOutcome:
        """Return status, result and error as they are now; raises NotFound."""
        async with self._database.request_unit(actor.org) as unit:
            stored = await rows.get_outcome(unit, actor.org, key)
        if stored is None and (item := await self._items.find(actor.org, key)) is not None:
            stored = item.outcome
        if stored is None:
            raise no_such("job")
        return stored

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
        async with self._database.request_unit(actor.org) as unit:
            newest = await rows.get_last_index(unit, actor.org, key)
            found = await rows.get_log_lines(unit, actor.org, key, after=after, limit=limit)
        if newest is None and (item := await self._items.find(actor.org, key)) is not None:
            newest = (item.last_index, item.job.status)
        if newest is None:
            raise no_such("job")
        return log_page(found, newest, after=after, is_whole=len(found) < limit)
