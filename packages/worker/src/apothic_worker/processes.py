"""Process trees as `/proc` shows them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


def children(pid: int) -> list[int]:
    """Return the direct children of a process, those of all its threads; empty when it is gone."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found.extend(map(int, (task / "children").read_text().split()))
    return found


def parent_of(pid: int) -> int:
    """Return the parent of a process; 0 when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return 0
    return int(text.rpartition(")")[2].split()[1])


def descendants(pid: int) -> list[int]:
    """Return all processes below `pid`, parents before their children."""
    found: list[int] = []
    todo = [pid]
    while todo:
        below = children(todo.pop())
        found += below
        todo += below
    return found


def kill_tree(pid: int) -> None:
    """Send KILL to a process and everything below it, until a look finds nothing new that lives.

    Killing the top last keeps orphans below a subreaper in sight.
    """
    seen: set[int] = set()
    while fresh := [member for member in descendants(pid) if member not in seen]:
        for member in fresh:
            seen.add(member)
            _kill(member)
    _kill(pid)


SPARED: set[int] = set()
"""Children that are no zygotes and no orphans either; whoever starts one adds it before the event loop goes on."""


def kill_children_but(kept: set[int]) -> None:
    """Kill and reap every child of this process that is not in `kept` or `SPARED`, with all that is below it.

    For a subreaper: what it did not start itself came to it as an orphan.
    """
    while strangers := set(children(os.getpid())) - kept - SPARED:
        for pid in strangers:
            kill_tree(pid)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def is_alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


def become_subreaper() -> None:
    """Adopt orphans from below this process."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
