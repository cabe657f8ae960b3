"""The archive of an app: which bytes a deploy uploads, the same ones on every machine.

An archive is a gzip of a tar of regular files and folders: sorted, times and owners zero, modes 0644 and 0755. The gzip
stores instead of compressing, because compressed bytes differ between builds of zlib while equal content must have one
digest; app sources are small. Each entry has blocks of its own, so an entry is the same bytes in every archive that
holds it, and a deploy can send what changed alone (`_archive_parts.py`).
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import struct
import tarfile
import tempfile
import weakref
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from apothic._placed_files import AddedFiles, with_added
from apothic._sources import Mounts, Source, Sources, find_sources, stamp_of
from apothic.errors import ConflictError, InvalidRequestError, TooLargeError
from apothic.wire.limits import ARCHIVE_ENTRIES_MAX, ARCHIVE_PACKED_MAX, ARCHIVE_UNPACKED_MAX, MIB

IN_MEMORY_MAX = 8 * MIB
"""Archives of more bytes of files are written to a temporary file."""

_BLOCK = 512
_RECORD = 20 * _BLOCK
_STORED_MAX = 65_535
_BLOCK_HEAD = 5
GZIP_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_CHUNK = 1 * MIB
_BIGGEST_NAMED = 5
_REPLACED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO})
"""Why a file cannot be opened that was there before: it is gone, or a link or a socket by now."""


@dataclass(frozen=True)
class ArchiveLimits:
    """Largest archive in bytes before and after packing, and in entries."""

    packed_bytes: int = ARCHIVE_PACKED_MAX
    unpacked_bytes: int = ARCHIVE_UNPACKED_MAX
    entries: int = ARCHIVE_ENTRIES_MAX
    in_memory_bytes: int = IN_MEMORY_MAX


@dataclass(frozen=True)
class PackedFile:
    """One file of an archive: its path there, with `/` between names, its size, and once packed its SHA-256 in hex."""

    path: str
    size_bytes: int
    sha256: str = ""


@dataclass(frozen=True)
class Packed:
    """A finished archive.

    Attributes:
        data: The archive, or the temporary file that holds it; the file goes away with this object.
        sha256: Digest of the archive in hex.
        size_bytes: Size of the archive.
        files: What it holds, sorted by path.
        module: Dotted name under which a runner imports the app's file.
        notes: Sentences for the person who deploys: what was left out, and why.
        imports: Dotted names that the files import from elsewhere; see `apothic._packages`.
        mounts: Of the functions whose images add files, by name; see `apothic._placed_files`.
    """

    data: bytes | Path
    sha256: str
    size_bytes: int
    files: tuple[PackedFile, ...]
    module: str
    notes: tuple[str, ...]
    imports: tuple[str, ...] = ()
    mounts: dict[str, Mounts] = field(default_factory=dict[str, Mounts])

    @property
    def files_size_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(file.size_bytes for file in self.files)


def pack(
    app_file: Path, *, search_path: Sequence[str] | None = None, added: Mapping[str, AddedFiles] | None = None
) -> Packed:
    """Pack `app_file`, what it imports from under its root and what images add; nothing is imported or executed.

    Args:
        app_file: The file that defines the app.
        search_path: Folders beside the usual ones that imports are looked up in when they lie under the root, by
            default `sys.path`.
        added: What the images of functions add, by the function's name.

    Raises:
        InvalidRequestError: The file is missing or unreadable, does not parse (`syntax_error`), a file that looks
            like a secret would be uploaded (`secret_refused`), or an added folder has a link that leaves it
            (`link_outside`).
        TooLargeError: The files exceed a limit; the message names the biggest.
        ConflictError: A file changed or went away while it was packed (`file_changed`), or two would lie at one place
            (`place_taken`).
    """
    try:
        return write_archive(with_added(find_sources(app_file, search_path=search_path), added or {}))
    except OSError as error:
        raise InvalidRequestError(f"Cannot read {error.filename}: {error.strerror}.", code="file_unreadable") from error


def list_files(sources: Sources) -> tuple[PackedFile, ...]:
    """Return what an archive of `sources` will hold, sorted by path."""
    return tuple(PackedFile(source.archive_path, source.stamp.size_bytes) for source in sources.files)


def describe(files: Sequence[PackedFile]) -> str:
    """Return number and size in words, for example `1 file, 412 bytes`."""
    size_bytes = sum(file.size_bytes for file in files)
    return f"{len(files):,} file{'' if len(files) == 1 else 's'}, {size_bytes:,} byte{'' if size_bytes == 1 else 's'}"


def write_archive(sources: Sources, *, limits: ArchiveLimits | None = None) -> Packed:
    """Write the archive of files found before.

    Raises:
        TooLargeError: The files exceed a limit; the message names the biggest.
        ConflictError: A file is no longer what it was when it was found (`file_changed`).
        OSError: A file can no longer be read.
    """
    limits = limits or ArchiveLimits()
    files = list_files(sources)
    folders = folders_of(files)
    _check_size(files, len(files) + len(folders), limits)
    in_memory = sum(file.size_bytes for file in files) <= limits.in_memory_bytes
    digests: dict[str, str] = {}
    data: bytes | Path
    if in_memory:
        sink = io.BytesIO()
        gzip = _write(sink, sources, folders, digests)
        data = sink.getvalue()
    else:
        data, gzip = _write_temporary(sources, folders, digests)
    files = tuple(replace(file, sha256=digests[file.path]) for file in files)
    packed = Packed(
        data, gzip.sha256, gzip.size_bytes, files, sources.module, sources.notes, sources.imports, sources.mounts
    )
    if isinstance(data, Path):
        weakref.finalize(packed, _remove, data)
    if packed.size_bytes > limits.packed_bytes:
        raise _too_large(files, f"it has {packed.size_bytes} bytes, at most {limits.packed_bytes} are allowed")
    return packed


def _write(sink: BinaryIO, sources: Sources, folders: Sequence[str], digests: dict[str, str]) -> _StoredGzip:
    """Write the archive, and into `digests` the SHA-256 of each file."""
    gzip = _StoredGzip(sink)
    for entry in _entries(sources.files, folders, digests):
        for chunk in entry:
            gzip.write(chunk)
        gzip.end_entry()
    end = 2 * _BLOCK
    gzip.write(bytes(end + -(gzip.plain_bytes + end) % _RECORD))
    gzip.finish()
    return gzip


def _write_temporary(sources: Sources, folders: Sequence[str], digests: dict[str, str]) -> tuple[Path, _StoredGzip]:
    descriptor, name = tempfile.mkstemp(prefix="apothic-", suffix=".tar.gz")
    path = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as sink:
            return path, _write(sink, sources, folders, digests)
    except BaseException:
        _remove(path)
        raise


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _check_size(files: Sequence[PackedFile], entries: int, limits: ArchiveLimits) -> None:
    size_bytes = sum(file.size_bytes for file in files)
    if entries > limits.entries:
        raise _too_large(files, f"the app has {entries} files and folders, at most {limits.entries} are allowed")
    if size_bytes > min(limits.unpacked_bytes, limits.packed_bytes):
        allowed = min(limits.unpacked_bytes, limits.packed_bytes)
        raise _too_large(files, f"the app's files have {size_bytes} bytes, at most {allowed} are allowed")


def _too_large(files: Sequence[PackedFile], what: str) -> TooLargeError:
    biggest = sorted(files, key=lambda file: (-file.size_bytes, file.path))[:_BIGGEST_NAMED]
    named = ", ".join(f"{file.path} ({file.size_bytes} bytes)" for file in biggest)
    return TooLargeError(
        f"The archive is too large: {what}. The biggest: {named}. "
        "Import less, or name what is not needed in .apothicignore.",
        code="too_large",
    )


def folders_of(files: Sequence[PackedFile]) -> list[str]:
    """Return the folders that hold the files, sorted."""
    found = {str(parent) for file in files for parent in PurePosixPath(file.path).parents}
    return sorted(found - {"."})


def _entries(sources: Sequence[Source], folders: Sequence[str], digests: dict[str, str]) -> Iterator[Iterator[bytes]]:
    """Yield the entries of a tar, each folder before what it holds."""
    by_path: dict[str, Source | None] = {**dict.fromkeys(folders), **{one.archive_path: one for one in sources}}
    for path in sorted(by_path):
        source = by_path[path]
        yield iter((_header(path, 0, is_folder=True),)) if source is None else _file(path, source, digests)


def _file(path: str, source: Source, digests: dict[str, str]) -> Iterator[bytes]:
    yield _header(path, source.stamp.size_bytes, is_folder=False)
    digest = hashlib.sha256()
    for chunk in _content(source):
        digest.update(chunk)
        yield chunk
    digests[path] = digest.hexdigest()
    yield bytes(-source.stamp.size_bytes % _BLOCK)


def entry_bytes(path: str, size_bytes: int | None) -> int:
    """Return how many bytes of an archive the entry of a file, or of a folder (None), takes."""
    plain = len(_header(path, size_bytes or 0, is_folder=size_bytes is None))
    if size_bytes is not None:
        plain += size_bytes + -size_bytes % _BLOCK
    return plain + _BLOCK_HEAD * -(-plain // _STORED_MAX)


def _header(path: str, size_bytes: int, *, is_folder: bool) -> bytes:
    info = tarfile.TarInfo(path)
    info.type, info.mode = (tarfile.DIRTYPE, 0o755) if is_folder else (tarfile.REGTYPE, 0o644)
    info.size = size_bytes
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def _content(source: Source) -> Iterator[bytes]:
    """Yield the file's bytes.

    Raises:
        ConflictError: The file differs from its stamp, before or after reading, or is gone or something else by now.
    """
    try:
        descriptor = os.open(source.file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in _REPLACED:
            raise
        raise _changed(source) from error
    try:
        size = 0
        while stamp_of(os.fstat(descriptor)) == source.stamp:
            chunk = os.read(descriptor, _CHUNK)
            if not chunk and size == source.stamp.size_bytes:
                return
            size += len(chunk)
            if not chunk or size > source.stamp.size_bytes:
                break
            yield chunk
    finally:
        os.close(descriptor)
    raise _changed(source)


def _changed(source: Source) -> ConflictError:
    return ConflictError(f"{source.archive_path} changed while it was packed: deploy again.", code="file_changed")


class _StoredGzip:
    """Writes a gzip stream of stored blocks, whose bytes depend on the content and nothing else."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self._digest = hashlib.sha256()
        self._pending = bytearray()
        self._crc = 0
        self._length = 0
        self.size_bytes = 0
        self._put(GZIP_HEAD)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    @property
    def plain_bytes(self) -> int:
        return self._length

    def write(self, data: bytes) -> None:
        self._crc = zlib.crc32(data, self._crc)
        self._length += len(data)
        self._pending += data
        while len(self._pending) > _STORED_MAX:
            self._put_block(bytes(self._pending[:_STORED_MAX]), is_last=False)
            del self._pending[:_STORED_MAX]

    def end_entry(self) -> None:
        if self._pending:
            self._put_block(bytes(self._pending), is_last=False)
            self._pending.clear()

    def finish(self) -> None:
        self._put_block(bytes(self._pending), is_last=True)
        self._put(struct.pack("<II", self._crc, self._length & 0xFFFFFFFF))

    def _put_block(self, data: bytes, *, is_last: bool) -> None:
        self._put(struct.pack("<BHH", is_last, len(data), len(data) ^ 0xFFFF) + data)

    def _put(self, data: bytes) -> None:
        self._sink.write(data)
        self._digest.update(data)
        self.size_bytes += len(data)
