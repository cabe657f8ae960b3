"""What every blob store must do (`apothic_server.ports.blobs`). Each adapter's tests inherit `BlobsContract`."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import AsyncGenerator

import pytest

from apothic.wire.ids import OrgId, make_key
from apothic_server.domain.errors import NotFound, TooLarge
from apothic_server.ports.blobs import READ_CHUNK, Blobs, DigestMismatch, Fill, PutBlob

__all__ = ["ALPHA", "BETA", "BlobsContract", "digest_of", "filling", "pieces"]

ALPHA, BETA = OrgId(make_key(0, 1)), OrgId(make_key(0, 2))
SMALL = b"some bytes"
LARGE = bytes(range(256)) * 12_000
LONG = b"".join(number.to_bytes(4, "big") for number in range(4_500_001))
"""More than any store has in memory of what it takes, and no two parts are alike."""


def digest_of(data: bytes) -> str:
    """Return the name of a blob with these bytes."""
    return hashlib.sha256(data).hexdigest()


async def pieces(data: bytes, size: int = 100_000) -> AsyncGenerator[bytes]:
    """Yield `data` as a client would send it."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


def filling(data: bytes, size: int = 100_000) -> Fill:
    """Return what gives `data` as a process of this machine would."""
    source = io.BytesIO(data)

    def fill(view: memoryview) -> int:
        return source.readinto(view[:size])

    return fill


@pytest.mark.anyio
class BlobsContract:
    """Inherit it and give a fixture `blobs` that yields an empty store."""

    @pytest.mark.parametrize("data", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
    async def test_what_was_put_is_read_back(self, blobs: Blobs, data: bytes) -> None:
        put = await blobs.put(ALPHA, digest_of(data), pieces(data), size_max=len(data))
        chunks = [chunk async for chunk in await blobs.open(ALPHA, digest_of(data))]

        assert put == PutBlob(len(data), created=True)
        assert b"".join(chunks) == data
        assert all(0 < len(chunk) <= READ_CHUNK for chunk in chunks)
        assert await blobs.read(ALPHA, digest_of(data), size_max=len(data)) == data
        assert await blobs.exists(ALPHA, digest_of(data))

    async def test_putting_again_is_fine(self, blobs: Blobs) -> None:
        await blobs.put(ALPHA, digest_of(SMALL), pieces(SMALL), size_max=100)
        again = await blobs.put(ALPHA, digest_of(SMALL), pieces(SMALL), size_max=100)

        assert again == PutBlob(len(SMALL), created=False)

    async def test_bytes_with_another_digest_are_refused(self, blobs: Blobs) -> None:
        with pytest.raises(DigestMismatch):
            await blobs.put(ALPHA, digest_of(LARGE), pieces(SMALL), size_max=100)

        assert not await blobs.exists(ALPHA, digest_of(LARGE))
        assert not await blobs.exists(ALPHA, digest_of(SMALL))

    async def test_more_bytes_than_allowed_are_refused(self, blobs: Blobs) -> None:
        with pytest.raises(TooLarge):
            await blobs.put(ALPHA, digest_of(LARGE), pieces(LARGE), size_max=len(LARGE) - 1)

        assert not await blobs.exists(ALPHA, digest_of(LARGE))

    async def test_a_stream_that_breaks_leaves_nothing(self, blobs: Blobs) -> None:
        async def broken() -> AsyncGenerator[bytes]:
            yield SMALL
            raise ConnectionResetError

        with pytest.raises(ConnectionResetError):
            await blobs.put(ALPHA, digest_of(SMALL), broken(), size_max=100)

        assert not await blobs.exists(ALPHA, digest_of(SMALL))

    async def test_orgs_share_nothing(self, blobs: Blobs) -> None:
        await blobs.put(ALPHA, digest_of(SMALL), pieces(SMALL), size_max=100)

        assert not await blobs.exists(BETA, digest_of(SMALL))
        with pytest.raises(NotFound):
            await blobs.open(BETA, digest_of(SMALL))
        assert not await blobs.delete(BETA, digest_of(SMALL))
        assert await blobs.exists(ALPHA, digest_of(SMALL))

    async def test_what_is_taken_has_a_name_when_it_is_kept_and_can_be_lent(self, blobs: Blobs) -> None:
        taken = await blobs.take(filling(LARGE), size=len(LARGE))
        assert not await blobs.exists(ALPHA, taken.sha256)
        assert await blobs.keep(ALPHA, taken) == PutBlob(len(LARGE), created=True)
        await blobs.discard(taken)
        descriptor = (await blobs.lend(ALPHA, taken.sha256)).descriptor
        try:
            assert os.pread(descriptor, len(LARGE) + 1, 0) == LARGE
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.write(descriptor, b"!")
        finally:
            os.close(descriptor)

        assert taken.sha256 == digest_of(LARGE)
        again = await blobs.take(filling(LARGE), size=len(LARGE))
        assert await blobs.keep(ALPHA, again) == PutBlob(len(LARGE), created=False)
        await blobs.discard(again)
        with pytest.raises(NotFound):
            await blobs.lend(BETA, taken.sha256)

    async def test_more_than_fits_into_memory_is_taken_whole(self, blobs: Blobs) -> None:
        taken = await blobs.take(filling(LONG, 3_000_000), size=len(LONG))
        await blobs.keep(ALPHA, taken)

        assert taken.sha256 == digest_of(LONG)
        assert await blobs.read(ALPHA, taken.sha256, size_max=len(LONG)) == LONG

    async def test_bytes_that_end_early_are_not_taken(self, blobs: Blobs) -> None:
        with pytest.raises(DigestMismatch):
            await blobs.take(filling(LARGE), size=len(LARGE) + 1)

    async def test_an_unknown_blob_is_not_found_before_the_first_byte(self, blobs: Blobs) -> None:
        with pytest.raises(NotFound):
            await blobs.open(ALPHA, digest_of(b"unknown"))
        with pytest.raises(NotFound):
            await blobs.read(ALPHA, digest_of(b"unknown"), size_max=100)

    async def test_a_blob_that_is_larger_than_expected_is_not_read_whole(self, blobs: Blobs) -> None:
        await blobs.put(ALPHA, digest_of(SMALL), pieces(SMALL), size_max=100)

        with pytest.raises(TooLarge):
            await blobs.read(ALPHA, digest_of(SMALL), size_max=len(SMALL) - 1)

    async def test_a_deleted_blob_is_gone(self, blobs: Blobs) -> None:
        await blobs.put(ALPHA, digest_of(SMALL), pieces(SMALL), size_max=100)

        assert await blobs.delete(ALPHA, digest_of(SMALL))
        assert not await blobs.delete(ALPHA, digest_of(SMALL))
        assert not await blobs.exists(ALPHA, digest_of(SMALL))

    @pytest.mark.parametrize("name", ["", "..", "../" * 21 + "x", "A" * 64, "0" * 63, "0" * 65, "0" * 63 + "\n"])
    async def test_a_name_that_is_no_digest_is_refused(self, blobs: Blobs, name: str) -> None:
        with pytest.raises(ValueError, match="64"):
            await blobs.exists(ALPHA, name)
        with pytest.raises(ValueError, match="64"):
            await blobs.put(ALPHA, name, pieces(SMALL), size_max=100)
        with pytest.raises(ValueError, match="64"):
            await blobs.exists(OrgId("../alpha"), digest_of(SMALL))
