"""What every loop is: `start`, `stop`, `hint`, `step`; a timer and a hint both lead to one step.

A hint is only a hint: losing one costs a timer's length. A step that raises is logged and tried again at the next tick;
a step that takes longer than its deadline is cancelled and shows in `/readyz` (G14.5). Tests call `step` directly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from apothic_server.domain.views import Check

log = structlog.get_logger("apothic.loop")


class Loop:
    """Runs `step` every `interval_s` and soon after a hint.

    Args:
        step: One pass; may return the seconds until it wants to run again, sooner than the interval.
        deadline_s: Longest a step may take.
    """

    def __init__(
        self, name: str, step: Callable[[], Awaitable[float | None]], *, interval_s: float, deadline_s: float = 30.0
    ) -> None:
        self.name = name
        self.step = step
        self._interval_s = interval_s
        self._deadline_s = deadline_s
        self._hinted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failures = 0
        self._last_error = ""

    def start(self) -> None:
        """Begin stepping; does nothing when started already."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"loop {self.name}")

    async def stop(self) -> None:
        """End after cancelling a step in progress; does nothing when stopped already."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def hint(self) -> None:
        """Ask for a step soon."""
        self._hinted.set()

    def check(self) -> Check:
        """Whether the last three steps did not all fail, and what the newest failure was."""
        return Check(self._failures < 3, self._last_error if self._failures else "stepping")

    async def _run(self) -> None:
        wait_s: float | None = 0.0
        while True:
            await self._sleep(self._interval_s if wait_s is None else min(wait_s, self._interval_s))
            self._hinted.clear()
            wait_s = await self._guarded_step()

    async def _sleep(self, seconds: float) -> None:
        # Not `wait_for`: up to Python 3.11 it swallows a cancellation that comes together with a hint.
        with suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0.0)):
                await self._hinted.wait()

    async def _guarded_step(self) -> float | None:
        try:
            async with asyncio.timeout(self._deadline_s):
                wait_s = await self.step()
        except Exception as error:
            self._failures += 1
            self._last_error = f"{type(error).__name__}: {error}"
            log.warning("loop.failed", loop=self.name, failures=self._failures, error=self._last_error)
            return None
        self._failures = 0
        return wait_s
