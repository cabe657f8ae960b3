"""What of an archive has to be sent when the server has another one: parts to copy, and new bytes.

An entry of an archive is the same bytes wherever it stands, and archives are sorted; so paths, sizes and digests of the
files of both say which ranges they share. Nobody has to have the old archive at hand but the server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from apothic._archive import GZIP_HEAD, IN_MEMORY_MAX, Packed, PackedFile, entry_bytes, folders_of
from apothic.wire.archive_parts import Part, encode_parts
from apothic.wire.limits import ARCHIVE_PARTS_MAX, ARCHIVE_PARTS_NEW_MAX

Layout = list[tuple[tuple[str, str], int]]
"""The entries of an archive in their order, each path with its digest (empty for folders), and its size in bytes."""


@dataclass(frozen=True)
class Upload:
    """What to send instead of an archive.

    Attributes:
        body: Its encoding.
        new_bytes: How many bytes of the archive are in it.
        new_files: How many of its files are in it.
    """

    body: bytes
    new_bytes: int
    new_files: int


def upload_parts(packed: Packed, base: str, manifest: Mapping[str, Any]) -> Upload | None:
    """Return the parts of `packed` over an archive of the server.

    Args:
        base: Digest of that archive.
        manifest: That of its deployment.

    Returns:
        None when that archive's files are not told, or when parts would not be worth it.
    """
    old = _told_files(manifest)
    parts = _parts(_layout(old), _layout(packed.files), packed.size_bytes) if old else []
    new_bytes = sum(part.size for part in parts if part.offset is None)
    if not 1 < len(parts) <= ARCHIVE_PARTS_MAX or new_bytes > min(ARCHIVE_PARTS_NEW_MAX, IN_MEMORY_MAX):
        return None
    known = {(file.path, file.sha256) for file in old}
    new_files = sum((file.path, file.sha256) not in known for file in packed.files)
    return Upload(encode_parts(base, parts, _new(packed.data, parts)), new_bytes, new_files)


def _told_files(manifest: Mapping[str, Any]) -> list[PackedFile]:
    digests, sizes = manifest.get("files"), manifest.get("file_sizes")
    if not isinstance(digests, dict) or not isinstance(sizes, list):
        return []
    by_path, found = cast("dict[str, str]", digests), cast("list[int]", sizes)
    if len(by_path) != len(found):
        return []
    return [PackedFile(path, size, by_path[path]) for path, size in zip(sorted(by_path), found, strict=True)]


def _layout(files: Sequence[PackedFile]) -> Layout:
    entries: dict[str, PackedFile | None] = {**dict.fromkeys(folders_of(files)), **{one.path: one for one in files}}
    return [
        ((path, file.sha256 if file else ""), entry_bytes(path, file.size_bytes if file else None))
        for path, file in sorted(entries.items())
    ]


def _parts(old: Layout, new: Layout, size_bytes: int) -> list[Part]:
    """Return the parts of an archive of `size_bytes`; neighbours are one part, what is copied comes in its order."""
    at = len(GZIP_HEAD)
    offsets: dict[tuple[str, str], int] = {}
    for key, size in old:
        offsets[key] = at
        at += size
    found = [Part(None, len(GZIP_HEAD))]
    for key, size in new:
        _append(found, Part(offsets.get(key), size))
    _append(found, Part(None, size_bytes - sum(part.size for part in found)))
    return found


def _append(found: list[Part], part: Part) -> None:
    last = found[-1]
    both_new = last.offset is None and part.offset is None
    is_next = last.offset is not None and last.offset + last.size == part.offset
    if both_new or is_next:
        found[-1] = Part(last.offset, last.size + part.size)
    else:
        found.append(part)


def _new(data: bytes | Path, parts: Sequence[Part]) -> bytes:
    pieces: list[bytes] = []
    at = 0
    for part in parts:
        if part.offset is None:
            pieces.append(_slice(data, at, part.size))
        at += part.size
    return b"".join(pieces)


def _slice(data: bytes | Path, at: int, size: int) -> bytes:
    if isinstance(data, bytes):
        return data[at : at + size]
    with data.open("rb") as file:
        file.seek(at)
        return file.read(size)
