"""Unpacks an uploaded archive without trusting it (G19.4).

The archive is a gzip-compressed tar. The standard library's `tarfile` is not used: it reads headers of any size
into memory and knows kinds of entries that we never want to meet. Here each header is a 512-byte block with a
verified checksum; only regular files and directories exist; long names come by a bounded pax or GNU header; every
name is opened one component at a time relative to the folder above, never following a link and never opening what
exists. Bytes, files and folders are counted as they are made, so what a header claims is worth nothing and a folder
that no header names counts too.
"""

from __future__ import annotations

import errno
import gzip
import os
import unicodedata
import zlib
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from apothic.wire.limits import ARCHIVE_ENTRIES_MAX, ARCHIVE_UNPACKED_MAX

BLOCK = 512
EXTENDED_HEADER_MAX = 64 * 1024
NAME_BYTES_MAX = 1024
COMPONENT_BYTES_MAX = 255
DEPTH_MAX = 64
PADDING_MAX = 1024 * 1024
EXTENDED_IN_A_ROW_MAX = 4
COPY_CHUNK = 256 * 1024


_UNSEEN = frozenset({"Cc", "Cf", "Zl", "Zp"})
"""Categories of characters that hide, reverse or break what a name looks like."""


class ArchiveRefused(Exception):
    """The archive is not one that we unpack; the text says why."""


@dataclass(frozen=True)
class UnpackLimits:
    """Bounds counted while writing; entries are files and folders."""

    bytes_max: int = ARCHIVE_UNPACKED_MAX
    entries_max: int = ARCHIVE_ENTRIES_MAX


def unpack(source: BinaryIO, target: Path, limits: UnpackLimits = UnpackLimits()) -> None:
    """Unpack `source` into `target`, an empty folder of ours. Files become 0644 or 0755, folders 0755.

    Raises:
        ArchiveRefused: The archive is damaged, too large, or holds an entry of another kind. `target` may be half
            filled; the caller removes it.
    """
    root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with gzip.GzipFile(fileobj=source, mode="rb") as plain:
            _Unpacker(plain, root, limits).run()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ArchiveRefused(f"the archive is damaged: {error}") from error
    finally:
        os.close(root)


@dataclass
class _Header:
    name: bytes
    kind: bytes
    size: int
    is_executable: bool


@dataclass
class _Overrides:
    """What an extended header said about the next entry."""

    name: bytes | None = None
    size: int | None = None


@dataclass
class _Unpacker:
    plain: gzip.GzipFile
    root: int
    limits: UnpackLimits
    made: int = 0
    written: int = 0
    extended: int = 0
    named: set[tuple[str, ...]] = field(default_factory=set[tuple[str, ...]])

    def run(self) -> None:
        overrides = _Overrides()
        while (block := self._read(BLOCK)) != bytes(BLOCK):
            header = _parse_header(block)
            if header.kind in (b"x", b"g", b"L"):
                overrides = self._extended(header, overrides)
                continue
            self.extended = 0
            if overrides.size is not None:
                header.size = overrides.size
            self._entry(header, _components(overrides.name or header.name))
            overrides = _Overrides()
        self._padding()

    def _count(self) -> None:
        """One more file or folder is about to be made."""
        self.made += 1
        if self.made > self.limits.entries_max:
            raise ArchiveRefused(f"the archive has more than {self.limits.entries_max} entries")

    def _extended(self, header: _Header, before: _Overrides) -> _Overrides:
        self.extended += 1
        if self.extended > EXTENDED_IN_A_ROW_MAX:
            raise ArchiveRefused("the archive has too many extended headers in a row")
        if header.size > EXTENDED_HEADER_MAX:
            raise ArchiveRefused("the archive has an extended header that is too long")
        data = self._read(header.size)
        self._read(-header.size % BLOCK)
        if header.kind == b"L":
            return _Overrides(data.rstrip(b"\0"), before.size)
        records = _pax_records(data)
        if any(key.startswith(b"GNU.sparse.") for key in records):
            raise ArchiveRefused("the archive holds a sparse file, which is no regular file and no directory")
        if header.kind == b"g":
            if records.keys() & {b"path", b"size"}:
                raise ArchiveRefused("the archive has a global header that names files")
            return before
        size = records.get(b"size")
        return _Overrides(records.get(b"path", before.name), _decimal(size) if size is not None else before.size)

    def _entry(self, header: _Header, path: tuple[str, ...]) -> None:
        shown = "/".join(path)
        if header.kind == b"5":
            if path and path in self.named:
                raise ArchiveRefused(f"the archive names {shown!r} twice")
            self.named.add(path)
            with self._folder(path):
                return
        if header.kind not in (b"0", b"\0"):
            raise ArchiveRefused(f"the archive holds {shown!r}, which is no regular file and no directory")
        if not path or path in self.named:
            raise ArchiveRefused(f"the archive names {shown!r} twice")
        self.named.add(path)
        if header.size > self.limits.bytes_max:
            raise ArchiveRefused(f"the archive unpacks to more than {self.limits.bytes_max} bytes")
        with self._folder(path[:-1]) as folder:
            self._file(folder, path, header)

    @contextmanager
    def _folder(self, path: tuple[str, ...]) -> Generator[int]:
        """Open a folder below the root, component by component, making what is missing."""
        current = os.dup(self.root)
        try:
            for name in path:
                inner = self._open_folder(current, name, path)
                os.close(current)
                current = inner
            yield current
        finally:
            os.close(current)

    def _open_folder(self, parent: int, name: str, path: tuple[str, ...]) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with suppress(FileNotFoundError):
                return os.open(name, flags, dir_fd=parent)
            self._count()
            os.mkdir(name, 0o755, dir_fd=parent)
            return os.open(name, flags, dir_fd=parent)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP, errno.EEXIST):
                raise
            raise ArchiveRefused(f"the archive uses a file as the folder of {'/'.join(path)!r}") from error

    def _file(self, folder: int, path: tuple[str, ...], header: _Header) -> None:
        self._count()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(path[-1], flags, 0o755 if header.is_executable else 0o644, dir_fd=folder)
        except FileExistsError as error:
            raise ArchiveRefused(f"the archive names {'/'.join(path)!r} twice") from error
        with os.fdopen(descriptor, "wb", buffering=0) as out:
            self._copy(out, header.size)
        self._read(-header.size % BLOCK)

    def _copy(self, out: BinaryIO, size: int) -> None:
        while size:
            chunk = self.plain.read(min(size, COPY_CHUNK))
            if not chunk:
                raise ArchiveRefused("the archive is cut off")
            self.written += len(chunk)
            if self.written > self.limits.bytes_max:
                raise ArchiveRefused(f"the archive unpacks to more than {self.limits.bytes_max} bytes")
            out.write(chunk)
            size -= len(chunk)

    def _read(self, size: int) -> bytes:
        data = self.plain.read(size)
        if len(data) != size:
            raise ArchiveRefused("the archive is cut off")
        return data

    def _padding(self) -> None:
        """Read to the end, so that the checksum of the compression is verified; only zeros may follow."""
        seen = 0
        while chunk := self.plain.read(COPY_CHUNK):
            seen += len(chunk)
            if seen > PADDING_MAX or chunk.strip(b"\0"):
                raise ArchiveRefused("the archive has data after its end")


def _parse_header(block: bytes) -> _Header:
    total = sum(block) - sum(block[148:156]) + 8 * 32
    if _octal(block[148:156]) != total:
        raise ArchiveRefused("the archive is damaged: a header has a wrong checksum")
    name = block[:100].rstrip(b"\0")
    if block[257:263] == b"ustar\0" and (prefix := block[345:500].rstrip(b"\0")):
        name = prefix + b"/" + name
    return _Header(name, block[156:157], _octal(block[124:136]), bool(_octal(block[100:108]) & 0o100))


def _octal(text: bytes) -> int:
    digits = text.strip(b" \0")
    if not digits:
        return 0
    if digits.strip(b"01234567"):
        raise ArchiveRefused("the archive is damaged: a header has a number that is none")
    return int(digits, 8)


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 15:
        raise ArchiveRefused("the archive is damaged: a header has a number that is none")
    return int(text)


def _pax_records(data: bytes) -> dict[bytes, bytes]:
    records: dict[bytes, bytes] = {}
    start = 0
    while start < len(data):
        length_text, blank, _ = data[start : start + 8].partition(b" ")
        length = _decimal(length_text) if blank else 0
        record = data[start + len(length_text) + 1 : start + length]
        key, equals, value = record.partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise ArchiveRefused("the archive is damaged: an extended header cannot be read")
        records[key] = value[:-1]
        start += length
    return records


def _components(raw: bytes) -> tuple[str, ...]:
    """Return the path as components; the root folder itself is the empty tuple."""
    try:
        name = raw.decode()
    except UnicodeDecodeError as error:
        raise ArchiveRefused("the archive holds a name that is not UTF-8") from error
    if len(raw) > NAME_BYTES_MAX:
        raise ArchiveRefused("the archive holds a name that is too long")
    if name.startswith("/") or "\0" in name or not name:
        raise ArchiveRefused(f"the archive holds the name {name!r}, which is not relative")
    parts = name.removeprefix("./").removesuffix("/").split("/")
    if parts in (["."], [""]) and name in (".", "./"):
        return ()
    if len(parts) > DEPTH_MAX or any(len(part.encode()) > COMPONENT_BYTES_MAX for part in parts):
        raise ArchiveRefused("the archive holds a name that is too long")
    if any(unicodedata.category(character) in _UNSEEN for character in name):
        raise ArchiveRefused(f"the archive holds the name {name!r}, which has characters that cannot be seen")
    if any(part in ("", ".", "..") for part in parts):
        raise ArchiveRefused(f"the archive holds the name {name!r}, which leaves its folder or is not plain")
    return tuple(parts)
