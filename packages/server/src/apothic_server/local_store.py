"""The database of one cloud: an external one by its address, or the embedded one, watched and started again (G14.2)."""

from __future__ import annotations

import asyncio
import time
from collections import deque

import structlog

from apothic_server.domain.errors import PlatformError
from apothic_server.settings import Settings
from apothic_server.store.address import StoreAddress
from apothic_server.store.disk import Disk
from apothic_server.store.launcher import EmbeddedPostgres

log = structlog.get_logger("apothic.store")

DEATHS_MAX = 3
"""So many deaths within `DEATHS_WITHIN_S` stop the cloud: a database that keeps dying needs a person."""

DEATHS_WITHIN_S = 600.0


class StoreGone(PlatformError):
    """The embedded database died too often, or could not be started again."""

    code = "store_crashed"


class LocalStore:
    """Runs what `settings` names; an embedded database only after a look at the room on its disk.

    Attributes:
        failed: Set when the database is gone for good; `check` says why.
    """

    def __init__(self, settings: Settings, disk: Disk) -> None:
        self._url = settings.database_url
        self._server = EmbeddedPostgres(settings.data / "postgres", pg_user=settings.pg_user)
        self._log = settings.data / "postgres" / "postgres.log"
        self._disk = disk
        self._task: asyncio.Task[None] | None = None
        self._why: str | None = None
        self.failed = asyncio.Event()

    async def start(self) -> StoreAddress:
        """Return the address; an embedded database runs then, and is kept running.

        Raises:
            PlatformError: It does not start, or the address is malformed.
        """
        if self._url is not None:
            return StoreAddress.from_url(self._url)
        await self._disk.step()
        address = await self._server.start()
        self._task = asyncio.create_task(self._keep(), name="embedded store")
        return address

    async def stop(self) -> None:
        """Stop the embedded database cleanly."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._server.stop()

    def check(self) -> None:
        """Do nothing while the database is fine.

        Raises:
            StoreGone: It is gone for good.
        """
        if self._why is not None:
            raise StoreGone(self._why)

    async def _keep(self) -> None:
        deaths: deque[float] = deque(maxlen=DEATHS_MAX)
        while True:
            await self._server.ended()
            deaths.append(time.monotonic())
            log.error("store.died", deaths=len(deaths))
            if len(deaths) == DEATHS_MAX and deaths[-1] - deaths[0] < DEATHS_WITHIN_S:
                self._give_up(f"the database died {DEATHS_MAX} times within {DEATHS_WITHIN_S / 60:.0f} minutes")
                return
            try:
                await self._server.stop()
                await self._disk.step()  # a database needs room to recover
                await self._server.start()
            except PlatformError as error:
                self._give_up(f"the database died and could not be started again: {error.detail}")
                return
            log.warning("store.restarted", took_s=round(time.monotonic() - deaths[-1], 3))

    def _give_up(self, why: str) -> None:
        self._why = f"{why}; see {self._log}"
        self.failed.set()
