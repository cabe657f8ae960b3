"""Blobs as files: `<root>/<org>/<first two digits>/<sha256>`.

A blob is written under a temporary name in the folder `<root>/.incoming`, flushed to disk, renamed to its place, and
the folder's entry is flushed too. A crash leaves files in `.incoming` only; `sweep` removes them at the next start.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from apothic.wire.ids import OrgId, is_key
from apothic_server.domain.errors import NotFound, TooLarge, Unavailable
from apothic_server.ports.blobs import READ_CHUNK, DigestMismatch, PutBlob

INCOMING = ".incoming"
WRITE_CHUNK = 1024 * 1024
"""Bytes collected before a thread writes them."""

MISMATCH = "the bytes do not have the SHA-256 they were sent under"

_SHA256 = re.compile(r"[0-9a-f]{64}")


class FileBlobs:
    """Implements `apothic_server.ports.blobs.Blobs` in one folder that nothing else writes to.

    Args:
        root: Made, with mode 0700, when absent; the folder above it must be there.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / INCOMING

    async def put(self, org: OrgId, sha256: str, chunks: AsyncIterator[bytes], *, size_max: int) -> PutBlob:
        """See the port."""
        place = self._place(org, sha256)
        temporary = self._incoming / secrets.token_hex(16)
        try:
            size = await self._receive(temporary, sha256, chunks, size_max)
            with _usable():
                created = await asyncio.to_thread(_publish, temporary, place, self._root)
        finally:
            await asyncio.shield(asyncio.to_thread(_discard, temporary))
        return PutBlob(size, created)

    async def open(self, org: OrgId, sha256: str) -> AsyncGenerator[bytes]:
        """See the port."""
        with _usable():
            file = await asyncio.to_thread(_open, self._place(org, sha256))
        return _chunks(file)

    async def read(self, org: OrgId, sha256: str, *, size_max: int) -> bytes:
        """See the port."""
        with _usable():
            return await asyncio.to_thread(_read, self._place(org, sha256), size_max)

    async def exists(self, org: OrgId, sha256: str) -> bool:
        """See the port."""
        with _usable():
            return await asyncio.to_thread(self._place(org, sha256).is_file)

    async def delete(self, org: OrgId, sha256: str) -> bool:
        """See the port."""
        with _usable():
            return await asyncio.to_thread(_delete, self._place(org, sha256))

    async def sweep(self) -> int:
        """Remove what interrupted writes left and return how many files that were. Only while nothing is being put."""
        with _usable():
            return await asyncio.to_thread(_sweep, self._incoming)

    def _place(self, org: OrgId, sha256: str) -> Path:
        if not is_key(org) or _SHA256.fullmatch(sha256) is None:
            raise ValueError("a blob is named by an org's key and 64 lower-case hexadecimal digits")
        return self._root / org / sha256[:2] / sha256

    async def _receive(self, temporary: Path, sha256: str, chunks: AsyncIterator[bytes], size_max: int) -> int:
        with _usable():
            file = await asyncio.to_thread(_create, temporary)
        digest, size, kept, kept_size = hashlib.sha256(), 0, list[bytes](), 0
        with file:
            async for chunk in chunks:
                size += len(chunk)
                if size > size_max:
                    raise TooLarge(f"more than {size_max} bytes")
                kept.append(chunk)
                kept_size += len(chunk)
                if kept_size >= WRITE_CHUNK:
                    await _append(file, digest.update, kept)
                    kept, kept_size = [], 0
            await _append(file, digest.update, kept)
            if digest.hexdigest() != sha256:
                raise DigestMismatch(MISMATCH)
            with _usable():
                await asyncio.to_thread(os.fsync, file.fileno())
        return size


@contextmanager
def _usable() -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable("the blob store cannot be used", retry_after_s=1) from error


async def _append(file: IO[bytes], digested: Callable[[bytes], None], chunks: list[bytes]) -> None:
    with _usable():
        await asyncio.to_thread(_write, file, digested, chunks)


def _create(temporary: Path) -> IO[bytes]:
    for folder in (temporary.parent.parent, temporary.parent):
        folder.mkdir(mode=0o700, exist_ok=True)
    return os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb", buffering=0)


def _write(file: IO[bytes], digested: Callable[[bytes], None], chunks: list[bytes]) -> None:
    for chunk in chunks:
        digested(chunk)
        view = memoryview(chunk)
        while view:
            view = view[file.write(view) :]


def _publish(temporary: Path, place: Path, root: Path) -> bool:
    created = not place.is_file()
    if created:
        _make_folder(place.parent, root)
        temporary.rename(place)
    # Also for a file that was there: whoever put it may have crashed before this line.
    _sync_folder(place.parent)
    return created


def _discard(temporary: Path) -> None:
    with suppress(OSError):
        temporary.unlink()


def _make_folder(folder: Path, root: Path) -> None:
    missing = [step for step in (folder, *folder.parents) if root in step.parents and not step.is_dir()]
    for step in reversed(missing):
        step.mkdir(mode=0o700, exist_ok=True)
        _sync_folder(step.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open(place: Path) -> IO[bytes]:
    try:
        return place.open("rb", buffering=0)
    except FileNotFoundError:
        raise NotFound("no such blob") from None


async def _chunks(file: IO[bytes]) -> AsyncGenerator[bytes]:
    with file, _usable():
        while chunk := await asyncio.to_thread(file.read, READ_CHUNK):
            yield chunk


def _read(place: Path, size_max: int) -> bytes:
    with _open(place) as file:
        if os.fstat(file.fileno()).st_size > size_max:
            raise TooLarge(f"more than {size_max} bytes")
        return place.read_bytes()


def _delete(place: Path) -> bool:
    try:
        place.unlink()
    except FileNotFoundError:
        return False
    _sync_folder(place.parent)
    return True


def _sweep(incoming: Path) -> int:
    if not incoming.is_dir():
        return 0
    left = list(incoming.iterdir())
    for path in left:
        path.unlink()
    return len(left)
