"""What makes a data folder a cloud: its lock, its secrets, its first org and the keys of this start."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import secrets
import stat
from collections.abc import Generator
from pathlib import Path

from apothic.wire.ids import OrgId, new_key
from apothic_server.domain.access import Role
from apothic_server.domain.errors import PlatformError, Unauthenticated
from apothic_server.ports.clock import Clock
from apothic_server.services.keys import Keys
from apothic_server.store import keys as rows
from apothic_server.store.database import Database
from apothic_server.store.recovery import lock_orgs

FIRST_ORG = "default"
LOCAL_KEY = "local"
CLOUD_FILE = "cloud"
WORKER_KEY = "local worker"


START_LOG = "up.log"
_OF_A_START = {"up.lock", START_LOG}
"""Files that a start makes before it does anything else."""


class FolderError(PlatformError):
    """The data folder cannot be used; the sentence says why and what to do."""

    code = "data_folder"


@contextlib.contextmanager
def made_folder(folder: Path, *, guest: str | None = None) -> Generator[None]:
    """Make the data folder as `make_folder` does; when the block fails before it has put anything there, it goes away.

    Raises:
        FolderError: As from `make_folder`.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        make_folder(folder, guest=guest)
        yield
    except BaseException:
        with contextlib.suppress(OSError, FolderError):
            _unmake(missing)
        raise


def _unmake(made: list[Path]) -> None:
    """Remove folders that were made, the innermost first; a data folder only as long as no cloud has begun in it."""
    if not made or any(path.name not in _OF_A_START for path in made[0].iterdir()):
        return
    with locked(made[0], is_cloud=False):
        for path in made[0].iterdir():
            path.unlink()
    for path in made:
        path.rmdir()


def make_folder(folder: Path, *, guest: str | None = None) -> None:
    """Make the data folder with mode 0700; parents that exist are left as they are.

    Args:
        guest: Another user whose database lies inside: whoever is in its group can pass through, and see nothing.

    Raises:
        FolderError: It belongs to another user or cannot be made, or the guest cannot come to it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        owner = folder.stat().st_uid
    except OSError as error:
        raise FolderError(f"cannot use the data folder {folder}: {error.strerror}") from error
    if owner != os.geteuid():
        detail = f"the data folder {folder} belongs to user id {owner}, not to you ({os.geteuid()}); use another --data"
        raise FolderError(detail, code="data_folder_owner")
    found = _user(guest)
    if found is None or found.pw_uid == owner or owner != 0:
        folder.chmod(0o700)
        return
    os.chown(folder, -1, found.pw_gid)
    folder.chmod(0o710)
    closed = next((parent for parent in folder.parents if not _may_pass(parent, found)), None)
    if closed is not None:
        detail = f"the user {guest} cannot come to {folder}, because {closed} is closed to it; use another --data"
        raise FolderError(detail)


def _user(name: str | None) -> pwd.struct_passwd | None:
    """Return a user; None for none. An unknown one is refused where the database starts."""
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(name) if name is not None else None
    return None


def _may_pass(folder: Path, user: pwd.struct_passwd) -> bool:
    state = folder.stat()
    if state.st_uid == user.pw_uid:
        return bool(state.st_mode & stat.S_IXUSR)
    if state.st_gid in os.getgrouplist(user.pw_name, user.pw_gid):
        return bool(state.st_mode & stat.S_IXGRP)
    return bool(state.st_mode & stat.S_IXOTH)


@contextlib.contextmanager
def locked(folder: Path, *, is_cloud: bool = True) -> Generator[None]:
    """Hold the folder's lock, which names our pid, while the cloud runs.

    Args:
        is_cloud: False when no cloud is run: the lock names nobody then.

    Raises:
        FolderError: Another live cloud holds it (`data_folder_busy`).
    """
    path = folder / "up.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        os.close(descriptor)
        detail = f"a cloud runs in {folder} already (pid {holder}); stop it with `apothic down` or use another --data"
        if not holder:
            detail = f"what a cloud left in {folder} is being removed; try again when `apothic down` has ended"
        raise FolderError(detail, code="data_folder_busy") from None
    if not os.fstat(descriptor).st_nlink:
        os.close(descriptor)
        detail = f"a start in {folder} was given up at this moment; try again"
        raise FolderError(detail, code="data_folder_busy")
    try:
        os.ftruncate(descriptor, 0)
        if is_cloud:
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.ftruncate(descriptor, 0)
        os.close(descriptor)


def lock_holder(folder: Path) -> int | None:
    """Return the pid of the live cloud in `folder`, or None."""
    try:
        descriptor = os.open(folder / "up.lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        text = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        return int(text) if text.isdigit() else None
    finally:
        os.close(descriptor)
    return None


def pepper_of(folder: Path) -> bytes:
    """Return the secret that stored digests are keyed with; made on the first start, by one of several starts."""
    path = folder / "secrets" / "pepper"
    if not path.exists():
        write_once(path, secrets.token_bytes(32))
    pepper = path.read_bytes()
    if len(pepper) < 32:
        raise FolderError(f"{path} is damaged: it holds {len(pepper)} of 32 bytes; restore it from a backup")
    return pepper


def check_folder(folder: Path, org: OrgId | None) -> None:
    """Check that the folder with secrets and blobs is that of the database's cloud, which its first org names.

    Args:
        org: The first org; None when the database is new.

    Raises:
        FolderError: The folder is another cloud's, or has no secrets for this one (`wrong_folder`).
    """
    path = folder / CLOUD_FILE
    found = path.read_text().strip() if path.exists() else None
    if found is None and (org is None or (folder / "secrets" / "pepper").exists()):
        return
    if found != org:
        is_other = "belongs to another cloud than the database"
        what = is_other if found is not None else "holds no secrets of the database's cloud"
        detail = f"the folder {folder} {what}; name the folder that all servers of that cloud share with --shared"
        raise FolderError(detail, code="wrong_folder")


def claim_folder(folder: Path, org: OrgId) -> None:
    """Note whose folder it is."""
    if not (folder / CLOUD_FILE).exists():
        write_once(folder / CLOUD_FILE, org.encode())


def write_once(path: Path, content: bytes) -> None:
    """Write a private file whole, or leave the one that another process wrote first."""
    made = path.with_name(f".{path.name}.{os.getpid()}.new")
    write_private(made, content)
    try:
        os.link(made, path)
    except FileExistsError:
        pass
    finally:
        made.unlink()


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)


async def known_org(database: Database) -> OrgId | None:
    """Return the installation's first org; None before the first start."""
    async with database.system_unit() as unit:
        return await rows.first_org(unit)


async def first_org(database: Database, clock: Clock) -> OrgId:
    """Return the installation's first org, made on the first start."""
    async with database.system_unit() as unit:
        await lock_orgs(unit)
        known = await rows.first_org(unit)
        if known is not None:
            return known
        org = OrgId(new_key())
        await rows.create_org(unit, org, FIRST_ORG, clock.now())
        return org


async def local_key(folder: Path, keys: Keys, org: OrgId) -> str:
    """Return the owner's key of this folder; a new one when the kept one is gone or refused."""
    path = folder / "secrets" / "key"
    if path.exists():
        token = path.read_text().strip()
        with contextlib.suppress(Unauthenticated):
            await keys.authenticate(token)
            return token
    token = await keys.create(org, name=LOCAL_KEY, role=Role.OWNER)
    write_private(path, token.encode())
    return token


async def worker_token(folder: Path, keys: Keys, org: OrgId) -> Path:
    """Make a fresh token for the local worker, revoke the one before, and return the file that holds it."""
    path = folder / "secrets" / "worker-token"
    before = path.read_text().strip() if path.exists() else None
    token = await keys.create(org, name=WORKER_KEY, role=Role.WORKER)
    write_private(path, token.encode())
    if before is not None:  # only now: a worker that was left running reads the new one when it dials
        await keys.revoke(before)
    return path
