"""Ends of jobs that this process does not hold in memory: told by the store, read again on hints and on a timer (G5.6).

A future lives as long as somebody waits for it. When this process begins to dispatch, memory takes the futures of the
jobs it adopts; when it stops dispatching, they come back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from weakref import WeakValueDictionary

import structlog

from apothic.wire.ids import JobId, OrgId
from apothic.wire.limits import VALUE_MAX
from apothic.wire.runner import error_from_json
from apothic.wire.values import Value
from apothic_server.domain.errors import PlatformError, Unavailable
from apothic_server.domain.groups import parse_item_key
from apothic_server.domain.jobs import StoredOutcome
from apothic_server.domain.views import Outcome
from apothic_server.ports.blobs import Blobs
from apothic_server.ports.clock import Clock
from apothic_server.services.group_items import GroupItems
from apothic_server.store import jobs as rows
from apothic_server.store.database import Database

log = structlog.get_logger("apothic.outcomes")

REREAD_S = 5.0
"""All jobs that are waited for are read again after this long, whatever was told."""

PAGE = 100


class Outcomes:
    """Futures of the ends that other processes write.

    Attributes:
        wake: Called when `step` has something to read at once.
    """

    def __init__(self, database: Database, blobs: Blobs, clock: Clock, items: GroupItems) -> None:
        self._items = items
        self._database = database
        self._blobs = blobs
        self._clock = clock
        self._waited: WeakValueDictionary[JobId, asyncio.Future[Outcome]] = WeakValueDictionary()
        self._orgs: dict[JobId, OrgId] = {}
        self._of_groups: dict[str, set[JobId]] = {}
        self._told: dict[JobId, None] = {}
        self._read_at = clock.monotonic()
        self.wake: Callable[[], None] = lambda: None

    def future(self, org: OrgId, job: JobId) -> asyncio.Future[Outcome]:
        """Return the future of a job's end; it is the same one for all who wait."""
        found = self._waited.get(job)
        if found is None:
            found = asyncio.get_running_loop().create_future()
            self.keep(org, job, found)
        return found

    def keep(self, org: OrgId, job: JobId, future: asyncio.Future[Outcome]) -> None:
        """Resolve `future` with the job's end from now on."""
        self._waited[job] = future
        self._orgs[job] = org
        if (place := parse_item_key(job)) is not None:
            self._of_groups.setdefault(place[0], set()).add(job)

    def take(self, job: JobId) -> asyncio.Future[Outcome] | None:
        """Return the future that somebody waits for, to be resolved by the caller from now on; None without one."""
        self._orgs.pop(job, None)
        found = self._waited.pop(job, None)
        return None if found is None or found.done() else found

    def hint(self, job: JobId) -> None:
        """Something of `job`, or of a group or a chunk of its items, was committed."""
        if not self._orgs:
            return
        told = [job] if job in self._waited else []
        if self._of_groups and (group := _group_of(job)) is not None:
            told += [item for item in self._of_groups.get(group, ()) if item in self._waited]
        if told:
            self._told.update(dict.fromkeys(told))
            self.wake()

    def hint_all(self) -> None:
        """Anything may have been committed."""
        self._told.update(dict.fromkeys(list(self._waited)))
        self.wake()

    async def step(self) -> float | None:
        """Read the jobs that were hinted at; all that are waited for when `REREAD_S` have passed."""
        now = self._clock.monotonic()
        if now - self._read_at >= REREAD_S:
            self._read_at = now
            waited = {job: self._orgs[job] for job in list(self._waited)}
            self._orgs, self._of_groups = {}, {}
            for job, org in waited.items():
                if (future := self._waited.get(job)) is not None:
                    self.keep(org, job, future)
            self._told.update(dict.fromkeys(self._orgs))
        while self._told:
            page = list(self._told)[:PAGE]
            for job in page:
                del self._told[job]
            await self._read({job: self._orgs[job] for job in page if job in self._waited})
        return max(self._read_at + REREAD_S - now, 0.0)

    async def load(self, org: OrgId, stored: StoredOutcome) -> Outcome:
        """Return an end with its result, which may lie in the blob store."""
        result = stored.result
        value = result.value if result is not None else None
        if result is not None and result.blob is not None:
            data = await self._blobs.read(org, result.blob, size_max=VALUE_MAX)
            value = Value(result.value.encoding, data, result.value.python)
        error = error_from_json(stored.error) if stored.error is not None else None
        return Outcome(stored.job, stored.status, value, error, stored.attempt)

    async def _read(self, asked: dict[JobId, OrgId]) -> None:
        if not asked:
            return
        try:
            async with self._database.system_unit() as unit:
                found = await rows.list_outcomes(unit, asked)
        except BaseException:
            self._told.update(dict.fromkeys(asked))
            raise
        for stored in found:
            await self._tell(asked[stored.job], stored)
        ended = {stored.job for stored in found}
        for job, org in asked.items():
            item = await self._items.find(org, job) if job not in ended else None
            if item is not None and item.job.status.is_final:
                await self._tell(org, item.outcome)

    async def _tell(self, org: OrgId, stored: StoredOutcome) -> None:
        try:
            outcome = await self.load(org, stored)
        except (PlatformError, OSError) as error:
            # One result that cannot be read must not keep the ends of other jobs back.
            log.warning("outcome.unreadable", job=stored.job, error=type(error).__name__)
            _fail(self.take(stored.job), Unavailable("the result cannot be read now; ask again", retry_after_s=1))
            return
        future = self.take(stored.job)
        if future is not None:
            future.set_result(outcome)


def _group_of(key: str) -> str | None:
    """Return the group whose items may have ended with what has this key; None for an item with a row of its own."""
    group, dot, rest = key.partition(".")
    return group if not dot or "-" in rest else None


def _fail(future: asyncio.Future[Outcome] | None, error: Exception) -> None:
    if future is not None:
        future.set_exception(error)
        future.exception()
