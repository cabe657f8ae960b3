"""One attempt inside a runner, and what of it is reported."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from apothic.wire.images import BuildLines, Prepared
from apothic.wire.link import (
    Assign,
    Finished,
    Items,
    LogLine,
    RunnerEnded,
)
from apothic.wire.runner import error_from_json
from apothic.wire.values import ENCODINGS, RemoteError, Value
from apothic_worker.items import ItemWindow
from apothic_worker.lines import AttemptLog

Key = tuple[str, int]
OURS = frozenset(
    {
        "deadline_exceeded",
        "deployment_deleted",
        "disk_limit",
        "exited",
        "isolation_refused",
        "killed_by_signal",
        "out_of_memory",
        "startup_timeout",
        "timeout",
        "worker_lost",
    }
)
"""Codes that only this worker and the server give: from a runner they are forged, because it lives."""

_PYTHON = re.compile(r"3\.[0-9]{1,2}")


class Reports(Protocol):
    """Where a runner says what happened."""

    def started(self, key: Key) -> None:
        """User code got the call."""
        ...

    def logs(self, key: Key, lines: list[LogLine]) -> None:
        """The attempt wrote lines."""
        ...

    def items(self, item: Items) -> None:
        """The attempt yielded items."""
        ...

    def finished(self, item: Finished) -> None:
        """The attempt ended and nothing of it runs."""
        ...

    def runner_ended(self, item: RunnerEnded) -> None:
        """A runner is gone."""
        ...

    def build(self, item: BuildLines | Prepared) -> None:
        """An environment is being built, or is there."""
        ...


def unix_ms() -> int:
    """Return Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass
class Attempt:
    """An attempt that a runner holds.

    Attributes:
        call: Its name towards the runtime.
        verdict: Outcome decided from outside, `timed_out`, `cancelled`, `lost` or `failed`; beats whatever user code
            still does.
        ended: Its end, known but not reported because something of it still runs.
        is_dropped: The server does not know it: report nothing.
    """

    order: Assign
    call: str
    log: AttemptLog = field(default_factory=lambda: AttemptLog(unix_ms))
    items: ItemWindow = field(default_factory=ItemWindow)
    started_ns: int = 0
    verdict: str | None = None
    error: RemoteError | None = None
    ended: Finished | None = None
    is_dropped: bool = False
    _timers: list[asyncio.TimerHandle] = field(default_factory=list[asyncio.TimerHandle])

    @property
    def key(self) -> Key:
        """Job and fence."""
        return (self.order.job, self.order.fence)

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        """Call `call` in `delay_s` seconds, unless `cancel_timers` comes first."""
        self._timers.append(asyncio.get_running_loop().call_later(delay_s, call))

    def cancel_timers(self) -> None:
        """Nothing that `after` was asked for happens any more."""
        while self._timers:
            self._timers.pop().cancel()

    def finish(self, outcome: str, value: Value | None = None, error: RemoteError | None = None) -> Finished:
        """Return the report of its end; a verdict replaces the outcome given."""
        ran_ms = (time.monotonic_ns() - self.started_ns) // 1_000_000 if self.started_ns else 0
        if self.verdict:
            outcome, value, error = self.verdict, None, self.error
        never_started = outcome == "lost" and not self.started_ns
        return Finished(self.order.job, self.order.fence, outcome, value, error, ran_ms, never_started)


CONNECTIONS_MAX = 64
"""Connections to the control plane that a runner with one task may have open at once; more tasks have two more each."""


@dataclass(eq=False)
class Caller:
    """A runner's user code as it calls the control plane.

    Attributes:
        calls: The runner's live calls by name; changes as they come and go.
        tasks: Calls it may execute at once.
    """

    calls: dict[str, Attempt]
    tasks: int

    @property
    def connections_max(self) -> int:
        """Connections that it may have open at once."""
        return CONNECTIONS_MAX + 2 * self.tasks

    def attempt_of(self, call: str) -> Key | None:
        """Return the attempt that is the live call of this name; with an empty name, the only live one."""
        live = [attempt for attempt in self.calls.values() if attempt.ended is None and not attempt.is_dropped]
        if call:
            live = [attempt for attempt in live if attempt.call == call]
        return live[0].key if len(live) == 1 else None


def end_of(attempt: Attempt, head: dict[str, Any], body: bytes) -> Finished:
    """Return the report that a runner's `result` or `error` frame makes.

    Raises:
        KeyError, ValueError, TypeError, AttributeError: User code forged the frame.
    """
    if head["kind"] == "error":
        error = error_from_json(head["error"])
        return attempt.finish("failed", error=replace(error, code="exception") if error.code in OURS else error)
    if head["encoding"] not in ENCODINGS:
        raise ValueError("unknown encoding of a result")
    python = head.get("python")
    if python is not None and not _PYTHON.fullmatch(python):
        raise ValueError("a result names no version of Python")
    return attempt.finish("succeeded", value=Value(head["encoding"], body, python))


def report_items(reports: Reports, attempt: Attempt, head: dict[str, Any], body: bytes) -> None:
    """Report the items of a runner's frame, unless the attempt is being stopped.

    Raises:
        KeyError, ValueError, TypeError: User code forged the frame.
    """
    batch = attempt.items.add(attempt.key, head, body)
    if attempt.verdict is None and not attempt.is_dropped:
        reports.items(batch)


def report_end(reports: Reports, attempt: Attempt, end: Finished) -> None:
    """Report the last lines and the end of an attempt, unless it was dropped."""
    if attempt.is_dropped:
        return
    if lines := attempt.log.close():
        reports.logs(attempt.key, lines)
    reports.finished(end)
