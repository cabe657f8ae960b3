"""Blobs as files: `<root>/<org>/<first two digits>/<sha256>`.

A blob is written under a temporary name in the folder `<root>/.incoming`, flushed to disk, renamed to its place, and
the folder's entry is flushed too. A crash leaves files in `.incoming` only; `sweep` removes them at the next start.
An upload that can go on later lies in `<root>/.unfinished`, locked while bytes come.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import re
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from apothic.wire.ids import OrgId, is_key
from apothic_server.adapters.blobs.read_only import read_only_view
from apothic_server.adapters.blobs.taking import take_in
from apothic_server.domain.errors import NotFound, TooLarge, Unavailable
from apothic_server.ports.blobs import READ_CHUNK, DigestMismatch, Fill, Lent, PutBlob, Taken, WrongOffset

INCOMING, UNFINISHED = ".incoming", ".unfinished"
WRITE_CHUNK = 1024 * 1024
"""Bytes collected before a thread writes them."""

TAKERS = 32
"""Threads for bytes that come from processes of this machine, which may stop sending at any time."""

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
        self._takers = ThreadPoolExecutor(TAKERS, thread_name_prefix="blobs")
        self._view: asyncio.Future[int | None] | None = None

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

    async def put_from(
        self, org: OrgId, sha256: str, chunks: AsyncIterator[bytes], *, offset: int, size_max: int
    ) -> PutBlob:
        """See the port."""
        place, unfinished = self._place(org, sha256), self._unfinished(org, sha256)
        with _usable():
            file = await asyncio.to_thread(_take, unfinished)
        if file is None and not offset:
            return await self.put(org, sha256, chunks, size_max=size_max)
        if file is None:
            raise WrongOffset("another request uploads this blob; begin anew")
        with file:
            try:
                size = await self._go_on(file, sha256, chunks, offset, size_max)
                with _usable():
                    created = await asyncio.to_thread(_publish, unfinished, place, self._root)
            except (DigestMismatch, TooLarge):
                await asyncio.shield(asyncio.to_thread(_discard, unfinished))
                raise
            if not created:
                await asyncio.to_thread(_discard, unfinished)
        return PutBlob(size, created)

    async def received(self, org: OrgId, sha256: str) -> int:
        """See the port."""
        with _usable():
            return await asyncio.to_thread(_size, self._unfinished(org, sha256)) or 0

    async def forget_received(self, *, older_than_s: float) -> None:
        """See the port."""
        with _usable():
            await asyncio.to_thread(_forget, self._root / UNFINISHED, time.time() - older_than_s)

    async def take(self, fill: Fill, *, size: int) -> Taken:
        """See the port."""
        temporary = self._incoming / secrets.token_hex(16)
        taking = asyncio.get_running_loop().run_in_executor(
            self._takers, lambda: take_in(_create(temporary), fill, size)
        )
        try:
            with _usable():
                digest = await asyncio.shield(taking)
        except BaseException:
            taking.add_done_callback(lambda _: _discard(temporary))
            raise
        return Taken(digest, size, temporary.name)

    async def keep(self, org: OrgId, taken: Taken) -> PutBlob:
        """See the port."""
        with _usable():
            place = self._place(org, taken.sha256)
            created = await asyncio.to_thread(_publish, self._incoming / taken.place, place, self._root)
        if not created:
            await self.discard(taken)
        return PutBlob(taken.size_bytes, created)

    async def discard(self, taken: Taken) -> None:
        """See the port."""
        await asyncio.shield(asyncio.to_thread(_discard, self._incoming / taken.place))

    async def lend(self, org: OrgId, sha256: str) -> Lent:
        """See the port."""
        place = self._place(org, sha256)
        with _usable():
            view = await self._read_only()
            return Lent(await asyncio.to_thread(_lend, place, self._root, view), view is not None)

    async def size(self, org: OrgId, sha256: str) -> int | None:
        """See the port."""
        with _usable():
            return await asyncio.to_thread(_size, self._place(org, sha256))

    async def open(self, org: OrgId, sha256: str, *, start: int = 0, size: int | None = None) -> AsyncGenerator[bytes]:
        """See the port."""
        with _usable():
            file = await asyncio.to_thread(_open, self._place(org, sha256))
            file.seek(start)
        return _chunks(file, size)

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

    async def _read_only(self) -> int | None:
        """Return the view that files are lent from, made when the first one is; None where there can be none."""
        if self._view is None:
            self._view = asyncio.ensure_future(asyncio.to_thread(read_only_view, self._root))
        return await asyncio.shield(self._view)

    def _place(self, org: OrgId, sha256: str) -> Path:
        if not is_key(org) or _SHA256.fullmatch(sha256) is None:
            raise ValueError("a blob is named by an org's key and 64 lower-case hexadecimal digits")
        return self._root / org / sha256[:2] / sha256

    def _unfinished(self, org: OrgId, sha256: str) -> Path:
        return self._root / UNFINISHED / f"{org}-{self._place(org, sha256).name}"

    async def _receive(self, temporary: Path, sha256: str, chunks: AsyncIterator[bytes], size_max: int) -> int:
        with _usable():
            file = await asyncio.to_thread(_create, temporary)
        with file:
            return await _take_in(file, sha256, chunks, size_max, hashlib.sha256())

    async def _go_on(
        self, file: IO[bytes], sha256: str, chunks: AsyncIterator[bytes], offset: int, size_max: int
    ) -> int:
        if os.fstat(file.fileno()).st_size < offset:
            raise WrongOffset("fewer bytes of this blob are here; ask how many")
        file.truncate(offset)
        digest = await asyncio.to_thread(_digest_so_far, file)
        return await _take_in(file, sha256, chunks, size_max, digest, offset)


async def _take_in(
    file: IO[bytes], sha256: str, chunks: AsyncIterator[bytes], size_max: int, digest: Any, size: int = 0
) -> int:
    """Write chunks to the end of a file of `size` bytes that `digest` knows; return the size of the whole.

    What came before an error of `chunks` is written too.
    """
    kept, kept_size = list[bytes](), 0
    try:
        async for chunk in chunks:
            size += len(chunk)
            if size > size_max:
                raise TooLarge(f"more than {size_max} bytes")
            kept.append(chunk)
            kept_size += len(chunk)
            if kept_size >= WRITE_CHUNK:
                full, kept, kept_size = kept, [], 0
                await _append(file, digest.update, full)
    except BaseException:
        with suppress(OSError):
            _write(file, digest.update, kept)
        raise
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
        writing = asyncio.ensure_future(asyncio.to_thread(_write, file, digested, chunks))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await writing  # the file is not closed under the thread that writes it
            raise


def _create(temporary: Path) -> IO[bytes]:
    for folder in (temporary.parent.parent, temporary.parent):
        folder.mkdir(mode=0o700, exist_ok=True)
    return os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb", buffering=0)


def _take(unfinished: Path) -> IO[bytes] | None:
    """Open an unfinished upload for this request alone; None when another one has it."""
    for folder in (unfinished.parent.parent, unfinished.parent):
        folder.mkdir(mode=0o700, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    file = os.fdopen(os.open(unfinished, flags, 0o600), "r+b", buffering=0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if unfinished.stat().st_ino == os.fstat(file.fileno()).st_ino:  # else it was finished meanwhile
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    file.close()
    return None


def _digest_so_far(file: IO[bytes]) -> Any:
    file.seek(0)
    digest = hashlib.sha256()
    while piece := file.read(WRITE_CHUNK):
        digest.update(piece)
    return digest


def _forget(folder: Path, before: float) -> None:
    for path in folder.iterdir() if folder.is_dir() else ():
        file = _take(path) if path.stat().st_mtime < before else None
        if file is not None:
            with file:
                _discard(path)


def _size(place: Path) -> int | None:
    try:
        return place.stat().st_size
    except FileNotFoundError:
        return None


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


def _lend(place: Path, root: Path, view: int | None) -> int:
    try:
        path = place if view is None else place.relative_to(root)
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=view)
    except FileNotFoundError:
        raise NotFound("no such blob") from None


async def _chunks(file: IO[bytes], left: int | None) -> AsyncGenerator[bytes]:
    with file, _usable():
        while chunk := await asyncio.to_thread(file.read, READ_CHUNK if left is None else min(left, READ_CHUNK)):
            yield chunk
            left = None if left is None else left - len(chunk)


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
