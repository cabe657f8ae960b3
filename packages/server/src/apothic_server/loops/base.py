"""What every loop is: `start`, `stop`, `hint`, `step`; a timer and a hint both lead to one step.

A hint is only a hint: losing one costs a timer's length. A step that raises is logged and tried again at the next tick;
a step that takes longer than its deadline is cancelled. A loop from which nothing is heard for three ticks more,
because its step does not even end when it is cancelled or its task is gone, is started anew by the watchdog. All of it
shows in `/readyz` (G14.5). Tests call `step` directly.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

import structlog

from apothic_server.domain.errors import Unavailable
from apothic_server.domain.views import Check

log = structlog.get_logger("apothic.loop")

TICKS_MISSED = 3
"""So many ticks after the deadline of a step nobody waits for its end any more."""

GRID_S = 0.5
"""Steps that nothing hurries begin at multiples of this, so that the loops of a process at rest wake it together."""


class Loop:
    """Runs `step` every `interval_s` and soon after a hint.

    Args:
        step: One pass; may return the seconds until it wants to run again, sooner than the interval.
        deadline_s: Longest a step may take.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], Awaitable[float | None]],
        *,
        interval_s: float,
        deadline_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.step = step
        self._interval_s = interval_s
        self._deadline_s = deadline_s
        self._hinted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failures = 0
        self._last_error = ""
        self._clock = clock
        self._heard_at = 0.0
        self._is_anew = False
        self._left: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin stepping; does nothing when started already."""
        if self._task is None:
            self._heard_at = self._clock()
            self._task = asyncio.create_task(self._run(), name=f"loop {self.name}")

    async def stop(self) -> None:
        """End after cancelling a step in progress; does nothing when stopped already."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for left in self._left:  # not waited for: it did not end when it was cancelled before
            left.cancel()

    @property
    def is_stuck(self) -> bool:
        """Whether it was started and missed three ticks."""
        silent_s = self._clock() - self._heard_at
        return self._task is not None and silent_s > self._deadline_s + TICKS_MISSED * self._interval_s

    def start_anew(self) -> None:
        """Log where it is stuck, leave that to its fate and begin again; does nothing when it is not started."""
        task = self._task
        if task is None:
            return
        log.error("loop.stuck", loop=self.name, silent_s=round(self._clock() - self._heard_at, 1), stack=stack_of(task))
        task.cancel()
        if not task.done():
            self._left.add(task)
            task.add_done_callback(self._left.discard)
        self._task, self._is_anew = None, True
        self.start()

    def hint(self) -> None:
        """Ask for a step soon."""
        self._hinted.set()

    def check(self) -> Check:
        """Whether it steps and the last three steps did not all fail, and what the newest failure was."""
        if self.is_stuck or self._is_anew:
            return Check(False, "missed three ticks" + (" and was started anew" if self._is_anew else ""))
        return Check(self._failures < 3, self._last_error if self._failures else "stepping")

    async def _run(self) -> None:
        wait_s: float | None = 0.0
        while asyncio.current_task() is self._task:  # not for ever after one that was left has come to its end
            await self._sleep(self._until_tick() if wait_s is None else min(wait_s, self._interval_s))
            self._hinted.clear()
            wait_s = await self._guarded_step()

    def _until_tick(self) -> float:
        """Return the seconds of an interval, or a little less."""
        interval_s = self._interval_s
        return interval_s - (self._clock() + interval_s) % GRID_S if interval_s >= 2 * GRID_S else interval_s

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
            self._log_failure(error)
            return None
        finally:
            self._heard()
        self._failures = 0
        return wait_s

    def _heard(self) -> None:
        if asyncio.current_task() is self._task:
            self._heard_at, self._is_anew = self._clock(), False

    def _log_failure(self, error: Exception) -> None:
        """Log the first, second, fourth, eighth … failure in a row; a store that is away is told by the store."""
        if not isinstance(error, Unavailable) and self._failures.bit_count() == 1:
            log.warning("loop.failed", loop=self.name, failures=self._failures, error=self._last_error)


class Watchdog:
    """Starts those of `loops` anew that are stuck."""

    def __init__(self, loops: Iterable[Loop]) -> None:
        self.loops = tuple(loops)

    async def step(self) -> float | None:
        """Look at each loop once."""
        for loop in self.loops:
            if loop.is_stuck:
                loop.start_anew()
        return None


def stack_of(task: asyncio.Task[None]) -> list[str]:
    """Return where a task waits, outermost first, as `module:line function`; empty when it has ended."""
    stack: list[str] = []
    waiting: object = task.get_coro()
    while (frame := getattr(waiting, "cr_frame", None)) is not None:
        stack.append(f"{frame.f_globals.get('__name__')}:{frame.f_lineno} {frame.f_code.co_name}")
        waiting = getattr(waiting, "cr_await", None)
    return stack
