"""Backups of one cloud: a folder with the rows as of one moment, the blobs they name, the secrets, and a list of all.

    manifest.json   format, migrations, tables, SHA-256 of every file; written last: without it there is no backup
    tables/NAME     the rows of one table, as COPY writes them
    blobs/… values/…  as in the data folder; each is named by its own SHA-256
    secrets/…       the pepper of stored digests and the owner's key
    cloud           whose they are

A restore goes back in time, but nothing that was told since then may get a second meaning: every index of a stream,
every fence and the dispatcher's term are raised by `jump`, so that all readers are reset and all old grants are stale
(G5.9).
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import msgspec

from apothic_server.store.address import StoreAddress
from apothic_server.store.connection import Connection, connect
from apothic_server.store.errors import StoreError, store_errors
from apothic_server.store.folder import sync_folder
from apothic_server.store.migrate import check_history, migrate, migrations
from apothic_server.store.statements import load

SQL = load("backup")
FORMAT = 1
MANIFEST = "manifest.json"
DEADLINE_S = 3600.0
"""Longest time of one statement: that of the largest table."""

JUMP_MIN, JUMP_PER_S = 1_000_000, 10_000
CHUNK = 1024 * 1024
_BLOBS = ("blobs", "values")
_SINGLE = ("cloud", "secrets/pepper", "secrets/key")


class Manifest(msgspec.Struct, forbid_unknown_fields=True):
    """What a backup holds.

    Attributes:
        migrations: SHA-256 of each migration that the database had, in order.
        tables: Columns by table.
        files: SHA-256 by path below the backup's folder.
    """

    format: int
    taken_at: datetime
    migrations: list[str]
    tables: dict[str, list[str]]
    files: dict[str, str]


async def write_backup(address: StoreAddress, data: Path, folder: Path, now: datetime) -> Manifest:
    """Write the cloud of `data`, running or not, into the new folder `folder`.

    Rows are those of one moment. Blobs are copied after them and never change, so every blob that a row names is there.

    What was written goes away again when it fails.

    Raises:
        StoreError: `backup_exists`, `backup_unwritable` or `disk_full` about the folder; `backup_damaged` when a blob
            of the cloud is not what its name says.
        Unavailable: The store is away.
    """
    with writing(folder):
        folder.mkdir(mode=0o700, parents=True)
    try:
        with writing(folder):
            return await _write_all(address, data, folder, now)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def writing(folder: Path) -> Generator[None]:
    """Tell what the disk says against writing below a folder, or the database against reading.

    Raises:
        StoreError: `backup_exists`, `disk_full` or `backup_unwritable`.
        Unavailable: The store is away.
    """
    try:
        with store_errors():
            yield
    except FileExistsError as error:
        raise StoreError(f"{folder} exists already; name a folder that does not", code="backup_exists") from error
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = f"{error.strerror or error} ({error.filename or folder})"
        if is_full:
            raise StoreError(f"there is no room for {folder}: {what}", code="disk_full") from error
        raise StoreError(f"{folder} cannot be written: {what}", code="backup_unwritable") from error


async def _write_all(address: StoreAddress, data: Path, folder: Path, now: datetime) -> Manifest:
    found = Manifest(FORMAT, now, [], {}, {})
    connection = await connect(address, name="backup", deadline_s=DEADLINE_S)
    try:
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        found.migrations = [row["sha256"] for row in await connection.fetch(SQL["list_migrations"])]
        for row in await connection.fetch(SQL["list_tables"]):
            found.tables[row["name"]] = row["columns"]
            await _dump(connection, row["name"], row["columns"], folder, found)
        await connection.execute("COMMIT")
    finally:
        await connection.close()
    await asyncio.to_thread(_copy_files, data, folder, found)
    _write(folder / MANIFEST, msgspec.json.encode(found))
    sync_folder(folder)
    return found


async def read_manifest(folder: Path) -> Manifest:
    """Return what a backup holds, after reading every file of it.

    Raises:
        StoreError: `backup_damaged`: a file is missing or not what was written; `backup_newer`: of a later release.
    """
    try:
        found = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        detail = f"{folder} is no backup, or one that was not finished: its {MANIFEST} cannot be read"
        raise StoreError(detail, code="backup_damaged") from error
    if found.format != FORMAT:
        raise StoreError(f"the backup has format {found.format}, this release knows {FORMAT}", code="backup_newer")
    for name, sha256 in found.files.items():
        is_inside = ".." not in Path(name).parts and not Path(name).is_absolute()
        if not is_inside or await asyncio.to_thread(_hash, folder / name) != sha256:
            raise StoreError(f"the backup is damaged: {name} is not the file that was written", code="backup_damaged")
    return found


async def load_backup(address: StoreAddress, folder: Path, data: Path, found: Manifest, now: datetime) -> int:
    """Load a checked backup into an empty database and the folder `data`, and return by how much indexes were raised.

    Raises:
        StoreError: `store_newer` or `migration_changed`: the backup is of another release than this one can read.
    """
    known = migrations()
    check_history(known, dict(enumerate(found.migrations, 1)))
    connection = await connect(address, name="restore", deadline_s=DEADLINE_S)
    try:
        await migrate(connection, known[: len(found.migrations)])
        raised = jump(found.taken_at, now)
        await connection.execute(SQL["begin_load"])
        for table, columns in found.tables.items():
            await connection.copy_to_table(table, source=folder / "tables" / table, columns=columns, timeout=DEADLINE_S)
        for name in ("raise_events", "raise_items", "raise_streams", "raise_floors", "raise_jobs", "raise_term"):
            await connection.execute(SQL[name], raised)
        await connection.execute("COMMIT")
    finally:
        await connection.close()
    await asyncio.to_thread(_place_files, folder, data, found)
    return raised


def jump(taken_at: datetime, now: datetime) -> int:
    """Return by how much a restore raises indexes: more for each later one, so that two of one backup never meet."""
    return JUMP_MIN + JUMP_PER_S * max(0, int((now - taken_at).total_seconds()))


async def _dump(connection: Connection, table: str, columns: list[str], folder: Path, found: Manifest) -> None:
    path = folder / "tables" / table
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with path.open("xb") as file:
        path.chmod(0o600)
        await connection.copy_from_table(table, output=file, columns=columns, timeout=DEADLINE_S)
        file.flush()
        os.fsync(file.fileno())
    found.files[f"tables/{table}"] = await asyncio.to_thread(_hash, path)


def _copy_files(data: Path, folder: Path, found: Manifest) -> None:
    found_blobs = (path for folder in _BLOBS for path in (data / folder).glob("*/*/*"))
    blobs = [path for path in found_blobs if path.is_file() and not path.parts[-3].startswith(".")]
    for path in [data / name for name in _SINGLE] + blobs:
        if not path.exists():
            continue
        name = str(path.relative_to(data))
        found.files[name] = _copy(path, folder / name)
        if name.partition("/")[0] in _BLOBS and found.files[name] != path.name:
            raise StoreError(f"{path} is damaged: its content does not have its name", code="backup_damaged")


def _place_files(folder: Path, data: Path, found: Manifest) -> None:
    for name in found.files:
        if not name.startswith("tables/"):
            _copy(folder / name, data / name)


def _copy(source: Path, target: Path) -> str:
    for parent in reversed(target.parents):
        parent.mkdir(mode=0o700, exist_ok=True)
    with source.open("rb") as reading, target.open("xb") as writing:
        target.chmod(0o600)
        shutil.copyfileobj(reading, writing, CHUNK)
        writing.flush()
        os.fsync(writing.fileno())
    return _hash(target)


def _hash(path: Path) -> str:
    """Return the SHA-256 of a file; empty when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
