"""App archives: uploaded once per content and org, fetched by workers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

from apothic.wire.archive_parts import Part
from apothic.wire.ids import DeploymentId
from apothic.wire.limits import ARCHIVE_PACKED_MAX
from apothic_server.domain.access import Actor
from apothic_server.domain.errors import Conflict, Invalid, no_such
from apothic_server.failpoints import fp
from apothic_server.ports.blobs import Blobs
from apothic_server.ports.clock import Clock
from apothic_server.store import archives as rows
from apothic_server.store import recovery
from apothic_server.store.database import Database
from apothic_server.store.disk import Disk


class Archives:
    """Archives of one installation; content is shared within an org and never across (architecture section 5)."""

    def __init__(self, database: Database, blobs: Blobs, clock: Clock, disk: Disk) -> None:
        self._database = database
        self._blobs = blobs
        self._clock = clock
        self._disk = disk

    async def has(self, actor: Actor, sha256: str) -> bool:
        """Whether the org uploaded this archive before."""
        async with self._database.request_unit(actor.org) as unit:
            return await rows.has_archive(unit, actor.org, sha256)

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

        Raises:
            Conflict: The org has not uploaded the base (`archive_missing`).
            Invalid: A part lies behind the end of the base, or the whole has another digest (`digest_mismatch`).
        """
        if not await self.has(actor, base):
            raise Conflict("upload the base before parts of it, or the archive whole", code="archive_missing")
        async with aclosing(await self._blobs.open(actor.org, base)) as chunks:
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
                    raise Invalid("a part lies behind the end of the base")
                continue
            piece = held[offset - start : end - start]
            yield piece
            offset += len(piece)
