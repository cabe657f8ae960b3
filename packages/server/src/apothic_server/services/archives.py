"""App archives: uploaded once per content and org, fetched by workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from weakref import WeakValueDictionary

from apothic.wire.archive_parts import Part
from apothic.wire.ids import DeploymentId, OrgId
from apothic.wire.limits import ARCHIVE_PACKED_MAX
from apothic_server.domain.access import Actor
from apothic_server.domain.errors import Conflict, Invalid, NotFound, no_such
from apothic_server.failpoints import fp
from apothic_server.ports.blobs import Blobs
from apothic_server.ports.clock import Clock
from apothic_server.store import archives as rows
from apothic_server.store import recovery
from apothic_server.store.database import Database
from apothic_server.store.disk import Disk

COMPOSED_AT_ONCE = 2
"""Archives that one process makes of parts at the same time. A few bytes of a request make it read and hash a whole
base, so others wait in turn; of one org one is made at a time, so that no org takes all turns."""

NO_BASE = "upload the base before parts of it, or the archive whole"
BEHIND_THE_END = "a part lies behind the end of the base"


class Archives:
    """Archives of one installation; content is shared within an org and never across (architecture section 5)."""

    def __init__(self, database: Database, blobs: Blobs, clock: Clock, disk: Disk) -> None:
        self._database = database
        self._blobs = blobs
        self._clock = clock
        self._disk = disk
        self._turns = asyncio.Semaphore(COMPOSED_AT_ONCE)
        self._org_turns: WeakValueDictionary[OrgId, asyncio.Lock] = WeakValueDictionary()

    async def has(self, actor: Actor, sha256: str) -> bool:
        """Whether the org uploaded this archive before."""
        async with self._database.request_unit(actor.org) as unit:
            return await rows.archive_size(unit, actor.org, sha256) is not None

    async def put(self, actor: Actor, sha256: str, chunks: AsyncIterator[bytes]) -> tuple[int, bool]:
        """Store an archive; bytes first, then the row. Returns its size and whether it is new.

        Raises:
            Invalid: The bytes do not have this digest (`digest_mismatch`); nothing is kept.
            TooLarge: More than `ARCHIVE_PACKED_MAX` bytes.
            DiskLow: The disk is nearly full.
        """
        self._disk.require_room()
        stored = await self._blobs.put(actor.org, sha256, chunks, size_max=ARCHIVE_PACKED_MAX)
        await fp("archive.before")
        async with self._database.request_unit(actor.org) as unit:
            is_new = await rows.insert_archive(unit, actor.org, sha256, stored.size_bytes, self._clock.now())
        await fp("archive.after")
        return stored.size_bytes, is_new

    async def put_parts(
        self, actor: Actor, sha256: str, base: str, parts: Sequence[Part], new: bytes
    ) -> tuple[int, bool]:
        """Store an archive made of parts of another one of the org and of new bytes; otherwise as `put`.

        One that the org has is not made again. Waits while others are made.

        Raises:
            Conflict: The org has not uploaded the base (`archive_missing`), or its bytes are gone.
            Invalid: A part lies behind the end of the base, or the whole has another digest (`digest_mismatch`).
        """
        async with self._database.request_unit(actor.org) as unit:
            known = await rows.archive_size(unit, actor.org, sha256)
            base_size = await rows.archive_size(unit, actor.org, base)
        if known is not None:
            return known, False
        if base_size is None:
            raise Conflict(NO_BASE, code="archive_missing")
        if any(offset is not None and offset + size > base_size for offset, size in parts):
            raise Invalid(BEHIND_THE_END)
        org_turn = self._org_turns.setdefault(actor.org, asyncio.Lock())
        async with org_turn, self._turns, aclosing(await self._opened(actor.org, base)) as chunks:
            return await self.put(actor, sha256, _joined(parts, new, chunks))

    async def open_for_link(self, actor: Actor, deployment_key: DeploymentId) -> AsyncIterator[bytes]:
        """Return the archive of a deployment, for a worker that was told to run it.

        Raises:
            NotFound: No such deployment.
        """
        del actor  # a worker serves every org of the installation; its policy row already says that it is one
        async with self._database.system_unit() as unit:
            found = await recovery.deployed_archive(unit, deployment_key)
        if found is None:
            raise no_such("deployment")
        org, sha256 = found
        return await self._blobs.open(org, sha256)

    async def _opened(self, org: OrgId, base: str) -> AsyncGenerator[bytes]:
        try:
            return await self._blobs.open(org, base)
        except NotFound:  # its row is there and its bytes are gone, as after a restore without them
            raise Conflict(NO_BASE, code="archive_missing") from None


async def _joined(parts: Sequence[Part], new: bytes, base: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """Yield the parts; those of the base come in its order, so it is read once and never held whole."""
    held, start, at = b"", 0, 0
    for offset, size in parts:
        if offset is None:
            yield new[at : at + size]
            at += size
            continue
        end = offset + size
        while offset < end:
            if offset >= start + len(held):
                start += len(held)
                held = await anext(base, b"")
                if not held:
                    raise Invalid(BEHIND_THE_END)
                continue
            piece = held[offset - start : end - start]
            yield piece
            offset += len(piece)
