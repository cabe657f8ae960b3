"""Where large bytes live: archives and values above the inline limit, named by org and SHA-256."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from apothic.wire.ids import OrgId
from apothic_server.domain.errors import Conflict, Invalid

READ_CHUNK = 256 * 1024
"""Size of the chunks that `open` yields, in bytes."""


class DigestMismatch(Invalid):
    """The bytes have another SHA-256 than the name they were sent under; nothing was stored."""

    code = "digest_mismatch"


class WrongOffset(Conflict):
    """An upload goes on where the bytes do not end that are here; ask how many there are."""

    code = "upload_offset"


@dataclass(frozen=True, slots=True)
class PutBlob:
    """What a `put` did; `created` is False when the blob was there before."""

    size_bytes: int
    created: bool


Fill = Callable[[memoryview], int]
"""Writes the next bytes of a value into a buffer and returns how many, 0 at the end; blocks."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Bytes that are on the disk and have no name in the store yet.

    Attributes:
        place: Where they are; the store's own business.
    """

    sha256: str
    size_bytes: int
    place: str


@dataclass(frozen=True, slots=True)
class Lent:
    """An open file of the store.

    Attributes:
        is_read_only: Also who owns the file cannot get at it for writing from here.
    """

    descriptor: int
    is_read_only: bool


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

    async def put_from(
        self, org: OrgId, sha256: str, chunks: AsyncIterator[bytes], *, offset: int, size_max: int
    ) -> PutBlob:
        """As `put`, but the bytes up to `offset` came before, and those of a stream that breaks are kept.

        `size_max` bounds the whole. When another stream of the same blob is coming in, nothing of this one is kept.

        Raises:
            WrongOffset: Fewer bytes than `offset` are here.
        """
        ...

    async def received(self, org: OrgId, sha256: str) -> int:
        """Return how many bytes are here of a blob that `put_from` did not get to the end of."""
        ...

    async def forget_received(self, *, older_than_s: float) -> None:
        """Remove what `received` tells of, where nothing came for so long."""
        ...

    async def take(self, fill: Fill, *, size: int) -> Taken:
        """Store exactly `size` bytes, without a name; what `keep` does not return for, `discard` is called for.

        `fill` is called in a thread. The bytes are the store's own from then on: nobody else can change them.

        Raises:
            DigestMismatch: There are fewer bytes.
        """
        ...

    async def keep(self, org: OrgId, taken: Taken) -> PutBlob:
        """Give what was taken the name of its digest; what is stored under that name already is discarded."""
        ...

    async def discard(self, taken: Taken) -> None:
        """Remove what was taken, unless it was kept."""
        ...

    async def lend(self, org: OrgId, sha256: str) -> Lent:
        """Return a file with the bytes, open for reading; the caller closes it.

        Raises:
            NotFound: The org has no such blob.
        """
        ...

    async def size(self, org: OrgId, sha256: str) -> int | None:
        """Return the size of a blob in bytes; None when the org has none of this name."""
        ...

    async def open(self, org: OrgId, sha256: str, *, start: int = 0, size: int | None = None) -> AsyncGenerator[bytes]:
        """Return the bytes in chunks of at most `READ_CHUNK`. Close the generator (`aclose`) when you stop early.

        Args:
            org: Owner.
            sha256: Name.
            start: Bytes to leave out.
            size: At most so many bytes; None for all.

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
