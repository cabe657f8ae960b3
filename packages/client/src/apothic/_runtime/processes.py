"""Processes of a runner: find them, stop them, kill them all. Linux only; reads `/proc`."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

_STOP_PASSES_MAX = 64


def become_subreaper() -> None:
    """Make orphaned descendants of this process its own children instead of those of process 1."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")


def give_memory_back() -> None:
    """Have the C library return the free memory between what is in use; no other one than that of GNU needs it."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def thread_count() -> int:
    """Threads of this process, native ones included."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208


def children_of(pid: int) -> set[int]:
    """Return the children of a process, zombies included; empty when it does not exist."""
    found: set[int] = set()
    try:
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208
    except OSError:
        return found
    for thread in threads:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.update(_children_of_thread(f"/proc/{pid}/task/{thread}/children"))
    return found


def _children_of_thread(path: str) -> list[int]:
    with open(path, "rb") as file:  # noqa: PTH123 (no pathlib on this path: it runs while a fork bomb does)
        return [int(child) for child in file.read().split()]


def tree_of(pid: int) -> set[int]:
    """Return `pid` and its descendants as they are now; more may appear unless all are stopped."""
    found = {pid}
    waiting = [pid]
    while waiting:
        new = children_of(waiting.pop()) - found
        found |= new
        waiting.extend(new)
    return found


def signal_tree(pid: int, number: int) -> None:
    """Send a signal to a process and its descendants; `SIGKILL` spares none, not even those forked meanwhile."""
    if number == signal.SIGKILL:
        kill_tree(pid)
        return
    for member in tree_of(pid):
        _send(member, number)


def kill_tree(pid: int) -> None:
    """Stop the whole tree first, so that nothing can fork on, then kill it."""
    stopped: set[int] = set()
    for _ in range(_STOP_PASSES_MAX):
        new = tree_of(pid) - stopped
        if not new:
            break
        for member in new:
            _send(member, signal.SIGSTOP)
        stopped |= new
    for member in stopped:
        _send(member, signal.SIGKILL)


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
