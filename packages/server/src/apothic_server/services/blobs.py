"""Values in the blob store: named by their digest, written once."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator

from apothic.wire.ids import OrgId
from apothic_server.ports.blobs import Blobs


def digest_of(data: bytes) -> str:
    """Return the SHA-256 of `data` in hex, which is its name."""
    return hashlib.sha256(data).hexdigest()


async def write_blob(blobs: Blobs, org: OrgId, digest: str, data: bytes) -> None:
    """Store bytes in memory under their digest; nothing is written when the org has them."""
    if not await blobs.exists(org, digest):
        await blobs.put(org, digest, _whole(data), size_max=len(data))


async def _whole(data: bytes) -> AsyncGenerator[bytes]:
    yield data
