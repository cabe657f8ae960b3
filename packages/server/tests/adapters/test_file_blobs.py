"""Blobs in files: the contract, and what a crash leaves."""

import asyncio
import os
from pathlib import Path

import pytest

from apothic_server.adapters.blobs.files import INCOMING, FileBlobs
from apothic_server.domain.errors import Unavailable
from apothic_server.testing.blobs import ALPHA, BlobsContract, digest_of, filling, pieces
from apothic_server.testing.guarantees import guarantee


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    return FileBlobs(tmp_path / "blobs")


class TestFileBlobs(BlobsContract):
    pass


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.anyio
async def test_an_interrupted_put_leaves_a_temporary_file_that_the_sweep_removes(blobs, tmp_path):
    left = tmp_path / "blobs" / INCOMING / "00ff"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half a blo")

    assert await blobs.sweep() == 1
    assert await blobs.sweep() == 0
    assert files(tmp_path) == []


@pytest.mark.anyio
async def test_a_cancelled_put_leaves_nothing(blobs, tmp_path):
    begun = asyncio.Event()

    async def endless():
        while True:
            begun.set()
            yield b"x" * 1000
            await asyncio.sleep(0)

    task = asyncio.create_task(blobs.put(ALPHA, "0" * 64, endless(), size_max=10**12))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert files(tmp_path) == []


@guarantee("G14.1", "acked_survives_power_cut")
@pytest.mark.anyio
async def test_what_is_taken_is_on_the_disk_before_it_has_its_name_and_its_name_before_it_is_kept(blobs, monkeypatch):
    data, synced, real = b"bytes" * 1_000_000, list[int](), os.fsync

    def fsync(descriptor):
        real(descriptor)
        synced.append(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", fsync)
    taken = await blobs.take(filling(data), size=len(data))
    before = set(synced)
    await blobs.keep(ALPHA, taken)
    place = blobs._place(ALPHA, taken.sha256)

    assert place.stat().st_ino in before
    assert synced[-1] == place.parent.stat().st_ino


@pytest.mark.anyio
async def test_puts_of_the_same_bytes_at_once_make_one_file(blobs, tmp_path):
    data = b"the same" * 100_000
    puts = [blobs.put(ALPHA, digest_of(data), pieces(data), size_max=len(data)) for _ in range(8)]
    await asyncio.gather(*puts)

    assert [path.name for path in files(tmp_path)] == [digest_of(data)]


@pytest.mark.anyio
async def test_folders_and_files_are_closed_to_others(blobs, tmp_path):
    await blobs.put(ALPHA, digest_of(b"x"), pieces(b"x"), size_max=1)

    for path in (tmp_path / "blobs").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0
    assert (tmp_path / "blobs").stat().st_mode & 0o077 == 0


@pytest.mark.anyio
async def test_a_place_that_cannot_be_used_is_unavailable(tmp_path):
    (tmp_path / "blobs").write_text("a file where the folder should be")

    with pytest.raises(Unavailable):
        await FileBlobs(tmp_path / "blobs").put(ALPHA, digest_of(b"x"), pieces(b"x"), size_max=1)
