"""Room on the disk that holds the store: a floor for new work, and a ballast that is given up in need (G14.2).

A database that cannot write its log stops. So new work is refused while there is still room to end the work under way,
and when even that room runs out, a file that was made in good times is removed. Once there is room again, new work is
taken and the file is made again; nobody has to do anything.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog

from apothic_server.domain.errors import DiskLow

MIB = 1024 * 1024

log = structlog.get_logger("apothic.disk")


def free_bytes(folder: Path) -> int:
    """Return how many bytes an ordinary user can still write to the disk of `folder`."""
    told = os.statvfs(folder)
    return told.f_bavail * told.f_frsize


class Disk:
    """The room of one disk as of the last `look`.

    Args:
        folder: A folder on the disk.
        floor_bytes: New work is refused while less is free; 0 refuses none. Below a quarter of it the ballast goes.
        ballast: File of half of `floor_bytes` to make in `folder`, on the same disk; None makes none.
        free: Returns the free bytes of the disk of a folder.

    Attributes:
        free_bytes: Room at the last look.
        takes_new: Whether new work was taken then.
    """

    def __init__(
        self,
        folder: Path,
        *,
        floor_bytes: int,
        ballast: Path | None = None,
        free: Callable[[Path], int] = free_bytes,
    ) -> None:
        self._folder = folder
        self._floor_bytes = floor_bytes
        self._ballast = ballast
        self._ballast_bytes = floor_bytes // 2
        self._free = free
        self.free_bytes = floor_bytes
        self.takes_new = True

    def look(self) -> None:
        """Measure, and give up or make the ballast; takes milliseconds, and as long as the disk needs for a file."""
        free = self._free(self._folder)
        if free < self._floor_bytes // 4 and self._give_up_ballast():
            free = self._free(self._folder)
        elif free >= self._floor_bytes + self._ballast_bytes:
            self._make_ballast()
            free = self._free(self._folder)
        self.free_bytes = free
        takes_new = free >= self._floor_bytes
        if takes_new is not self.takes_new:
            self.takes_new = takes_new
            tell = log.warning if takes_new else log.error
            tell("disk.enough" if takes_new else "disk.low", free_mb=free // MIB, floor_mb=self._floor_bytes // MIB)

    async def step(self) -> float | None:
        """Look, in a thread: a disk may hang."""
        await asyncio.to_thread(self.look)
        return None

    def require_room(self) -> None:
        """Do nothing while there is room for new work.

        Raises:
            DiskLow: There is not.
        """
        if not self.takes_new:
            raise DiskLow("the cloud's disk is nearly full: it takes no new work until there is room", retry_after_s=5)

    def _give_up_ballast(self) -> bool:
        if self._ballast is None or not self._ballast.exists():
            return False
        self._ballast.unlink()
        log.error("disk.ballast_given_up", freed_mb=self._ballast_bytes // MIB)
        return True

    def _make_ballast(self) -> None:
        path = self._ballast
        if path is None or (path.exists() and path.stat().st_size == self._ballast_bytes):
            return
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, self._ballast_bytes)
        except OSError:
            with suppress(OSError):
                path.unlink()
        finally:
            os.close(descriptor)
