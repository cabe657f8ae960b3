"""One live runner: start, feed calls, forward what they write and answer, stop, and tell how it ended.

Rules:

- An attempt is reported finished when nothing of it runs: at once after an answer that left no processes, else when the
  zygote says that the runner's whole tree is gone.
- What is decided from outside (timeout, cancel) stands; an answer that comes later is thrown away.
- With one task the unit that is stopped is the runner. With several, the call is asked to stop first, and the runner is
  ended when it does not.
"""

from __future__ import annotations

import enum
import functools
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from apothic.wire.link import Assign, Finished, RunnerEnded, StartRunner
from apothic.wire.runner import error_from_json
from apothic.wire.values import RemoteError
from apothic_worker import journal
from apothic_worker.attempt import Attempt, Caller, Key, Reports, attempt_of, end_of, report_end, report_items
from apothic_worker.channel import Channel, Frame
from apothic_worker.chunk import Chunk
from apothic_worker.failures import death, failure, time_limit, unstarted
from apothic_worker.leftovers import Leftovers
from apothic_worker.limits import Bounds, Group, Limits
from apothic_worker.output import OutputPipes
from apothic_worker.share import Share
from apothic_worker.signals import Signals
from apothic_worker.time_limits import TimeLimits
from apothic_worker.transcript import Transcript
from apothic_worker.zygote import KILL, TERM, Zygote

TIMEOUT_GRACE_S = STOP_GRACE_S = 5.0


class Phase(enum.Enum):
    """Where a runner is."""

    STARTING = "starting"
    SERVING = "serving"
    ENDING = "ending"
    ENDED = "ended"


class Runner:
    """One runner.

    Args:
        spec: What the server asked for.
        limits: Makes its cgroup.
        reports: Gets everything that the server is told.
        on_end: Called once when it is gone.
    """

    def __init__(self, spec: StartRunner, limits: Limits, reports: Reports, on_end: Callable[[Runner], None]) -> None:
        self.spec = spec
        self.phase = Phase.STARTING
        self.is_dropped = False
        self.took_too_much = False  # of memory, or of a disk that is nearly full; then what it left goes as well
        self._limits = limits
        self._reports = reports
        self._on_end = on_end
        self._queue: deque[Attempt] = deque()
        self._calls: dict[str, Attempt] = {}
        self._calls_made = 0
        self._signals: Signals | None = None
        self._reason = "exited"
        self._load_error: RemoteError | None = None
        self._is_load_lost = self._is_ready = False
        self._time_limits = TimeLimits(self._calls, lambda attempt: self._timed_out(attempt, "timeout"))
        self._transcript = Transcript(self._calls, reports, is_shared=spec.batching is not None)
        self.zygote: Zygote | None = None
        self._channel: Channel | None = None
        self._output: OutputPipes | None = None
        self._group: Group | None = None
        self.share = Share()
        self.leftovers: Leftovers | None = None

    @property
    def holds(self) -> list[Key]:
        """Attempts queued or running here."""
        return [attempt.key for attempt in self._attempts]

    @property
    def _attempts(self) -> list[Attempt]:
        return [*self._calls.values(), *self._queue]

    def _held(self, key: Key) -> Attempt | None:
        return next((attempt for attempt in self._attempts if attempt.key == key), None)

    @property
    def is_failed(self) -> bool:
        """Whether it never served because of an error that its attempts are told."""
        return self._load_error is not None

    @property
    def running(self) -> int:
        """Attempts that user code has reached."""
        return len(self._calls)

    def begin(self, zygote: Zygote) -> None:
        """Fork the process; it serves when it has said that it is ready."""
        self.zygote = zygote
        self._signals = Signals(zygote, self.spec.runner)
        self._output = OutputPipes(self._transcript.wrote)
        self._channel = Channel(self._on_frame, self._on_silence)
        for stream, data in zygote.take_output():
            self._transcript.wrote(stream, data)
        descriptors = [self._channel.peer.detach(), *self._output.write_ends]
        self._output.write_ends = []
        zygote.fork(self.spec, descriptors, self._exited)

    def fail_start(self, error: RemoteError, *, is_lost: bool = False) -> None:
        """Give up before or while starting: each attempt gets this error."""
        self._load_error, self._is_load_lost = error, is_lost
        self._reason = error.code
        if self.zygote is None:
            self._end(error, is_lost=is_lost)
        else:
            self._stop_now()

    def _hello(self) -> None:
        """Put the process into its cgroup before it may run anything of the user's."""
        assert self._channel is not None and self.zygote is not None
        pid = self._channel.peer_pid
        if pid is None or self._group is not None:
            self._stop_now()
            return
        try:
            bounds = Bounds(cpus=max(1, self.spec.cpu), memory_mb=self.spec.memory_mb)
            self._group = self.share.group = self._limits.group(f"r-{self.spec.runner}", bounds)
            self._group.add(pid)
        except OSError as error:
            self.fail_start(failure("worker_lost", f"the runner's limits cannot be set: {error}"), is_lost=True)
            return
        self.leftovers = Leftovers(pid, self._group)
        self.zygote.door.admit(pid, Caller(self._calls, self.spec.tasks))
        self._channel.send({"kind": "go"})

    def assign(self, order: Assign) -> None:
        """Queue an attempt and hand it over when a task is free."""
        self._calls_made += 1
        attempt = attempt_of(order, str(self._calls_made), self._ask_back)
        if order.deadline_left_s is not None:
            attempt.after(order.deadline_left_s, functools.partial(self._timed_out, attempt, "deadline_exceeded"))
        if self.phase in (Phase.STARTING, Phase.SERVING) and self._load_error is None:
            self._queue.append(attempt)
            self._feed()
        else:
            self._finish_unstarted(attempt)

    def cancel(self, key: Key, grace_s: float) -> bool:
        """Stop an attempt and report it cancelled; false when it is not here."""
        return self._stop_attempt(key, "cancelled", None, grace_s)

    def items_taken(self, key: Key, upto: int) -> None:
        """Tell a generator that runs here how far its items were taken."""
        attempt = self._held(key)
        if attempt is not None and self._channel is not None:
            if attempt.items is not None:
                attempt.items.taken(upto)
            self._channel.send({"kind": "items_taken", "call": attempt.call, "upto": upto})

    def take_back(self, key: Key) -> None:
        """Let the item under way of a chunk end, and report the rest as not done; ignored when it is no chunk here."""
        attempt = self._held(key)
        if attempt in self._queue and attempt.chunk is not None:
            self._queue.remove(attempt)
            self._report(attempt, attempt.finish("succeeded"))
        elif attempt is not None:
            self._ask_back(attempt)

    def give_back(self) -> None:
        """Report what user code has not reached as lost, and let chunks end with the items under way."""
        for attempt in self._calls.values():
            self._ask_back(attempt)
        while self._queue:
            attempt = self._queue.popleft()
            attempt.verdict, attempt.error = "lost", failure("worker_lost", "the worker stops")
            self._report(attempt, attempt.finish("lost"))

    def drop(self, key: Key) -> bool:
        """Stop an attempt without any report; false when it is not here."""
        if attempt := self._held(key):
            attempt.is_dropped = True
        return self._stop_attempt(key, "lost", None, 0.0)

    def stop(self) -> None:
        """End the runner when it is idle; ignored otherwise."""
        if self.holds or self.phase in (Phase.ENDING, Phase.ENDED):
            return
        if self._channel is None or self._signals is None or self.phase is Phase.STARTING:
            self.end("stopped")
            return
        self.phase = Phase.ENDING
        self._reason = "stopped"
        self._channel.send({"kind": "stop"})
        self._signals.kill_later(STOP_GRACE_S)

    def end(self, reason: str, *, is_final: bool = True, error: RemoteError | None = None) -> None:
        """Stop it, with `is_final` by KILL, else by TERM. Attempts end lost; running ones fail with `error`, if any."""
        lost = failure("worker_lost", f"the runner was ended: {reason}")
        for attempt in self._attempts:
            if attempt.verdict is None and attempt.ended is None:
                has_failed = error is not None and attempt.started_ns > 0
                attempt.verdict, attempt.error = ("failed", error) if has_failed else ("lost", lost)
        if self.phase is not Phase.ENDED:
            self._reason = reason
        self._stop_now(KILL if is_final else TERM)

    def drop_all(self) -> None:
        """End the runner without any report."""
        self.is_dropped = True
        for attempt in self._attempts:
            attempt.is_dropped = True
        self.end("unknown to the server")

    # --- frames of the runtime

    def _on_frame(self, frame: Frame) -> None:
        """Act on a frame. The process may be full of user code that speaks on our socket: nothing in it is trusted."""
        try:
            self._obey(*frame)
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
            journal.warning("runner.broken_frame", runner=self.spec.runner, reason=repr(error))
            self._stop_now()

    def _obey(self, head: dict[str, Any], body: bytes) -> None:
        match head.get("kind"):
            case "result" | "error" | "log" | "items" | "done":
                self._of_call(head, body)
            case "hello":
                self._hello()
            case "ready" if self.phase is Phase.STARTING:
                self.phase = Phase.SERVING
                self._is_ready = True
                self._feed()
            case "load_failed":
                self.fail_start(error_from_json(head["error"]))
            case kind:
                raise ValueError(f"unexpected frame {kind!r}")

    def _on_silence(self) -> None:
        """The runtime closed its socket or broke the protocol: nothing more can come, so the process has to go."""
        if self.phase is not Phase.ENDED and self._signals is not None:
            self._signals.kill_later(STOP_GRACE_S)
            self.phase = Phase.ENDING

    def _of_call(self, head: dict[str, Any], body: bytes) -> None:
        attempt = self._calls.get(str(head.get("call")))
        if attempt is None or attempt.ended is not None:
            return
        if head["kind"] == "log":
            attempt.printed(head)
            self._transcript.send_later()
        elif attempt.chunk is not None:
            self._progressed(attempt, attempt.chunk, head, body)
        elif head["kind"] == "items":
            report_items(self._reports, attempt, head, body)
        elif attempt.verdict is None or self.spec.tasks > 1:
            self._answered(attempt, end_of(attempt, head, body))

    def _progressed(self, attempt: Attempt, chunk: Chunk, head: dict[str, Any], body: bytes) -> None:
        assert self._output is not None
        self._output.drain()  # it was written by these items or by earlier ones
        attempt.moved_ns = time.monotonic_ns()
        is_last = chunk.add(head, body, may_stop=attempt.verdict is not None)
        if is_last and (attempt.verdict is None or self.spec.tasks > 1):
            self._answered(attempt, attempt.finish("succeeded"))

    def _ask_back(self, attempt: Attempt) -> None:
        if attempt.chunk is not None and not attempt.chunk.is_asked_back and self._channel is not None:
            attempt.chunk.is_asked_back = True
            self._channel.send({"kind": "take_back", "call": attempt.call})

    def _answered(self, attempt: Attempt, end: Finished) -> None:
        assert self._output is not None
        self._output.drain()
        if len(self._calls) == 1 and self.leftovers is not None and self.leftovers.exist():
            attempt.cancel_timers()
            attempt.ended = end
            self._reason = "a call left processes behind"
            self._stop_now()
            return
        del self._calls[attempt.call]
        self._report(attempt, end)
        self._feed()

    def _feed(self) -> None:
        while self.phase is Phase.SERVING and self._queue and len(self._calls) < max(1, self.spec.tasks):
            self._hand_over(self._queue.popleft())

    def _hand_over(self, attempt: Attempt) -> None:
        assert self._channel is not None
        self._calls[attempt.call] = attempt
        attempt.started_ns = attempt.moved_ns = time.monotonic_ns()
        self._channel.send(attempt.head, attempt.order.arguments.data)
        self._reports.started(attempt.key)
        self._time_limits.watch(attempt)
        self._transcript.begin(attempt)

    def _timed_out(self, attempt: Attempt, code: str) -> None:
        error = time_limit(code, attempt.order.timeout_s)
        self._stop_attempt(attempt.key, "timed_out", error, TIMEOUT_GRACE_S)

    def _stop_attempt(self, key: Key, verdict: str, error: RemoteError | None, grace_s: float) -> bool:
        attempt = self._held(key)
        if attempt in self._queue:
            self._queue.remove(attempt)
            attempt.verdict, attempt.error = verdict, error
            self._report(attempt, attempt.finish(verdict))
        elif attempt is not None and attempt.verdict is None and attempt.ended is None:
            attempt.verdict, attempt.error = verdict, error
            attempt.cancel_timers()
            self._ask_back(attempt)
            self._stop_call(attempt, grace_s)
        return attempt is not None

    def _stop_call(self, attempt: Attempt, grace_s: float) -> None:
        reason = f"an attempt was {attempt.verdict}"
        if self.spec.tasks > 1 and self._channel is not None:
            self._channel.send({"kind": "cancel", "call": attempt.call})
            attempt.after(grace_s, functools.partial(self.end, reason))
            return
        self._reason = reason
        self._stop_now(TERM if grace_s > 0 else KILL, grace_s)

    def _stop_now(self, number: int = KILL, grace_s: float = STOP_GRACE_S) -> None:
        """Signal the whole tree; KILL follows after the grace. The end comes with the zygote's word."""
        if self.phase is Phase.ENDED:
            return
        if self._signals is None:
            self._end(failure("worker_lost", f"the runner was ended: {self._reason}"), is_lost=True)
            return
        self.phase = Phase.ENDING
        self._signals.send(number, grace_s)

    def _exited(self, code: int | None, number: int | None, is_zygote_gone: bool) -> None:
        """Nothing of the runner is left. What it sent before may still be unread."""
        if self._output is not None and self._channel is not None:
            self._output.drain()
            self._channel.drain()
        is_lost = is_zygote_gone or (code is None and number is None)
        kills = self._group.memory_kills() if self._group is not None else 0
        self.took_too_much |= kills > 0
        error = death(code, number, self.spec.memory_mb if kills and number == KILL else None)
        if is_lost:
            error = failure("worker_lost", "the parent process of the runner is gone")
        elif not self._is_ready:
            self._load_error = self._load_error or error
        self._end(error, is_lost=is_lost)

    def _end(self, error: RemoteError, *, is_lost: bool) -> None:
        if self.phase is Phase.ENDED:
            return
        self.phase = Phase.ENDED
        if self._output is not None and self._channel is not None:
            self._output.close()
            self._channel.close()
        self._report_ends(error, is_lost=is_lost)
        self._release()
        if not self.is_dropped:
            self._reports.runner_ended(RunnerEnded(self.spec.runner, self._reason))
        self._on_end(self)

    def _report_ends(self, error: RemoteError, *, is_lost: bool) -> None:
        outcome = "lost" if is_lost else "failed"
        for attempt in self._calls.values():
            self._report(attempt, attempt.ended or attempt.finish(outcome, error=error))
        self._calls.clear()
        while self._queue:
            self._finish_unstarted(self._queue.popleft())

    def _finish_unstarted(self, attempt: Attempt) -> None:
        """End an attempt that user code never saw."""
        self._transcript.begin(attempt)
        why = self._load_error or failure("worker_lost", f"the runner ended before the call: {self._reason}")
        self._report(attempt, attempt.finish(unstarted(self._load_error, is_lost=self._is_load_lost), error=why))

    def _report(self, attempt: Attempt, end: Finished) -> None:
        self._transcript.end(attempt)
        attempt.cancel_timers()
        report_end(self._reports, attempt, end)

    def _release(self) -> None:
        if self._signals is not None:
            self._signals.close()
        self._transcript.close()
        self._time_limits.close()
        if self.leftovers is not None:
            self.leftovers.close()
        self.share.close()
        if self._group is not None:
            self._limits.release(self._group)
