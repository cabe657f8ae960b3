"""Large values: uploaded once per content and org, named by jobs, removed a day after the last job that names them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

from apothic.wire.ids import OrgId
from apothic.wire.large import LARGE, Reference
from apothic.wire.limits import LARGE_VALUE_MAX, LARGE_VALUES_GB, MIB
from apothic.wire.values import Value
from apothic_server.domain.access import Actor
from apothic_server.domain.errors import DiskLow, NotFound, TooLarge, Unavailable
from apothic_server.ports.blobs import Blobs, Fill, Lent
from apothic_server.ports.clock import Clock
from apothic_server.store import values as rows
from apothic_server.store.database import Database
from apothic_server.store.disk import Disk

KEPT_UNUSED = timedelta(days=1)
"""An upload that no job names yet, or any more, is kept this long."""

NOTED_AGAIN_AFTER = timedelta(minutes=1)
"""A use that follows another one sooner is not written down, which would cost each call of a large value four commits;
for that, values are kept so much longer."""

ORG_VALUES_MAX = LARGE_VALUES_GB * 1024 * MIB

LOOK_BYTES = 64 * MIB
"""So often an upload is stopped when the disk has become nearly full."""

PAGE = 100


@dataclass(frozen=True, slots=True)
class Uploaded:
    """How much of a value is here."""

    size_bytes: int
    is_whole: bool


class LargeValues:
    """Large values of one installation; what an org has is never told to another one (architecture section 5).

    Args:
        blobs: A store that nothing else is in.
        org_bytes_max: Bytes that an org may keep.
    """

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        clock: Clock,
        disk: Disk,
        *,
        org_bytes_max: int = ORG_VALUES_MAX,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._clock = clock
        self._disk = disk
        self._org_bytes_max = org_bytes_max

    async def uploaded(self, actor: Actor, sha256: str) -> Uploaded | None:
        """Return how much of a value the org has uploaded, None for nothing; a whole one is kept for another day."""
        size = await self._used(actor.org, sha256)
        if size is not None:
            return Uploaded(size, is_whole=True)
        received = await self._blobs.received(actor.org, sha256)
        return Uploaded(received, is_whole=False) if received else None

    async def put(
        self, actor: Actor, sha256: str, chunks: AsyncIterator[bytes], *, offset: int, announced: int
    ) -> tuple[int, bool]:
        """Store the bytes of a value from `offset` on; return its size and whether it is new.

        What came before the stream broke is kept, so that another request can go on.

        Args:
            announced: How many bytes will come, if known.

        Raises:
            Invalid: The bytes do not have this digest (`digest_mismatch`); nothing is kept.
            Conflict: Fewer bytes than `offset` are here (`upload_offset`).
            TooLarge: More than `LARGE_VALUE_MAX` bytes.
            DiskLow: The disk is nearly full, or the org keeps as much as it may (`large_values_full`).
        """
        org = actor.org
        await self._require_room(org, offset + announced)
        await self._begin(org, sha256)
        stored = await self._blobs.put_from(org, sha256, self._watched(chunks), offset=offset, size_max=LARGE_VALUE_MAX)
        await self._finish(org, sha256, stored.size_bytes)
        return stored.size_bytes, stored.created

    async def check_room(self, actor: Actor, size_bytes: int) -> None:
        """Do nothing when a value of this size may come; errors as those of `put` about sizes and room."""
        await self._require_room(actor.org, size_bytes)

    async def take(self, actor: Actor, fill: Fill, *, size_bytes: int) -> str:
        """Store a value of a process on this machine and return its SHA-256; errors as `put`.

        Args:
            fill: Gives the bytes; called in a thread.
        """
        org, watch = actor.org, _Watch(self._disk)

        def watched(view: memoryview) -> int:
            return watch.count(fill(view))

        taken = await self._blobs.take(watched, size=size_bytes)
        try:
            await self._begin(org, taken.sha256)
            await self._blobs.keep(org, taken)
        except BaseException:
            await self._blobs.discard(taken)
            raise
        await self._finish(org, taken.sha256, size_bytes)
        return taken.sha256

    async def lend(self, actor: Actor, sha256: str) -> Lent:
        """Return the file of a value, open for reading; the caller closes it.

        Only one that is read-only may get to user code: whoever runs as the file's owner could open another one again
        to write to it.

        Raises:
            NotFound: The org has no such value (`no_such_blob`).
        """
        if await self._used(actor.org, sha256) is None:
            raise no_such_blob()
        return await self._blobs.lend(actor.org, sha256)

    async def open(
        self, actor: Actor, sha256: str, *, start: int = 0, size: int | None = None
    ) -> AsyncGenerator[bytes]:
        """Return the bytes of a value from `start` on, at most `size`.

        Raises:
            NotFound: The org has no such value (`no_such_blob`).
        """
        return await self._blobs.open(actor.org, sha256, start=start, size=size)

    async def use(self, org: OrgId, value: Value) -> None:
        """Check that a value, if it is a reference, names one that the org has, and keep that for a job to be written.

        Raises:
            NotFound: The org has not uploaded it (`no_such_blob`).
        """
        if value.encoding != LARGE:
            return
        reference = Reference.parse(value.data)
        if await self._used(org, reference.sha256) != reference.size_bytes:
            raise no_such_blob()

    async def step(self) -> float | None:
        """Remove what no job names and nobody used for a day, and uploads that nobody went on with."""
        before = self._clock.now() - KEPT_UNUSED - NOTED_AGAIN_AFTER
        found = PAGE
        while found == PAGE:
            async with self._database.system_unit() as unit:
                unused = await rows.unused_values(unit, before=before, limit=PAGE)
            found = len(unused)
            for org, sha256 in unused:
                async with self._database.system_unit() as unit:
                    if await rows.forget_value(unit, org, sha256, before=before):
                        await self._blobs.delete(org, sha256)
        await self._blobs.forget_received(older_than_s=KEPT_UNUSED.total_seconds())
        return None

    async def _require_room(self, org: OrgId, size_bytes: int) -> None:
        if size_bytes > LARGE_VALUE_MAX:
            raise TooLarge(f"A value has at most {LARGE_VALUE_MAX} bytes.")
        self._disk.require_room()
        async with self._database.request_unit(org) as unit:
            kept = await rows.bytes_of_values(unit, org)
        if kept + size_bytes > self._org_bytes_max:
            raise DiskLow(FULL.format(self._org_bytes_max), code="large_values_full", retry_after_s=60)

    async def _begin(self, org: OrgId, sha256: str) -> None:
        async with self._database.request_unit(org) as unit:
            await rows.begin_value(unit, org, sha256, self._clock.now())

    async def _finish(self, org: OrgId, sha256: str, size_bytes: int) -> None:
        async with self._database.request_unit(org) as unit:
            await rows.finish_value(unit, org, sha256, size_bytes, self._clock.now())
        if await self._blobs.size(org, sha256) is None:  # it was removed as unused before its row was written
            raise Unavailable("the value was removed while it came; send it again", retry_after_s=1)

    async def _used(self, org: OrgId, sha256: str) -> int | None:
        async with self._database.request_unit(org) as unit:
            now = self._clock.now()
            size = await rows.use_value(unit, org, sha256, now, unless_after=now - NOTED_AGAIN_AFTER)
        if size is None or await self._blobs.size(org, sha256) != size:  # as after a restore without the file
            return None
        return size

    async def _watched(self, chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        """Yield the chunks while there is room on the disk."""
        watch = _Watch(self._disk)
        async for chunk in chunks:
            watch.count(len(chunk))
            yield chunk


class _Watch:
    """Counts bytes and looks at the disk now and then."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._left = LOOK_BYTES

    def count(self, size: int) -> int:
        """Return `size`, unless there is no room any more.

        Raises:
            DiskLow: There is none.
        """
        self._left -= size
        if self._left <= 0:
            self._left = LOOK_BYTES
            self._disk.require_room()
        return size


FULL = "the large values of this org would have more than the {} bytes that it may keep"


def no_such_blob() -> NotFound:
    """Return the one answer for large values that are not there and for those of other orgs."""
    return NotFound("There is no such large value; upload it first.", code="no_such_blob")
