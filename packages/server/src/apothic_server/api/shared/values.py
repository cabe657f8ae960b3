"""What the faces ask of large values."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Protocol

from apothic_server.domain.access import Actor
from apothic_server.ports.blobs import Lent


class Uploaded(Protocol):
    """How much of a large value is here."""

    @property
    def size_bytes(self) -> int: ...
    @property
    def is_whole(self) -> bool: ...


class LargeValues(Protocol):
    """Uploaded values of the actor's org."""

    async def uploaded(self, actor: Actor, sha256: str) -> Uploaded | None: ...

    async def put(
        self, actor: Actor, sha256: str, chunks: AsyncIterator[bytes], *, offset: int, announced: int
    ) -> tuple[int, bool]:
        """Return size and whether it is new.

        Raises `Invalid` with code `digest_mismatch`, `Conflict` with code `upload_offset` and `DiskLow`, also with code
        `large_values_full`. Bytes that came before an error out of `chunks` are kept.
        """
        ...

    async def check_room(self, actor: Actor, size_bytes: int) -> None:
        """Raises `TooLarge` and `DiskLow`, as `put`."""
        ...

    async def take(self, actor: Actor, fill: Callable[[memoryview], int], *, size_bytes: int) -> str:
        """Return the SHA-256 of the bytes that `fill` gives, in a thread; raises as `put`."""
        ...

    async def lend(self, actor: Actor, sha256: str) -> Lent:
        """Return a file that the caller closes; raises `NotFound`."""
        ...

    async def open(
        self, actor: Actor, sha256: str, *, start: int = 0, size: int | None = None
    ) -> AsyncGenerator[bytes]: ...
