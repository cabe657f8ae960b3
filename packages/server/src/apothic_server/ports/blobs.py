"""Where large bytes live: archives and values above the inline limit, named by org and SHA-256."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from apothic.wire.ids import OrgId
from apothic_server.domain.errors import Invalid

READ_CHUNK = 256 * 1024
"""Size of the chunks that `open` yields, in bytes."""


class DigestMismatch(Invalid):
    """The bytes have another SHA-256 than the name they were sent under; nothing was stored."""

    code = "digest_mismatch"


@dataclass(frozen=True, slots=True)
class PutBlob:
    """What a `put` did; `created` is False when the blob was there before."""

    size_bytes: int
    created: bool


class Blobs(Protocol):
    """A content-addressed store. Orgs share nothing: the same bytes of two orgs are two blobs.

    A blob that `put` returned for survives a crash of the machine. Names are 64 lower-case hexadecimal digits; others
    raise ValueError, an error of ours. Every method raises Unavailable when the place cannot be used.
    """

    async def put(self, org: OrgId, sha256: str, chunks: AsyncIterator[bytes], *, size_max: int) -> PutBlob:
        """Store a stream under its digest, whole or not at all; again is fine.

        Args:
            org: Owner.
            sha256: Digest that the bytes must have.
            chunks: The bytes, read until the end or until an error is certain.
            size_max: Bound in bytes, counted while reading.

        Raises:
            DigestMismatch: The bytes have another digest.
            TooLarge: There are more than `size_max` bytes.
        """
        ...

    async def open(self, org: OrgId, sha256: str) -> AsyncGenerator[bytes]:
        """Return the bytes in chunks of at most `READ_CHUNK`. Close the generator (`aclose`) when you stop early.

        Raises:
            NotFound: The org has no such blob; raised by this call, not by the generator.
        """
        ...

    async def read(self, org: OrgId, sha256: str, *, size_max: int) -> bytes:
        """Return a small blob whole.

        Raises:
            NotFound: The org has no such blob.
            TooLarge: It has more than `size_max` bytes.
        """
        ...

    async def exists(self, org: OrgId, sha256: str) -> bool:
        """Whether the org has this blob."""
        ...

    async def delete(self, org: OrgId, sha256: str) -> bool:
        """Remove a blob; False when there was none."""
        ...
