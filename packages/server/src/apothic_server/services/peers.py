"""The processes of this cloud: which ones live, and telling them what was committed here (D4).

A process that is alone tells nobody and asks nobody, so a second server costs the first one nothing until it is there.
A new process answers no request before every other one has read its row: from then on none takes itself to be alone.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import structlog

from apothic_server.domain.errors import Unavailable
from apothic_server.ports.clock import Clock
from apothic_server.store import servers as rows
from apothic_server.store.database import Database
from apothic_server.store.listen import Channel
from apothic_server.store.servers import Server

log = structlog.get_logger("apothic.peers")

JOIN = "join"
"""Told by a process that starts or stops, so that the others read the table at once."""

JOIN_LOOK_S = 0.02
LEASE_S = rows.LEASE.total_seconds()


@dataclass(slots=True)
class Listeners:
    """Who is called for what.

    Attributes:
        heard: With the keys that another process committed something of; None means that anything may have changed.
        wake: `Peers.send` has something to do.
        met: Another process starts or stops: call `Peers.renew` soon.
        regrouped: Other processes came or went, or may have done so unseen: what was remembered while nobody else could
            change it may be old.
    """

    heard: Callable[[list[str] | None], None] = lambda _: None
    wake: Callable[[], None] = lambda: None
    met: Callable[[], None] = lambda: None
    regrouped: Callable[[], None] = lambda: None


class Peers:
    """What this process knows of the others.

    Args:
        me: This process; no other live one has its id.

    Attributes:
        had_others: Another process lived at some time since the start.
    """

    def __init__(self, database: Database, clock: Clock, me: Server) -> None:
        self._database = database
        self._clock = clock
        self._me = me
        self._channel = Channel(database.connect_listener, self._heard, lambda: self.listeners.wake())
        self._live: tuple[Server, ...] = ()
        self._has_others = False
        self._fresh_until = -math.inf
        self.listeners = Listeners()
        self.had_others = False

    @property
    def is_alone(self) -> bool:
        """Whether certainly no other process answers requests."""
        return not self._has_others and self._clock.monotonic() < self._fresh_until

    @property
    def urls(self) -> list[str]:
        """Addresses of the live processes, this one among them."""
        return [server.url for server in self._live] or [self._me.url]

    @property
    def notifications(self) -> int:
        """Notifications sent so far."""
        return self._channel.sent

    def tell(self, key: str) -> None:
        """Something of `key` is committed: tell the others, if there are any."""
        if not self.is_alone:
            self._channel.tell(key)

    async def renew(self) -> None:
        """Say that this process lives and learn which others do."""
        asked_at = self._clock.monotonic()
        async with self._database.system_unit() as unit:
            # Known before the commit that makes our renewal visible: `join` of a new process relies on that.
            self._know(tuple(await rows.renew_server(unit, self._me)), asked_at)

    async def join(self) -> None:
        """Announce this process; return when every other live one has read its row.

        One that does not read it counts as gone once its own row ran out, so this takes `LEASE_S` at most.
        """
        await self.renew()
        async with self._database.system_unit() as unit:
            since = await rows.store_now(unit)
        self._channel.tell(JOIN)
        await self._channel.step()
        while await self._count_unaware(since):
            await asyncio.sleep(JOIN_LOOK_S)
            await self.renew()

    async def leave(self) -> None:
        """Take this process off the table, tell the others, and close the channel; best effort."""
        with suppress(Unavailable):
            async with self._database.system_unit() as unit:
                await rows.remove_server(unit, self._me)
            if self.had_others:
                self._channel.tell(JOIN)
                await self._channel.step()
        with suppress(Unavailable):
            await self._channel.close()

    async def send(self) -> None:
        """Send what waits to be told; connect first when need be."""
        await self._channel.step()

    async def _count_unaware(self, since: datetime) -> int:
        async with self._database.system_unit() as unit:
            return await rows.count_unaware(unit, self._me, since)

    def _heard(self, keys: list[str] | None) -> None:
        if keys is None or JOIN in keys:
            self.listeners.met()
        self.listeners.heard(keys)

    def _know(self, live: tuple[Server, ...], asked_at: float) -> None:
        was_fresh = self._clock.monotonic() < self._fresh_until
        before, self._live = self._live, live
        self._has_others = any(server.id != self._me.id for server in live)
        self._fresh_until = asked_at + LEASE_S
        if live != before or not was_fresh:
            log.info("peers.changed", servers=[server.url for server in live])
            self.listeners.regrouped()
        self.had_others = self.had_others or len(live) > 1
