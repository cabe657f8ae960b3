"""What runs in a data folder: the pid file that PostgreSQL writes there, and the processes that work in the folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

SOCKET = ".s.PGSQL.5432"
"""Name of the server's socket in its folder."""

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Postmaster:
    """A running server's first process.

    Attributes:
        pid: Process id.
        socket_folder: Where it listens; empty while it has just started.
        state: `starting`, `ready` or `stopping`; empty while it has just started.
    """

    pid: int
    socket_folder: str
    state: str

    @property
    def has_socket(self) -> bool:
        """Whether its socket is where it was made."""
        return Path(self.socket_folder, SOCKET).is_socket()


def read_pid_file(data: Path) -> Postmaster | None:
    """Return what `postmaster.pid` says, true or stale; None when there is none or it is only half written."""
    try:
        lines = (data / "postmaster.pid").read_text("utf-8").splitlines()
    except FileNotFoundError:
        return None
    if not lines or not lines[0].strip().isdigit():
        return None
    told = [line.strip() for line in lines] + [""] * 8
    return Postmaster(pid=int(told[0]), socket_folder=told[4], state=told[7])


def find_postmaster(data: Path) -> Postmaster | None:
    """Return the server that runs in `data` now, or None; a pid that another program got meanwhile does not count."""
    told = read_pid_file(data)
    return told if told is not None and works_in(told.pid, data) else None


def works_in(pid: int, data: Path) -> bool:
    """Whether process `pid` lives and works in `data`: every PostgreSQL process has its data as its working folder.

    Where the working folder cannot be seen, a PostgreSQL process of the owner of `data` counts; on systems without
    `/proc` every live process does, as it does for PostgreSQL itself.
    """
    if not _PROC.joinpath("self").exists():
        return _is_alive(pid)
    try:
        return _has_working_folder(pid, data)
    except PermissionError:
        return _command(pid) == "postgres" and _owner(pid) == data.stat().st_uid


def processes_in(data: Path) -> list[int]:
    """Return the pids of all processes that are seen to work in `data`; empty on systems without `/proc`."""
    return [pid for entry in _PROC.glob("[0-9]*") if _is_seen_in(pid := int(entry.name), data)]


def _is_seen_in(pid: int, data: Path) -> bool:
    try:
        return _command(pid) == "postgres" and _has_working_folder(pid, data)
    except PermissionError:
        return False


def _has_working_folder(pid: int, folder: Path) -> bool:
    try:
        here, there = (_PROC / str(pid) / "cwd").stat(), folder.stat()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _command(pid: int) -> str:
    try:
        return (_PROC / str(pid) / "comm").read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def _owner(pid: int) -> int | None:
    try:
        return (_PROC / str(pid)).stat().st_uid
    except OSError:
        return None
