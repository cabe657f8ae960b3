"""A disk that runs full under user code: the runner that writes most is stopped (G14.2).

Below the floor a cloud takes no new work, but what runs already may go on to write until nobody can any more. So the
worker looks at the disk of its data folder, and below the floor at what its runners wrote to disks lately. The kernel
counts that by process; memory file systems, such as the /tmp of a sandbox, count as memory and not here.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from apothic_worker import journal

MIB = 1024 * 1024
LOOK_S = 1.0
NEAR = 4
"""Runners are measured from so many floors of room on, so that one that is fast is known when the floor is passed."""

LOOKS_KEPT = 6
"""What a runner wrote is what it wrote between the oldest and the newest of so many looks."""

SHARE = 64
"""A runner that wrote less than this part of the floor since then, 16 MiB of 1 GiB, is not what fills the disk."""


class Writers(Protocol):
    """Who has runners and can stop them."""

    @property
    def writing(self) -> dict[str, int]:
        """Bytes that each runner wrote to disks so far, by its name; of those that may go on."""
        ...

    def stop_writing(self, runner: str) -> None:
        """Stop everything in it and say why."""
        ...


class DiskWatch:
    """Looks after the disk of one folder.

    Args:
        floor_bytes: Below it the runner that writes most is stopped; 0 stops none.
    """

    def __init__(self, folder: Path, floor_bytes: int, writers: Writers) -> None:
        self._folder = folder
        self._floor_bytes = floor_bytes
        self._writers = writers
        self._looks: dict[str, list[int]] = {}
        self._has_looked = False
        self._free: list[int] = []

    async def run(self) -> None:
        """Look every `LOOK_S` until cancelled, the disk in a thread: it may hang."""
        while self._floor_bytes:
            await asyncio.sleep(LOOK_S)
            try:
                self.step(await asyncio.to_thread(free_bytes, self._folder))
            except OSError as error:
                journal.warning("disk.unknown", reason=str(error))

    def step(self, free: int) -> None:
        """Measure the runners, and below the floor stop the one that wrote most."""
        if free >= NEAR * self._floor_bytes:
            self._forget()
            return
        unknown = [0] if self._has_looked else []  # who is new since the last look had written nothing then
        looks = {name: [*self._looks.get(name, unknown), size] for name, size in self._writers.writing.items()}
        self._looks, self._has_looked = {name: sizes[-LOOKS_KEPT:] for name, sizes in looks.items()}, True
        self._free = [*self._free, free][-LOOKS_KEPT:]
        is_filling = free < self._floor_bytes and free <= self._free[0]  # what was stopped last may still be removed
        found = culprit(self._looks, self._floor_bytes) if is_filling else None
        if found is not None:
            written = self._looks[found][-1] - self._looks[found][0]
            journal.error("disk.runner_stopped", runner=found, written_mb=written // MIB, free_mb=free // MIB)
            self._forget()  # the next is judged by what it writes from now on
            self._writers.stop_writing(found)

    def _forget(self) -> None:
        self._looks, self._has_looked, self._free = {}, False, []


def culprit(looks: dict[str, list[int]], floor_bytes: int) -> str | None:
    """Return who wrote most between the oldest and the newest look; None when nobody wrote much.

    Args:
        looks: What each had written in all at each look, the newest last.
        floor_bytes: Less than a `SHARE` of it is not much.
    """
    written = {name: sizes[-1] - sizes[0] for name, sizes in looks.items()}
    most = max(written, key=lambda name: written[name], default=None)
    return most if most is not None and written[most] >= floor_bytes // SHARE else None


def free_bytes(folder: Path) -> int:
    """Return how many bytes an ordinary user can still write to the disk of `folder`."""
    told = os.statvfs(folder)
    return told.f_bavail * told.f_frsize


def written_by(pids: Iterable[int]) -> int:
    """Return the bytes that these processes, and what they waited for, wrote to disks; 0 for those that are gone.

    What was removed again before it reached the disk counts as well: on a full disk that is each write that fails.
    """
    return sum(map(_written, pids))


def _written(pid: int) -> int:
    with suppress(OSError, KeyError, ValueError):
        told = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
        return int(told["write_bytes"])
    return 0
