"""Readers of the outcomes of groups, on any server: the store tells, and hints say where to look.

A reader knows which items it lacks. It looks at all of them at first, then at those whose rows changed, and every
`REREAD_S` at all again, so that a lost hint costs seconds and nothing else (G5.6).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from apothic.wire.ids import GroupId, OrgId
from apothic.wire.limits import CHUNK_ITEMS_MAX, CHUNK_OUTCOMES_MAX, MIB, VALUE_MAX
from apothic_server.domain.access import Actor
from apothic_server.domain.errors import TooMany
from apothic_server.domain.group_views import OutcomeRun
from apothic_server.domain.groups import NOTED_S, Group
from apothic_server.domain.ranges import END, Range, Ranges
from apothic_server.ports.blobs import Blobs
from apothic_server.ports.clock import Clock
from apothic_server.services.alarm import Alarm
from apothic_server.services.group_runs import Runs, rest_of
from apothic_server.services.tails import REREAD_S, resolve
from apothic_server.store import groups as rows
from apothic_server.store.database import Database
from apothic_server.store.groups import StoredEnd

READERS_PER_ORG_MAX = 1_000
"""Readers of one org (G15.2)."""

RANGES_MAX = 1_000
"""With more places to look at, a reader looks at all it lacks."""

RESULT_MAX = CHUNK_OUTCOMES_MAX + VALUE_MAX + MIB
"""Most bytes of the packed outcomes of a chunk, with the last one and what stands between them."""

REST_RUNS = 20
"""Runs of items that never began in one batch."""

_ROW = re.compile(r"([0-9a-z]{26})\.([0-9]{1,8})(?:-([0-9]{1,19}))?")


class GroupOutcomes:
    """All readers of this process.

    Attributes:
        reread_s: As `REREAD_S`, for readers that come.
    """

    def __init__(self, database: Database, blobs: Blobs, clock: Clock) -> None:
        self.database = database
        self.blobs = blobs
        self.clock = clock
        self._readers: dict[GroupId, list[Reader]] = {}
        self._counts: dict[OrgId, int] = {}
        self.reread_s = REREAD_S

    def hint(self, key: str) -> None:
        """Something of the job or group with this key was committed."""
        if not self._readers:
            return
        group, dot, _ = key.partition(".")
        for reader in self._readers.get(GroupId(group), ()):
            reader.look_at(_items(key) if dot else None)

    def hint_all(self) -> None:
        """Anything may have been committed."""
        for readers in self._readers.values():
            for reader in readers:
                reader.look_at((0, END))

    def open(self, actor: Actor, group: Group, first: int, *, retries: int, leave: Callable[[], None]) -> Reader:
        """Return a reader of the items of a group from `first` on; close it when done.

        Args:
            retries: How often an item that failed is tried again.
            leave: Called once when it is closed.

        Raises:
            TooMany: The org has `READERS_PER_ORG_MAX` readers.
        """
        count = self._counts.get(actor.org, 0)
        if count >= READERS_PER_ORG_MAX:
            raise TooMany(f"{count} streams are open; close some", code="too_many_watchers", retry_after_s=5)
        self._counts[actor.org] = count + 1
        reader = Reader(self, group, first, is_tried_again=retries > 0, leave=leave)
        self._readers.setdefault(group.id, []).append(reader)
        return reader

    def close(self, reader: Reader) -> None:
        """Forget a reader."""
        left = self._counts[reader.org] - 1
        if left:
            self._counts[reader.org] = left
        else:
            del self._counts[reader.org]
        readers = self._readers[reader.group]
        readers.remove(reader)
        if not readers:
            del self._readers[reader.group]


class Reader:
    """One reader of the outcomes of one group."""

    def __init__(
        self, owner: GroupOutcomes, group: Group, first: int, *, is_tried_again: bool, leave: Callable[[], None]
    ) -> None:
        self.org, self.group = group.org, group.id
        self._owner = owner
        self._missing = Ranges([(first, END)])
        self._is_tried_again = is_tried_again
        self._leave = leave
        self._todo: list[Range] = [(first, END)]
        self._look: list[Range] = []
        self._place = rows.BEGIN
        self._heard_at = group.heard_at if group.total is None else None
        self._asks_group = not group.status.is_final
        self._ended = group if group.status.is_final else None
        self._is_open = True
        self._is_woken = False
        self._waiter: asyncio.Future[None] | None = None
        self._alarm = Alarm(self._resolve)
        self._read_at = asyncio.get_running_loop().time()

    @property
    def lacks(self) -> list[Range]:
        """Items that were not handed out yet."""
        return list(self._missing)

    def look_at(self, items: Range | None) -> None:
        """Rows of these items have changed; with None, the group's."""
        if items is None:
            self._asks_group = True
        elif len(self._todo) < RANGES_MAX:
            self._todo.append(items)
        else:
            self._todo = [(0, END)]
        self._resolve()

    def wake(self) -> None:
        """Let a `next` that waits return now."""
        self._is_woken = True
        self._resolve()

    def close(self) -> None:
        """Give the place back; twice is fine."""
        if self._is_open:
            self._is_open = False
            self._alarm.close()
            self._owner.close(self)
            self._leave()

    async def next(self, *, timeout_s: float) -> tuple[list[OutcomeRun], Group | None]:
        """Return the next outcomes, and the group once nothing follows; neither when nothing came in time."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        while True:
            if loop.time() - self._read_at >= self._owner.reread_s:
                self._todo, self._asks_group = [(0, END)], True
            await self._note()
            await self._ask_group()
            while self._look or self._todo:
                runs = await self._read()
                if runs:
                    return runs, None
            if self._ended is not None and not self._asks_group:
                return self._rest(self._ended)
            if self._is_woken or loop.time() >= until:
                self._is_woken = False
                return [], None
            await self._wait(min(until, self._read_at + self._owner.reread_s))

    async def _wait(self, until: float) -> None:
        if self._todo or self._asks_group or self._is_woken:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        self._alarm.set(until)
        await self._waiter

    async def _note(self) -> None:
        """Let the group know now and then that somebody reads, while it takes items still."""
        now = self._owner.clock.now()
        if self._heard_at is None or (now - self._heard_at).total_seconds() < NOTED_S or self._ended is not None:
            return
        self._heard_at = now
        async with self._owner.database.request_unit(self.org) as unit:
            await rows.hear(unit, self.org, self.group, now=now)

    async def _ask_group(self) -> None:
        """Read the group's row; once it has ended, all that is missing is looked at once more."""
        if not self._asks_group or self._ended is not None:
            self._asks_group = False
            return
        self._asks_group = False
        async with self._owner.database.request_unit(self.org) as unit:
            found = await rows.get_group(unit, self.org, self.group)
        if found is not None and found.status.is_final:
            self._ended, self._todo = found, [(0, END)]

    async def _read(self) -> list[OutcomeRun]:
        if not self._look:
            self._look, self._todo, self._place = self._missing.within(self._todo), [], rows.BEGIN
            self._read_at = asyncio.get_running_loop().time() if self._look == list(self._missing) else self._read_at
            if not self._look:
                return []
        is_over = self._ended is not None
        async with self._owner.database.request_unit(self.org) as unit:
            found = await rows.list_ends(unit, self.org, self.group, self._look, after=self._place)
        if found.is_last:
            self._look = []
        else:
            self._place = found.rows[-1].place
        runs = Runs(self._missing, self._is_tried_again and not is_over)
        for row in found.rows:
            runs.add(row, await self._data(row))
        return runs.done()

    async def _data(self, row: StoredEnd) -> bytes:
        result = row.result
        if result is None or result.blob is None:
            return b"" if result is None else result.value.data
        return await self._owner.blobs.read(self.org, result.blob, size_max=RESULT_MAX)

    def _rest(self, group: Group) -> tuple[list[OutcomeRun], Group | None]:
        """Return the outcomes of items that never began, then the end."""
        runs: list[OutcomeRun] = []
        while len(runs) < REST_RUNS and (run := rest_of(group, self._missing)) is not None:
            runs.append(run)
        return runs, None if len(runs) == REST_RUNS else group

    def _resolve(self) -> None:
        if self._waiter is not None:
            resolve(self._waiter)


def _items(key: str) -> Range:
    """Return the items that the row with this key has covered since it was made."""
    match = _ROW.fullmatch(key)
    if match is None:
        return (0, END)
    first = int(match[2])
    return first, first + min(int(match[3] or 1), CHUNK_ITEMS_MAX)
