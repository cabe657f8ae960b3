"""The worker's data folder: who may use it, what lies in it, and removing what we wrote read-only."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

from apothic.wire.version import VERSION

RECORD = "worker.json"
"""Names the process that holds the folder: pid, its start in clock ticks since boot, version, incarnation."""


class DataFolderBusy(Exception):
    """Another worker uses this data folder."""


class DataFolderUnusable(Exception):
    """The data folder cannot be made, or is somebody else's."""


@dataclass(frozen=True)
class Folders:
    """Paths inside a worker's data folder.

    Attributes:
        root: The folder itself, mode 0700.
        archives: Unpacked archives, one folder per org and digest.
        runtime: Runtime trees by hash.
        environments: Installed packages.
        scratch: Everything that may be removed whenever no worker runs.
    """

    root: Path
    archives: Path
    runtime: Path
    environments: Path
    scratch: Path

    @property
    def cgroups(self) -> Path:
        """File that lists the cgroups made, one path a line, for the sweep after a crash."""
        return self.root / "cgroups"


def open_folders(root: Path) -> Folders:
    """Make the folders that are missing and empty the scratch folder. Call with the lock held."""
    folders = Folders(root, root / "archives", root / "runtime", root / "environments", root / "scratch")
    for path in (folders.archives, folders.runtime, folders.environments, folders.scratch):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    empty(folders.scratch)
    return folders


def lock_folder(root: Path, *, wait_s: float) -> int:
    """Take the data folder for this process and return the descriptor that holds it.

    Args:
        wait_s: How long to wait for a worker that is stopping.

    Raises:
        DataFolderBusy: Another worker still holds it.
        DataFolderUnusable: The folder cannot be made or written, or belongs to another user.
    """
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if root.stat().st_uid != os.geteuid():
            raise DataFolderUnusable(f"the data folder {root} belongs to another user; name another one with --data")
        descriptor = os.open(root / "worker.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        detail = f"the data folder {root} cannot be used: {error.strerror}; name another one with --data"
        raise DataFolderUnusable(detail) from None
    deadline = time.monotonic() + wait_s
    while not _try_lock(descriptor):
        if time.monotonic() >= deadline:
            os.close(descriptor)
            raise DataFolderBusy(f"another worker uses the data folder {root}; stop it or name another one with --data")
        time.sleep(0.05)
    return descriptor


@contextlib.contextmanager
def made_folder(root: Path, *, kept: str) -> Generator[None]:
    """Remove the data folder, if it is not there yet and the block fails without leaving the file `kept` in it."""
    missing = [path for path in (root, *root.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        if missing and not (root / kept).exists():
            with contextlib.suppress(OSError):
                remove(root)
                for path in missing[1:]:
                    path.rmdir()
        raise


def record(root: Path, incarnation: str, **more: object) -> None:
    """Write down which process holds the folder, so that a server can find it again. Call with the lock held.

    Args:
        more: What the next start is told beside it.
    """
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    told = {"pid": os.getpid(), "started": int(started), "version": VERSION, "incarnation": incarnation, **more}
    half = root / f".{RECORD}"
    half.write_text(json.dumps(told))
    half.replace(root / RECORD)


def unrecord(root: Path) -> None:
    """Remove what `record` wrote. Call with the lock held."""
    (root / RECORD).unlink(missing_ok=True)


def empty(folder: Path) -> None:
    """Remove everything inside `folder`."""
    for entry in folder.iterdir():
        remove(entry)


def remove(path: Path) -> None:
    """Remove a file or a folder with all it holds, also what was made read-only. Missing is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, onerror=_retry_writable)
    else:
        path.unlink(missing_ok=True)


def make_read_only(root: Path) -> None:
    """Take all write permission from `root` and everything below it."""
    for folder, _, files in os.walk(root):
        for name in files:
            path = Path(folder, name)
            path.chmod(path.stat().st_mode & 0o555)
        Path(folder).chmod(0o555)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return bool(os.fstat(descriptor).st_nlink)


def _retry_writable(function: Callable[..., object], path: str, _problem: object) -> None:
    """Give the owner back the right to write and try once more; a path that is gone is what we want."""
    for folder in (Path(path).parent, Path(path)):
        try:
            folder.chmod(stat.S_IRWXU)
        except FileNotFoundError:
            return
    if function in (os.rmdir, os.unlink):
        function(path)
    else:
        shutil.rmtree(path, ignore_errors=True)


def sync_tree(folder: Path) -> None:
    """Have everything below a folder of plain files on disk, and the folder itself."""
    for where, _, names in os.walk(folder):
        for path in (*(Path(where, name) for name in names), Path(where)):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
