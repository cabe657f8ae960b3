"""`apothic backup` and `apothic restore`: copy a cloud while it runs, and make one of a copy."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

from apothic_server import identity
from apothic_server.options import NamedFolder, data_folder, data_option
from apothic_server.store.address import StoreAddress
from apothic_server.store.backup import load_backup, read_manifest, write_backup, writing
from apothic_server.store.errors import StoreError
from apothic_server.store.launcher import DATABASE, USER, EmbeddedPostgres
from apothic_server.store.postmaster import find_postmaster
from apothic_server.telling import Form, telling_failure


@click.command()
@click.argument("folder", type=NamedFolder(path_type=Path))
@data_option
@click.pass_obj
def backup(form: Form, folder: Path, data: Path | None) -> None:
    """Copy the cloud of this data folder, running or not, into the new folder FOLDER.

    Whoever can read FOLDER can act as the owner of the cloud.
    """
    source = data_folder(data)
    with telling_failure():
        found = asyncio.run(_backup(source, folder.absolute()))
    said = f"wrote {len(found.files)} files to {folder}"
    _say(form, {"folder": str(folder.absolute()), "files": len(found.files)}, said)


@click.command()
@click.argument("folder", type=NamedFolder(path_type=Path, exists=True, file_okay=False))
@data_option
@click.pass_obj
def restore(form: Form, folder: Path, data: Path | None) -> None:
    """Make a data folder of the backup in FOLDER; start it with `apothic up` then.

    The data folder must be empty. Readers of events are reset, and jobs that ran at the time of the backup run again.
    """
    target = data_folder(data)
    with telling_failure():
        asyncio.run(_restore(folder.absolute(), target))
    said = f"restored into {target}; `apothic up --data {target}` starts it"
    _say(form, {"folder": str(folder.absolute()), "data": str(target)}, said)


def _say(form: Form, document: dict[str, str | int], said: str) -> None:
    if form.is_for_programs:
        form.print_document(document)
    else:
        click.echo(said, err=True)


async def _backup(source: Path, folder: Path):  # noqa: ANN202
    _check_apart(folder, source)
    async with _store(source) as address:
        return await write_backup(address, source, folder, datetime.now(UTC))


@asynccontextmanager
async def _store(source: Path) -> AsyncGenerator[StoreAddress]:
    """Yield the address of a cloud's embedded database; one that does not run runs meanwhile."""
    root = source / "postgres"
    if not (root / "data").is_dir():
        raise StoreError(f"there is no cloud with a database of its own in {source}", code="backup_no_cloud")
    running = find_postmaster(root / "data")
    if running is not None and identity.lock_holder(source) is not None:
        password = (root / "password").read_text("ascii").strip()
        yield StoreAddress(host=running.socket_folder, user=USER, password=password, database=DATABASE)
        return
    store = EmbeddedPostgres(root)
    try:
        yield await store.start()
    finally:
        await store.stop()


def _check_apart(backup: Path, data: Path) -> None:
    """Refuse a backup inside a cloud, which is lost with it, and a cloud inside a backup, which is changed by it."""
    copied, lived = backup.resolve(), data.resolve()
    if copied.is_relative_to(lived) or lived.is_relative_to(copied):
        detail = f"the backup {backup} and the data folder {data} lie inside one another; name a folder outside"
        raise StoreError(detail, code="backup_not_apart")


async def _restore(folder: Path, target: Path) -> None:
    _check_apart(folder, target)
    if target.exists() and any(target.iterdir()):
        raise StoreError(f"{target} is not empty; name another folder with --data", code="restore_not_empty")
    found = await read_manifest(folder)
    is_new = not target.exists()
    identity.make_folder(target)
    store = EmbeddedPostgres(target / "postgres")
    try:
        address = await store.start()
        with writing(target):
            await load_backup(address, folder, target, found, datetime.now(UTC))
        await store.stop()
    except BaseException:
        await store.stop()
        for left in target.iterdir():  # it was empty: all of it is ours
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        if is_new:
            target.rmdir()
        raise
