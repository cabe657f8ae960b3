"""One attempt inside a runner, and what of it is reported."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from apothic.wire.images import BuildLines, ImagesTidied, Prepared
from apothic.wire.limits import CHUNK_ITEMS_MAX
from apothic.wire.link import (
    Assign,
    Finished,
    Items,
    LogLine,
    RunnerEnded,
)
from apothic.wire.values import ENCODINGS, RemoteError, Value
from apothic_worker.chunk import Chunk, ChunkLog
from apothic_worker.failures import error_of_user
from apothic_worker.items import ItemWindow, check_python
from apothic_worker.lines import AttemptLog

Key = tuple[str, int]


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

    def build(self, item: BuildLines | Prepared | ImagesTidied) -> None:
        """An environment is being built, or is there; or which are."""
        ...


def unix_ms() -> int:
    """Return Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass(eq=False, slots=True)
class Attempt:
    """An attempt that a runner holds.

    Attributes:
        call: Its name towards the runtime.
        items: What it yielded, once it did.
        chunk: How far it is, when it executes several items of a map.
        moved_ns: Monotonic time when the call or its last item began; while it waits for a batch, when it came.
        batch: Name of the first call of its batch; empty when it is in none.
        following: Calls of its batch that are handed over after it; None when it is in none.
        together: Items of its chunk that the function gets at once; 0 when it gets one after the other.
        verdict: Outcome decided from outside, `timed_out`, `cancelled`, `lost` or `failed`; beats whatever user code
            still does.
        ended: Its end, known but not reported because something of it still runs.
        is_dropped: The server does not know it: report nothing.
    """

    order: Assign
    call: str
    log: AttemptLog | ChunkLog = field(default_factory=lambda: AttemptLog(unix_ms))
    items: ItemWindow | None = None
    chunk: Chunk | None = None
    moved_ns: int = 0
    started_ns: int = 0
    verdict: str | None = None
    error: RemoteError | None = None
    ended: Finished | None = None
    is_dropped: bool = False
    batch: str = ""
    following: int | None = None
    together: int = 0
    _timers: list[asyncio.TimerHandle] = field(default_factory=list)  # pyright: ignore[reportUnknownVariableType]

    @property
    def key(self) -> Key:
        """Job and fence."""
        return (self.order.job, self.order.fence)

    @property
    def head(self) -> dict[str, Any]:
        """Head of the frame that hands it to the runtime; its arguments are the body."""
        order = self.order
        arguments = order.arguments
        head: dict[str, Any] = {
            "kind": "call",
            "call": self.call,
            "job": order.job,
            "attempt": order.attempt,
            "encoding": arguments.encoding,
            "python": arguments.python,
        }
        if order.items is not None:
            head["items"] = asdict(order.items)
        if self.chunk is not None and self.together:
            head["together"] = self.together
        if self.following is not None:
            head["batch"] = self.following
        return head

    def printed(self, head: dict[str, Any]) -> None:
        """Take a `log` frame.

        Raises:
            KeyError, ValueError, TypeError: User code forged it.
        """
        stream, text = head["stream"], str(head["text"]).encode("utf-8", "replace")
        if stream not in ("stdout", "stderr"):
            raise ValueError("unknown stream of a log")
        if self.chunk is not None:
            self.chunk.log.print(head["item"], stream, text)
        else:
            self.log.write(stream, text)

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        """Call `call` in `delay_s` seconds, unless `cancel_timers` comes first."""
        self._timers.append(asyncio.get_running_loop().call_later(delay_s, call))

    @property
    def due_ns(self) -> int:
        """Monotonic time at which it, or its item under way, will have taken `timeout_s`."""
        return self.moved_ns + self.order.timeout_s * 1_000_000_000

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


def attempt_of(order: Assign, call: str, ask_back: Callable[[Attempt], None]) -> Attempt:
    """Return the attempt that an order asks for.

    Args:
        order: What the server says.
        call: Its name towards the runtime.
        ask_back: Called when a chunk should end with the item under way, because it wrote much.
    """
    attempt = Attempt(order, call)
    if order.items is not None and order.items.count > 1:
        attempt.log = ChunkLog(unix_ms, order.items.count, functools.partial(ask_back, attempt))
        attempt.chunk = Chunk(order.items, attempt.log)
    return attempt


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
        """Return the attempt that is the live call of this name; with an empty name, the only live one.

        Of a batch, which has the name of its first call, it is the first one that nobody has stopped.
        """
        call = call.partition(".")[0]
        live = [attempt for attempt in self.calls.values() if attempt.ended is None and not attempt.is_dropped]
        if call:
            live = [attempt for attempt in live if call in (attempt.call, attempt.batch)]
        is_batch = bool(live) and live[0].batch != ""
        return live[0].key if len(live) == 1 or is_batch else None

    def item_of(self, call: str) -> int | None:
        """Return the number of the item of a map that a call's name tells, None when it tells none of a chunk."""
        name, _, offset = call.partition(".")
        attempt = self.calls.get(name)
        order = None if attempt is None or attempt.chunk is None else attempt.order.items
        if order is None or not (offset.isascii() and offset.isdigit() and len(offset) <= len(str(CHUNK_ITEMS_MAX))):
            return None
        return order.first + int(offset) if int(offset) < order.count else None


def end_of(attempt: Attempt, head: dict[str, Any], body: bytes) -> Finished:
    """Return the report that a runner's `result` or `error` frame makes.

    Raises:
        KeyError, ValueError, TypeError, AttributeError: User code forged the frame.
    """
    if head["kind"] == "error":
        return attempt.finish("failed", error=error_of_user(head["error"]))
    if head["encoding"] not in ENCODINGS:
        raise ValueError("unknown encoding of a result")
    check_python(head.get("python"))
    return attempt.finish("succeeded", value=Value(head["encoding"], body, head.get("python")))


def report_items(reports: Reports, attempt: Attempt, head: dict[str, Any], body: bytes) -> None:
    """Report the items of a runner's frame, unless the attempt is being stopped.

    Raises:
        KeyError, ValueError, TypeError: User code forged the frame.
    """
    if attempt.items is None:
        attempt.items = ItemWindow()
    batch = attempt.items.add(attempt.key, head, body)
    if attempt.verdict is None and not attempt.is_dropped:
        reports.items(batch)


def report_end(reports: Reports, attempt: Attempt, end: Finished) -> None:
    """Report the last lines and the end of an attempt, unless it was dropped."""
    if attempt.is_dropped:
        return
    if lines := attempt.log.close():
        reports.logs(attempt.key, lines)
    reports.finished(end if attempt.chunk is None else replace(end, items=attempt.chunk.result()))
