"""Removes what dead runners and zygotes left behind: cgroups with what runs in them, folders, sockets (G4.4).

Each of them removes its own when it ends. This looks again, by what is there and by who lives, so that nothing stays
because one removal failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from apothic_worker import journal
from apothic_worker.folders import remove
from apothic_worker.limits import Limits

TIDY_S = 20.0
"""Between two looks: what the first one could only kill is gone by the second, within 60 s of the end."""


class Tidying:
    """Looks after one worker.

    Args:
        limits: Makes its cgroups.
        scratch: Folder in which each zygote has a folder of its name, and one for its socket.
        zygotes: Returns the names of the zygotes that live.
    """

    def __init__(self, limits: Limits, scratch: Path, zygotes: Callable[[], set[str]]) -> None:
        self._limits = limits
        self._scratch = scratch
        self._zygotes = zygotes

    async def run(self) -> None:
        """Look every `TIDY_S` until cancelled."""
        while True:
            await asyncio.sleep(TIDY_S)
            self.step()

    def step(self) -> None:
        """Look once."""
        try:
            groups = self._limits.tidy()
            folders = [path for path in self._scratch.iterdir() if self._is_left(path.name)]
            for path in folders:
                remove(path)
        except OSError as error:
            journal.warning("tidying.failed", reason=str(error))
            return
        if groups or folders:
            journal.warning("tidying.removed", groups=groups, folders=[path.name for path in folders])

    def _is_left(self, name: str) -> bool:
        zygote = name.removeprefix("door-")
        return zygote.isdigit() and zygote not in self._zygotes()
