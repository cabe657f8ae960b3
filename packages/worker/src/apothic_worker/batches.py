"""A runner of a function with batching: attempts are collected and handed over together, and each ends by itself.

Beside the rules of any runner:

- One batch runs at a time. It begins when it is full, or when its first attempt has waited for `wait_ms`; attempts that
  wait for one were not reached by user code.
- An attempt that is stopped while its batch runs (cancelled, over its deadline, unknown to the server) leaves it at
  once: the function goes on for the others, and what it returns for this one is thrown away. When none is left the
  runner is stopped, as it is with a single attempt.
- `timeout_s` is that of the batch: when it is over, all attempts of it time out and the runner is stopped.
- A chunk of items of a map is a row of batches by itself: nothing joins it, and it waits for nothing but its turn.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from apothic.wire.functions import BatchSpec
from apothic.wire.link import StartRunner
from apothic_worker.attempt import Attempt, Reports
from apothic_worker.failures import time_limit
from apothic_worker.limits import Limits
from apothic_worker.runner import TIMEOUT_GRACE_S, Phase, Runner


def runner_of(spec: StartRunner, limits: Limits, reports: Reports, on_end: Callable[[Runner], None]) -> Runner:
    """Return the runner that the server asks for; arguments as of `Runner`."""
    kind = Runner if spec.batching is None else BatchRunner
    return kind(spec, limits, reports, on_end)


def begins_in_s(batching: BatchSpec, waiting: int, waited_s: float) -> float:
    """Return the seconds until a batch begins, 0 when it is full or has waited long enough.

    Args:
        batching: Its size and its wait.
        waiting: Attempts that it would have now, at least 1.
        waited_s: How long the first of them has waited.
    """
    return 0.0 if waiting >= batching.max_batch_size else max(0.0, batching.wait_ms / 1000 - waited_s)


class BatchRunner(Runner):
    """See the module's text."""

    _timer: asyncio.TimerHandle | None = None

    def _feed(self) -> None:
        """Begin a full batch now; what has waited long enough begins when all orders that came with it were taken."""
        batching, now_ns = self.spec.batching, time.monotonic_ns()
        if batching is None or not self._queue:
            return
        newest, first = self._queue[-1], self._queue[0]
        newest.moved_ns = newest.moved_ns or now_ns
        if self.phase is not Phase.SERVING or self._calls:
            return
        if first.chunk is not None:
            first.together = batching.max_batch_size
            self._hand_over(self._queue.popleft())
        elif len(self._queue) >= batching.max_batch_size or newest.chunk is not None:
            self._begin_batch(batching.max_batch_size)
        elif self._timer is None:
            left_s = begins_in_s(batching, len(self._queue), (now_ns - first.moved_ns) / 1e9)
            self._timer = asyncio.get_running_loop().call_later(left_s, self._due)

    def _due(self) -> None:
        """A batch may begin, unless its first attempt has gone meanwhile, or another one began."""
        self._timer = None
        batching = self.spec.batching
        if batching is None or self.phase is not Phase.SERVING or self._calls or not self._queue:
            return
        waited_s = (time.monotonic_ns() - self._queue[0].moved_ns) / 1e9
        if self._queue[0].chunk is not None or begins_in_s(batching, len(self._queue), waited_s) > 0:
            self._feed()
        else:
            self._begin_batch(batching.max_batch_size)

    def _begin_batch(self, size_max: int) -> None:
        batch: list[Attempt] = []
        while self._queue and self._queue[0].chunk is None and len(batch) < size_max:
            batch.append(self._queue.popleft())
        for following, attempt in zip(reversed(range(len(batch))), batch, strict=True):
            attempt.batch, attempt.following = batch[0].call, following
            self._hand_over(attempt)

    def _timed_out(self, attempt: Attempt, code: str) -> None:
        if code != "timeout" or attempt.chunk is not None:
            super()._timed_out(attempt, code)
            return
        for one in self._going_on():
            one.verdict, one.error = "timed_out", time_limit(code, one.order.timeout_s)
            one.cancel_timers()
        self._stop_call(attempt, TIMEOUT_GRACE_S)

    def _stop_call(self, attempt: Attempt, grace_s: float) -> None:
        if not self._going_on():
            super()._stop_call(attempt, grace_s)
            return
        del self._calls[attempt.call]
        self._report(attempt, attempt.finish("lost"))

    def _going_on(self) -> list[Attempt]:
        """Attempts of the batch that nobody stopped."""
        return [attempt for attempt in self._calls.values() if attempt.verdict is None and attempt.ended is None]

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super()._release()
