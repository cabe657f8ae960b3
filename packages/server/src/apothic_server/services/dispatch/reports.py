"""Reports: what workers say over their links, checked against fence and memory (G1.3, G2.6)."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, replace

from apothic.wire.ids import IncarnationId, JobId, RunnerId
from apothic.wire.large import LARGE, Reference
from apothic.wire.limits import VALUE_INLINE_MAX, VALUE_MAX
from apothic.wire.link import AttemptRef, Finished, Items, LogLine, Logs, LogsTaken, RunnerEnded, Settled, Started
from apothic.wire.values import ENCODINGS, RemoteError, Value
from apothic_server.domain.decide.endings import Ended
from apothic_server.domain.fleet import Runner, Worker
from apothic_server.domain.groups import Part
from apothic_server.domain.jobs import JobEvent, JobFields, JobStatus, StoredValue
from apothic_server.services.dispatch.board import Board
from apothic_server.services.dispatch.chunks import checked
from apothic_server.services.dispatch.crash_loops import CrashLoops
from apothic_server.services.dispatch.endings import Endings
from apothic_server.services.dispatch.grants import Grants
from apothic_server.services.dispatch.items import ItemFlows
from apothic_server.services.dispatch.live import LiveJob, Output
from apothic_server.services.dispatch.records import log_lines, move, storable, storable_line

OUTCOMES = frozenset({"succeeded", "failed", "timed_out", "cancelled", "lost"})
_PYTHON = re.compile(r"3\.[0-9]{1,2}")


@dataclass(frozen=True, slots=True)
class LargeResult:
    """A result that waits to be put into the blob store before its end is recorded, or whose reference is checked."""

    worker: Worker
    finished: Finished
    job: LiveJob
    part: Part | None = None


def _is_value(value: Value) -> bool:
    if value.encoding == LARGE and not _is_reference(value.data):
        return False
    return value.encoding in ENCODINGS and (value.python is None or _PYTHON.fullmatch(value.python) is not None)


def _is_reference(data: bytes) -> bool:
    try:
        Reference.parse(data)
    except ValueError:
        return False
    return True


class Reports:
    """Acts on the items of a worker's frames."""

    def __init__(
        self, board: Board, grants: Grants, endings: Endings, crash_loops: CrashLoops, flows: ItemFlows
    ) -> None:
        self._board = board
        self._flows = flows
        self._grants = grants
        self._endings = endings
        self._crash_loops = crash_loops
        self.large_results: deque[LargeResult] = deque()

    def started(self, worker: Worker, item: Started) -> None:
        """J3."""
        job = self._job(worker, item.job, item.fence)
        if job is None or job.status is not JobStatus.STARTING:
            return
        now = self._board.clock.now()
        job.started_at = self._board.clock.monotonic()
        change = move(job, JobEvent.STARTED, now, fields=JobFields(started_at=now))
        if job.alarm_at > job.started_at + job.need.spec.timeout_s:
            self._board.watch(job)
        if job.runner is not None and job.runner.is_batching:
            job.runner.begun.add(job.id)
        self._board.write_quietly(change, job)

    def logs(self, worker: Worker, item: Logs) -> None:
        """Append output to the job's stream, each line once, and say when it is on disk."""
        job = self._job(worker, item.job, item.fence)
        if job is None or job.status.is_final or job.is_chunk:
            return
        output = job.output
        if output is None or output.fence != job.fence:
            output = job.output = Output(job.fence)
        lines = [storable_line(line) for line in item.lines[max(0, output.taken - item.first_number) :]]
        if not lines:
            self._logs_kept(worker, job.id, output)
            return
        if (missing := item.first_number - output.taken) > 0:
            text = f"{missing} lines of output were lost on their way from the worker"
            lines.insert(0, LogLine("system", lines[0].at_ms, text))
        upto = item.first_number + len(item.lines)
        change = log_lines(job, lines, upto - len(lines), self._board.clock.now())
        output.taken = upto

        def written(is_kept: bool) -> None:
            if is_kept:
                output.kept = max(output.kept, upto)
                self._logs_kept(worker, job.id, output)
            else:
                output.taken = output.kept

        self._board.write_quietly(change, job, written)

    def _logs_kept(self, worker: Worker, job: JobId, output: Output) -> None:
        self._board.send(worker, "logs_taken", LogsTaken(job, output.fence, output.kept))

    def items(self, worker: Worker, item: Items) -> None:
        """Append items to the job's stream."""
        job = self._job(worker, item.job, item.fence)
        if job is not None and not job.status.is_final and not job.is_chunk:
            self._flows.received(job, item)

    def finished(self, worker: Worker, item: Finished) -> None:
        """J4, J5, J6, J9 or J10. A report of an old fence changes nothing; it is answered, so that it is forgotten."""
        if self._is_ending(worker, item):
            return  # said again on a new link; answered once the first report of it is on disk
        job = self._job(worker, item.job, item.fence)
        if job is None or item.outcome not in OUTCOMES:
            self._settle(worker, item)
            return
        if job.items.waiting and self._flows.hold(job, lambda: self.finished(worker, item)):
            return
        if job.runner is not None and job.status is not JobStatus.CANCELLING:
            self._crash_loops.ended(job.runner, item.outcome, item.error)
        if item.never_started and job.runner is not None:
            job.runner.is_ending = True  # nothing more is given to it; its end is reported next
        part = None
        if job.is_chunk:
            item, part = checked(item, job)
        value = item.value
        if value is not None and not job.is_chunk and not _is_value(value):
            error = RemoteError("apothic.WorkerLost", "the worker reported a result that is none", code="worker_lost")
            item, value = replace(item, outcome="lost", value=None, error=error), None
        is_inline = value is None or (len(value.data) <= VALUE_INLINE_MAX and value.encoding != LARGE)
        if is_inline or (item.outcome != "succeeded" and part is None):
            self._end(worker, item, job, StoredValue(value) if value is not None else None, part)
        elif value is not None and len(value.data) > VALUE_MAX and part is None:
            error = RemoteError(
                "apothic.ResultTooLarge", f"the result has {len(value.data)} bytes", code="result_too_large"
            )
            self._endings.end_attempt(job, Ended("failed", error), then=lambda: self._settle(worker, item))
        else:
            self.large_results.append(LargeResult(worker, item, job, part))
            self._board.hints.feed()

    def missing(self, large: LargeResult) -> None:
        """The reference that came as a result names nothing: user code made it up."""
        job = self._job(large.worker, large.finished.job, large.finished.fence)
        if job is None:
            self._settle(large.worker, large.finished)
            return
        error = RemoteError("apothic.ResultMissing", "the result was not uploaded", code="result_unserializable")
        self._endings.end_attempt(job, Ended("failed", error), then=lambda: self._settle(large.worker, large.finished))

    def stored(self, large: LargeResult, blob: str | None) -> None:
        """The bytes of a large result are on disk: record its end, unless the attempt was taken over meanwhile.

        `blob` is their name when it is not the result itself that names them.
        """
        job = self._job(large.worker, large.finished.job, large.finished.fence)
        if job is None or large.finished.value is None:
            self._settle(large.worker, large.finished)
        else:
            self._end(large.worker, large.finished, job, StoredValue(large.finished.value, blob), large.part)

    def runner_ended(self, worker: Worker, item: RunnerEnded) -> None:
        """Forget a runner; attempts it still holds here were lost with it."""
        runner = self._board.fleet.runners.get(RunnerId(item.runner))
        if runner is not None and runner.worker is worker:
            self.forget_runner(runner, f"the runner ended: {item.reason}")
            self._grants.grant_ready()

    def forget_runner(self, runner: Runner, reason: str) -> None:
        """Take a runner that is gone off the board and give its attempts back."""
        attempts = list(runner.attempts)
        self._grants.runner_gone(runner)
        for job_id in attempts:
            self.lose(job_id, reason)

    def worker_lost(self, worker: Worker, reason: str) -> None:
        """The lease of `worker` is over or its death is proven: give its attempts back."""
        held = [job_id for runner in worker.runners.values() for job_id in runner.attempts]
        self._board.fleet.remove_worker(worker)
        self._board.links.pop(worker.id, None)
        for job_id in held:
            self.lose(job_id, reason)
        self.lose_unattached(worker.id, reason)
        self._grants.grant_ready()

    def lose_unattached(self, incarnation: IncarnationId, reason: str) -> None:
        """Give back attempts that the store says `incarnation` holds and no runner in memory does."""
        for job in list(self._board.jobs.values()):
            if job.worker == incarnation and job.runner is None and not job.waits:
                self.lose(job.id, reason)

    def lose(self, job_id: JobId, reason: str) -> None:
        """Give an attempt back: it was lost through no fault of user code. Nothing happens when none is granted."""
        job = self._board.jobs.get(job_id)
        if job is None or not job.is_granted:
            return
        self._flows.flush(job)
        error = storable(RemoteError("apothic.WorkerLost", reason, code="worker_lost"))  # a worker may say anything
        # A grant of ours that never left reached nobody: a runner that dies is given others' jobs until that is told.
        never_started = job.runner is not None and not job.is_sent
        self._endings.end_attempt(job, Ended("lost", error, never_started=never_started))

    def unknown(self, worker: Worker, held: list[AttemptRef]) -> list[AttemptRef]:
        """Return those of `held` that are not, or no longer, granted to this worker.

        One whose end is being written is not among them: should the write fail, the worker has to report it again.
        """
        return [
            ref
            for ref in held
            if self._job(worker, ref.job, ref.fence, count=False) is None and not self._is_ending(worker, ref)
        ]

    def _is_ending(self, worker: Worker, ref: AttemptRef | Finished) -> bool:
        job = self._board.jobs.get(JobId(ref.job))
        return job is not None and job.ending == (worker.id, ref.fence)

    def _end(
        self, worker: Worker, item: Finished, job: LiveJob, value: StoredValue | None, part: Part | None = None
    ) -> None:
        error = storable(item.error) if item.error is not None else None
        never_started = item.never_started and item.outcome == "lost"
        ended = Ended(item.outcome, error, never_started=never_started, part=part)
        job.ran_s = item.ran_ms / 1000
        self._endings.end_attempt(job, ended, value, then=lambda: self._settle(worker, item))

    def _job(self, worker: Worker, job_id: str, fence: int, *, count: bool = True) -> LiveJob | None:
        job = self._board.jobs.get(JobId(job_id))
        if job is not None and job.fence == fence and job.worker == worker.id:
            return job
        self._board.fenced_reports += count
        return None

    def _settle(self, worker: Worker, item: Finished) -> None:
        self._board.send(worker, "settled", Settled(item.job, item.fence))
