"""Whether a call left processes behind in its runner. Asked after every call, so the answer costs microseconds."""

from __future__ import annotations

import os

from apothic_worker.limits import Group
from apothic_worker.processes import descendants, is_alive


class Leftovers:
    """Watches one runner process.

    Args:
        pid: The runner as this process sees it.
        group: Its cgroup; its count of tasks shows that something may be new.
    """

    def __init__(self, pid: int, group: Group) -> None:
        self._pid = pid
        self._group = group
        self._tasks = group.tasks()
        self._children = _open_children(pid)

    def exist(self) -> bool:
        """Whether a process other than the runner lives in it now; threads and zombies do not count."""
        tasks = self._group.tasks()
        if self._children >= 0 and tasks is not None and tasks == self._tasks and not self._has_children():
            return False
        self._tasks = tasks
        return any(map(is_alive, self.processes() - {self._pid}))

    def processes(self) -> set[int]:
        """Return the runner's processes, itself among them; some may be gone by now."""
        return {self._pid, *descendants(self._pid), *self._group.members()}

    def close(self) -> None:
        """Close the descriptor that is kept for speed."""
        if self._children >= 0:
            os.close(self._children)
            self._children = -1

    def _has_children(self) -> bool:
        try:
            return bool(os.pread(self._children, 1, 0))
        except OSError:
            return False


def _open_children(pid: int) -> int:
    try:
        return os.open(f"/proc/{pid}/task/{pid}/children", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
