"""How much of the processors a runner gets beside others: less while its own are lent (G2.7)."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial

from apothic_worker.limits import Group

LEND_AFTER_S = 0.05
"""Short waits, which most are, cost no change of the cgroup."""


class Share:
    """The share of one runner.

    Attributes:
        group: Its cgroup, once it has one.
    """

    def __init__(self) -> None:
        self.group: Group | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_low = False

    def lend(self, *, is_lent: bool) -> None:
        """Let what the runner computes come after all others' from soon on, or as theirs again at once."""
        self.close()
        if is_lent and not self._is_low:
            self._timer = asyncio.get_running_loop().call_later(LEND_AFTER_S, partial(self._set, is_low=True))
        elif not is_lent and self._is_low:
            self._set(is_low=False)

    def close(self) -> None:
        """Change nothing any more; twice is fine."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, *, is_low: bool) -> None:
        if self.group is not None:
            self._is_low = is_low
            with contextlib.suppress(FileNotFoundError):  # the runner is gone
                self.group.yield_processors(to_others=is_low)
