"""Earlier starts of the worker of this data folder that are known to be dead, with all user code that they had.

A worker that is killed tells nobody, so its attempts stay with it for their grace (G3.2). The next start can know more:

- It holds the lock of the data folder. When the record of the start before names this very lock file and this very boot
  of the kernel, that start's process held the same lock and is gone; a frozen one would still hold it. A copy of the
  folder has another lock file, and another machine, or this one after a reboot, another boot: there nothing is known.
- Its user code ran in groups that the kernel keeps account of. When they are empty and removed, nothing of it is left.
  A machine without such groups does not let anybody know.

What is known is told in `hello`, and the server gives those leases back at once.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from apothic.wire.ids import is_key
from apothic.wire.limits import FORERUNNERS_MAX
from apothic_worker.folders import RECORD

_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Place:
    """Where a start holds its lock.

    Attributes:
        boot: Identity of the kernel's boot; empty where it cannot be read, and then nothing is known.
        lock: Device and inode of the lock file.
    """

    boot: str
    lock: tuple[int, int]


def place_of(lock: int, boot: Path = _BOOT) -> Place:
    """Return the place of a held lock, given its descriptor.

    Args:
        boot: File with the identity of the boot.
    """
    state = os.fstat(lock)
    return Place(boot_of(boot), (state.st_dev, state.st_ino))


def boot_of(file: Path = _BOOT) -> str:
    """Return the identity of the kernel's boot, empty where it cannot be read: some containers hide it."""
    try:
        return file.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


def known_dead(root: Path, place: Place, *, is_swept: bool) -> list[str]:
    """Return the incarnations of which nothing lives, the newest last. Call with the lock held, before `record`.

    Args:
        is_swept: The groups of the start before were there, and nothing is left in them.
    """
    if not place.boot:
        return []
    try:
        told: object = json.loads((root / RECORD).read_text("utf-8"))
    except (OSError, ValueError):
        return []
    fields = cast("dict[str, Any]", told) if isinstance(told, dict) else {}
    if (fields.get("boot"), fields.get("lock")) != (place.boot, list(place.lock)):
        return []
    named: list[Any] = [*fields.get("forerunners", ()), fields.get("incarnation") if is_swept else None]
    return [one for one in named if isinstance(one, str) and is_key(one)][-FORERUNNERS_MAX:]
