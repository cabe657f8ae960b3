"""Processes of this machine, as /proc shows them."""

import ctypes
import os
import select
import time
from contextlib import contextmanager, suppress
from pathlib import Path

GONE_S = 30.0
_PR_SET_CHILD_SUBREAPER = 36


def parents():
    """Return the parent of every process that is no zombie."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if state != "Z":
                    found[int(entry.name)] = int(parent)
    return found


def descendants(pid):
    """Return the processes below one, nearest first."""
    below, by_parent = [], {}
    for child, parent in parents().items():
        by_parent.setdefault(parent, []).append(child)
    level = by_parent.get(pid, [])
    while level:
        below += level
        level = [child for one in level for child in by_parent.get(one, [])]
    return below


def newcomers(others):
    """Return the processes below this one, but not `others` and what those have started meanwhile."""
    theirs = {pid for other in others for pid in (other, *descendants(other))}
    return [pid for pid in descendants(os.getpid()) if pid not in theirs]


def command_of(pid):
    """Return the command line of a process; empty when it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def name_of(pid):
    """Return the name that a process gave itself; empty when it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def wait_gone(pids, deadline_s=GONE_S):
    """Wait until none of these processes lives."""
    deadline = time.monotonic() + deadline_s
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            ready, _, _ = select.select([handle], [], [], max(0.0, deadline - time.monotonic()))
        finally:
            os.close(handle)
        assert ready, f"process {pid} is still there: {command_of(pid)}"


@contextmanager
def adopting():
    """Be the parent of every orphan below this process, so that none can hide; reap them at the end."""
    _set_subreaper(1)
    try:
        yield
    finally:
        _set_subreaper(0)
        _reap_orphans()


def _set_subreaper(value):
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _reap_orphans():
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def is_asleep(pid):
    """Whether a process waits for something."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"
