"""Moves large values between blob store and dispatcher: arguments of granted attempts out, results in."""

from __future__ import annotations

from apothic.wire.chunks import ENTRY_OVERHEAD
from apothic.wire.large import LARGE
from apothic.wire.limits import VALUE_MAX
from apothic.wire.values import Value
from apothic_server.domain.errors import NotFound, PlatformError
from apothic_server.failpoints import fp
from apothic_server.ports.blobs import Blobs
from apothic_server.services.blobs import digest_of, write_blob
from apothic_server.services.dispatch.board import Board
from apothic_server.services.dispatch.grants import Grants
from apothic_server.services.dispatch.live import UNREAD, LiveJob
from apothic_server.services.dispatch.map_upkeep import MapUpkeep
from apothic_server.services.dispatch.reports import LargeResult, Reports
from apothic_server.services.values import LargeValues


class Values:
    """One step feeds every attempt whose arguments wait and stores every result that waits."""

    def __init__(
        self, board: Board, grants: Grants, reports: Reports, blobs: Blobs, uploads: LargeValues, maps: MapUpkeep
    ) -> None:
        self._maps = maps
        self._board = board
        self._grants = grants
        self._reports = reports
        self._blobs = blobs
        self._uploads = uploads

    async def step(self) -> float | None:
        """Feed and store until nothing waits."""
        while self._board.to_feed:
            await self._feed(*self._board.to_feed.popleft())
        while self._reports.large_results:
            await self._store(self._reports.large_results.popleft())
        return None

    async def _feed(self, job: LiveJob, fence: int) -> None:
        blob = job.arguments.blob
        if blob is None:
            return
        try:
            if job.arguments is UNREAD:
                value = await self._maps.read_inputs(job)
                if value is not None:
                    self._grants.feed(job, fence, value)
                return
            data = await self._blobs.read(job.org, blob, size_max=VALUE_MAX + ENTRY_OVERHEAD + 1)
        except (PlatformError, OSError):
            self._board.to_feed.appendleft((job, fence))
            raise
        value = job.arguments.value
        self._grants.feed(job, fence, Value(value.encoding, data, value.python))

    async def _store(self, large: LargeResult) -> None:
        value = large.finished.value
        if value is None:
            return
        if value.encoding == LARGE:
            await self._check(large, value)
            return
        try:
            digest = digest_of(value.data)
            await fp("value.before")
            await write_blob(self._blobs, large.job.org, digest, value.data)
            await fp("value.after")
        except (PlatformError, OSError):
            self._reports.large_results.appendleft(large)
            raise
        self._reports.stored(large, digest)

    async def _check(self, large: LargeResult, value: Value) -> None:
        """Let a result that was uploaded before count, if it was."""
        try:
            await self._uploads.use(large.job.org, value)
        except NotFound:
            self._reports.missing(large)
        except (PlatformError, OSError):
            self._reports.large_results.appendleft(large)
            raise
        else:
            self._reports.stored(large, None)
