"""Processes of user code that outlived their worker where no control group knows them.

The executor `process` without control groups cannot find the children of a runner that died: they belong to init then.
But all of them began with the variables that the worker gave, which name a folder of its own; the kernel shows those.
User code that starts a program without these variables is not found.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from apothic.wire.attempts import SOCKET_VARIABLE

_VARIABLES = tuple(f"{name}=".encode() for name in ("HOME", "TMPDIR", SOCKET_VARIABLE))


def end_survivors(scratch: Path) -> int:
    """Kill every process whose variables name a folder below `scratch`; call with the data folder's lock held.

    Returns:
        How many there were.
    """
    ended: set[int] = set()
    while fresh := [pid for pid in _pids() if pid not in ended and _end(pid, scratch)]:
        ended.update(fresh)
    return len(ended)


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and int(path.name) != os.getpid()]


def _end(pid: int, scratch: Path) -> bool:
    """Kill a process when it is one; the handle keeps the number from becoming another process meanwhile."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not _is_ours(pid, scratch):
            return False
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        return True
    finally:
        os.close(handle)


def _is_ours(pid: int, scratch: Path) -> bool:
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    starts = tuple(name + os.fsencode(scratch) + b"/" for name in _VARIABLES)
    return any(variable.startswith(starts) for variable in variables) and _sees(pid, scratch)


def _sees(pid: int, folder: Path) -> bool:
    """Whether the folder of this name is the same one for the process: containers may use one path for several."""
    try:
        return Path(f"/proc/{pid}/root{folder}").samefile(folder)
    except OSError:
        return False
