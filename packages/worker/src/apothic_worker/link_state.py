"""The worker's side of the link protocol, without I/O. `docs/reference/worker-link.md` is the prose.

Bytes go in (`receive`), items to act upon come out; items to report go in (`started`, `logs`, `finished`, …) and
messages come out (`take`). The state outlives connections: it holds the attempts, and every `Finished` until the
server settled it. Times are milliseconds of CLOCK_BOOTTIME and come in as arguments.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from apothic.wire.images import BuildLines, ImagesTidied, Prepared
from apothic.wire.link import (
    Assign,
    AttemptRef,
    ChunkResult,
    Draining,
    Finished,
    Heartbeat,
    HeartbeatAnswer,
    HeldAttempt,
    Hello,
    Items,
    ItemsTaken,
    LogLine,
    Logs,
    LogsTaken,
    Machine,
    Refused,
    RunnerEnded,
    RunnerRef,
    Settled,
    Started,
    Welcome,
)
from apothic.wire.version import LINK_PROTOCOL, VERSION
from apothic_worker.link_codec import LinkBroken, ServerItem, WorkerItem, decode_server, encode_worker

MESSAGE_BYTES_MAX = 4 * 1024 * 1024
"""A message grows no further than this and one item."""

KEPT_LOG_BYTES_MAX = 4 * 1024 * 1024
"""Log text kept until the server has it."""

Key = tuple[str, int]


class Haste(enum.Enum):
    """When something that is to be sent has to leave."""

    SOON = "soon"
    """With what follows it within some milliseconds."""
    TICK = "tick"
    """With what follows it in this tick of the event loop."""
    NOW = "now"
    """At once: nothing follows it."""


@dataclass(frozen=True)
class Drop:
    """Attempts and runners that the server does not know: stop them and report nothing."""

    attempts: tuple[Key, ...]
    runners: tuple[str, ...] = ()


@dataclass(slots=True)
class _Held:
    runner: str
    has_started: bool = False
    finished: Finished | None = None
    items: list[Items] = field(default_factory=list[Items])
    logs: list[Logs] = field(default_factory=list[Logs])
    lines: int = 0
    log_bytes: int = 0
    lost_log_bytes: int = 0
    lost_log_at_ms: int = 0

    def add_lines(self, key: Key, lines: list[LogLine]) -> Logs:
        """Return the report of lines, which is kept until the server has it."""
        item = Logs(*key, self.lines, lines)
        self.lines += len(lines)
        self.log_bytes += _text_bytes(lines)
        self.logs.append(item)
        return item

    def forget_lines(self) -> None:
        """Forget the oldest report of lines."""
        self.log_bytes -= _text_bytes(self.logs.pop(0).lines)


class LinkState:
    """Protocol state of one worker incarnation.

    Args:
        incarnation: Random identity of this start.
        name: Shown to people.
        machine: What is offered.
        credit: Attempts held at most.
        wake: Called when there is something to take.
        forerunners: Earlier starts that are dead for certain.
    """

    def __init__(
        self,
        *,
        incarnation: str,
        name: str,
        machine: Machine,
        credit: int,
        wake: Callable[[Haste], None],
        forerunners: Sequence[str] = (),
    ) -> None:
        self._hello = Hello(LINK_PROTOCOL, VERSION, incarnation, name, machine, credit, forerunners=[*forerunners])
        self._wake = wake
        self._held: dict[Key, _Held] = {}
        self._unsettled: set[Key] = set()
        self._out: list[WorkerItem] = []
        self._is_welcome = False
        self._asked_at_ms: int | None = None
        self._draining: Draining | None = None
        self.session: Welcome | None = None
        """The newest `Welcome`; kept while the link is away."""
        self.renewed_at_ms: int | None = None
        """When the newest answered heartbeat was sent: the lease counts from here."""

    @property
    def incarnation(self) -> str:
        """Identity of this start."""
        return self._hello.incarnation

    # --- the connection

    def open(self, now_ms: int, runners: list[RunnerRef]) -> None:
        """A connection is up: say hello. `runners` are those alive or starting."""
        self._out = [replace(self._hello, held=self._described(), runners=runners)]
        self._is_welcome = False
        self._asked_at_ms = now_ms
        self._wake(Haste.TICK)

    def close(self) -> None:
        """The connection is gone. What was not sent is said again on the next one, or implied by it."""
        self._is_welcome = False
        self._asked_at_ms = None
        self._out = []

    def receive(self, data: bytes) -> list[ServerItem | Drop]:
        """Take one message and return what the worker has to do, in order.

        Raises:
            LinkBroken: The message breaks the protocol.
        """
        found: list[ServerItem | Drop] = []
        for item in decode_server(data):
            if not self._is_welcome and not isinstance(item, (Welcome, Refused)):
                raise LinkBroken("the server sent something before its welcome")
            found += self._accept(item)
        return found

    def take(self) -> list[bytes]:
        """Return the messages to send now and forget their items."""
        if not self._is_welcome:
            return self._take_hello()
        items, self._out = self._out, []
        messages: list[bytes] = []
        start = size = 0
        for place, item in enumerate(items):
            weight = _weight(item)
            if size and size + weight > MESSAGE_BYTES_MAX:
                messages.append(encode_worker(items[start:place]))
                start, size = place, 0
            size += weight
        if items:
            messages.append(encode_worker(items[start:]))
        return messages

    def heartbeat(self, now_ms: int, echo: int) -> bool:
        """Queue a heartbeat that echoes a ping; false when the last one was never answered: the link counts as dead."""
        if self._asked_at_ms is not None:
            return False
        self._asked_at_ms = now_ms
        self._send(Heartbeat(now_ms, self.held, echo))
        return True

    # --- attempts

    @property
    def held(self) -> list[AttemptRef]:
        """Every attempt that is not settled."""
        return [AttemptRef(job, fence) for job, fence in self._held]

    @property
    def has_unsettled(self) -> bool:
        """Whether a `Finished` waits for the server."""
        return bool(self._unsettled)

    @property
    def executes(self) -> bool:
        """Whether an attempt has not ended yet."""
        return any(held.finished is None for held in self._held.values())

    def started(self, key: Key) -> None:
        """User code got the call. May wait a little for company."""
        if held := self._held.get(key):
            held.has_started = True
            self._send(Started(*key), Haste.SOON)

    def logs(self, key: Key, lines: list[LogLine]) -> None:
        """Report output; repeated on every new link until it is taken.

        Only so much is kept. Without a link the rest is dropped and the loss is counted; with one the oldest lines are
        forgotten, which were sent.
        """
        held = self._held.get(key)
        if held is None or not lines:
            return
        size = _text_bytes(lines)
        if self._log_bytes + size > KEPT_LOG_BYTES_MAX and not self._is_welcome:
            held.lost_log_bytes += size
            held.lost_log_at_ms = lines[-1].at_ms
            return
        while held.logs and self._log_bytes + size > KEPT_LOG_BYTES_MAX:
            held.forget_lines()
        self._send(held.add_lines(key, lines))

    def items(self, item: Items) -> None:
        """Report items; repeated on every new link until they are taken."""
        if held := self._held.get((item.job, item.fence)):
            held.items.append(item)
            self._send(item)

    def finished(self, item: Finished) -> None:
        """Report the end of an attempt; repeated on every new link until it is settled. Ignored when it was dropped."""
        if held := self._held.get((item.job, item.fence)):
            held.finished = item
            self._unsettled.add((item.job, item.fence))
            self._send(item, Haste.TICK if self.executes else Haste.NOW)

    def runner_ended(self, item: RunnerEnded) -> None:
        """Report the end of a runner."""
        self._send(item)

    def build(self, item: BuildLines | Prepared | ImagesTidied) -> None:
        """Report how a build goes, or what is there; on a new link the server asks again, and is told all of it."""
        self._send(item)

    def draining(self, finish_s: float) -> None:
        """Ask for no more work, now and after every reconnect."""
        self._draining = Draining(finish_s)
        self._send(self._draining)

    def forget(self, key: Key) -> None:
        """Drop an attempt without a report."""
        self._forget(key)

    # --- inside

    @property
    def _log_bytes(self) -> int:
        return sum(held.log_bytes for held in self._held.values())

    def _described(self) -> list[HeldAttempt]:
        return [HeldAttempt(job, fence, held.runner) for (job, fence), held in self._held.items()]

    def _take_hello(self) -> list[bytes]:
        hello = [item for item in self._out if isinstance(item, Hello)]
        self._out = [item for item in self._out if not isinstance(item, Hello)]
        return [encode_worker(list(hello))] if hello else []

    def _send(self, item: WorkerItem, haste: Haste = Haste.TICK) -> None:
        if self._is_welcome:
            self._out.append(item)
            self._wake(haste)

    def _accept(self, item: ServerItem) -> list[ServerItem | Drop]:
        match item:
            case Assign():
                key = (item.job, item.fence)
                if key in self._held:
                    return []
                self._held[key] = _Held(item.runner)
                return [item]
            case Settled():
                key = (item.job, item.fence)
                if key in self._unsettled:
                    self._forget(key)
                return []
            case Welcome():
                return self._welcome(item)
            case HeartbeatAnswer():
                if item.sent_at_ms == self._asked_at_ms:
                    self.renewed_at_ms, self._asked_at_ms = item.sent_at_ms, None
                return [*([item] if item.servers else []), self._drop(item.unknown)]
            case LogsTaken():
                if held := self._held.get((item.job, item.fence)):
                    while held.logs and held.logs[0].first_number + len(held.logs[0].lines) <= item.upto:
                        held.forget_lines()
                return []
            case ItemsTaken():
                if held := self._held.get((item.job, item.fence)):
                    while held.items and held.items[0].first_ordinal + held.items[0].count <= item.upto:
                        held.items.pop(0)
                return [item]
            case _:
                return [item]

    def _welcome(self, item: Welcome) -> list[ServerItem | Drop]:
        if self._is_welcome:
            raise LinkBroken("the server said welcome twice")
        self._is_welcome = True
        self.session = item
        self.renewed_at_ms, self._asked_at_ms = self._asked_at_ms, None
        drop = self._drop(item.unknown, tuple(item.unknown_runners))
        self._out = []
        self._repeat()
        self._wake(Haste.TICK)
        return [item, drop]

    def _repeat(self) -> None:
        if self._draining:
            self._out.append(self._draining)
        for key, held in self._held.items():
            if held.lost_log_bytes:
                text = f"{held.lost_log_bytes} bytes of output dropped: the link to the server was away"
                held.add_lines(key, [LogLine("system", held.lost_log_at_ms, text)])
                held.lost_log_bytes = 0
            if held.has_started:
                self._out.append(Started(*key))
            self._out += held.logs
            self._out += held.items
            if held.finished:
                self._out.append(held.finished)

    def _drop(self, refs: list[AttemptRef], runners: tuple[str, ...] = ()) -> Drop:
        keys = tuple((ref.job, ref.fence) for ref in refs)
        for key in keys:
            self._forget(key)
        return Drop(keys, runners)

    def _forget(self, key: Key) -> None:
        self._held.pop(key, None)
        self._unsettled.discard(key)


def _text_bytes(lines: list[LogLine]) -> int:
    return sum(len(line.text) for line in lines)


def _weight(item: WorkerItem) -> int:
    if isinstance(item, Finished):
        return 256 + (len(item.value.data) if item.value else 0) + (_weight_of_items(item.items) if item.items else 0)
    if isinstance(item, Items):
        return 256 + len(item.data)
    if isinstance(item, Logs):
        return 64 + sum(64 + len(line.text) for line in item.lines)
    return 256


def _weight_of_items(items: ChunkResult) -> int:
    written = sum(64 + sum(64 + len(line.text) for line in output.lines) for output in items.output)
    return len(items.data) + written + 4 * len(items.failed)
