"""The worker process of a data folder: found alive or started, watched and signalled by a handle, not by a number."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

RECORD, LOCK = "worker.json", "worker.lock"
"""What a worker keeps in its folder; see `docs/reference/worker-link.md`."""

KILL_S = 10.0


@dataclass(slots=True, eq=False)
class WorkerProcess:
    """A live worker process.

    Attributes:
        incarnation: Id of this start of the worker; empty for one that we started, which says it in its hello.
        version: Release it runs.
        command: Its command line.
    """

    pid: int
    incarnation: str
    version: str
    command: list[str]
    _handle: int
    _child: subprocess.Popen[bytes] | None = None

    @property
    def was_killed(self) -> bool:
        """Whether it is our child and a signal ended it."""
        return self._child is not None and (self._child.poll() or 0) < 0

    async def wait(self) -> int | None:
        """Return after its end, with its status where it is our child."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(self._handle, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._handle)
        return self._reap()

    def end(self, deadline_s: float, *, hurry: bool = False) -> None:
        """Have it drain and end; kill it when it takes longer. Blocks.

        Args:
            hurry: Stop user code at once.
        """
        for _ in range(2 if hurry else 1):
            self._send(signal.SIGTERM)
        if not self._has_ended(deadline_s):
            self._send(signal.SIGKILL)
            self._has_ended(KILL_S)
        self._reap()

    def close(self) -> None:
        """Let go of the handle; the process goes on."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def _send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, number)

    def _has_ended(self, deadline_s: float) -> bool:
        return bool(select.select([self._handle], [], [], deadline_s)[0])

    def _reap(self) -> int | None:
        return self._child.wait() if self._child is not None else None


def start(command: list[str], log: Path) -> WorkerProcess:
    """Start a worker in a session of its own, with an empty log; it outlives this process."""
    with log.open("wb") as descriptor:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=descriptor, stderr=descriptor, start_new_session=True
        )
    return WorkerProcess(child.pid, "", "", command, os.pidfd_open(child.pid), child)


def find(folder: Path) -> WorkerProcess | None:
    """Return the worker that lives in its data folder; None when there is none.

    It counts only when the folder's lock is held and the process that the folder's record names has the recorded start,
    so neither a stale record nor a process that got its number later is taken for it.
    """
    told = _record(folder)
    if told is None or not _is_held(folder / LOCK):
        return None
    try:
        handle = os.pidfd_open(told["pid"])
    except OSError:
        return None
    if started_at(told["pid"]) != told["started"]:
        os.close(handle)
        return None
    return WorkerProcess(told["pid"], told["incarnation"], told["version"], _command(told["pid"]), handle)


def _record(folder: Path) -> dict[str, Any] | None:
    try:
        told: object = json.loads((folder / RECORD).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(told, dict):
        return None
    fields = cast("dict[str, Any]", told)
    kinds = {"pid": int, "started": int, "version": str, "incarnation": str}
    return fields if all(type(fields.get(name)) is kind for name, kind in kinds.items()) else None


def _is_held(lock: Path) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def started_at(pid: int) -> int | None:
    """Return the start of a process in clock ticks since boot; None when there is no such process."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


def _command(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace").removesuffix("\0").split("\0")
    except OSError:
        return []
