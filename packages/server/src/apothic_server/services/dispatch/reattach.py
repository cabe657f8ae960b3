"""Re-attachment: what a worker that dials in still has, compared with memory and the store (G2.6, D11).

A server that restarted knows unfinished jobs from their rows, but no worker and no runner. The worker's `hello`
describes them; what agrees with the rows goes on as if nothing had happened, what does not is given back or dropped.
Nothing that a hello says is believed: a runner must be one of a deployed function with exactly that function's needs,
an attempt must be granted to this incarnation under the same fence, and its runner must be one of its function.
"""

from __future__ import annotations

from collections.abc import Iterable

from apothic.wire.ids import IncarnationId, JobId, OrgId, RunnerId, is_key
from apothic.wire.link import AttemptRef, Heartbeat, HeldAttempt, Hello, RunnerRef
from apothic_server.domain.apps import Function
from apothic_server.domain.fleet import Runner, Worker
from apothic_server.domain.groups import is_job_key
from apothic_server.domain.jobs import JobStatus
from apothic_server.services.dispatch.board import Board
from apothic_server.services.dispatch.calls import Calls
from apothic_server.services.dispatch.grants import Grants
from apothic_server.services.dispatch.live import LiveJob, Output
from apothic_server.services.dispatch.recovery import PAGE, Recovery
from apothic_server.services.dispatch.reports import Reports
from apothic_server.store import recovery as rows
from apothic_server.store.connection import Connection

Deployed = dict[tuple[str, str, str], Function]
"""Functions by org, deployment and name."""


class Reattach:
    """Reconciles hellos with memory."""

    def __init__(self, board: Board, grants: Grants, calls: Calls, reports: Reports, recovery: Recovery) -> None:
        self._board = board
        self._grants = grants
        self._calls = calls
        self._reports = reports
        self._recovery = recovery

    async def read(self, unit: Connection, hello: Hello) -> Deployed:
        """Take the rows of held attempts into memory where a sweep has not, and return the functions of the runners."""
        incarnation = IncarnationId(hello.incarnation)
        held = sorted({ref.job for ref in hello.held if is_job_key(ref.job)})
        for start in range(0, len(held), PAGE):
            page = [JobId(job) for job in held[start : start + PAGE]]
            await self._recovery.adopt_held(unit, incarnation, page)
            await self._count_lines(unit, incarnation, page)
        if incarnation in self._board.fleet.workers or not hello.runners:
            return {}
        wanted = [(ref.org, ref.deployment, ref.function) for ref in hello.runners]
        found = await rows.find_deployed_functions(unit, wanted)
        return {(function.org, function.deployment, function.spec.name): function for function in found}

    async def _count_lines(self, unit: Connection, incarnation: IncarnationId, held: list[JobId]) -> None:
        """Find out how much of the output of attempts is stored that another process granted."""
        found = [self._board.jobs[job] for job in held if job in self._board.jobs]
        unknown = [job for job in found if job.worker == incarnation and _lacks_output(job)]
        if unknown:
            lines = await rows.count_lines(unit, [(job.org, job.id) for job in unknown])
            for job in unknown:
                if _lacks_output(job):
                    job.output = Output(job.fence, lines[job.id], lines[job.id])

    def rebuild(self, worker: Worker, hello: Hello, deployed: Deployed) -> None:
        """Give a worker that memory has just met the runners that it describes and that could be ours.

        Those with work of ours come first: a place of `max_containers` was kept for each. An idle one may have lost its
        place, and so may one that executes what was never recorded, or was given to another meanwhile.
        """
        ours = {(job.id, job.fence) for job in self._loose(worker)}
        busy = {ref.runner for ref in hello.held if (ref.job, ref.fence) in ours}
        for ref in sorted(hello.runners, key=lambda ref: ref.runner not in busy):
            function = deployed.get((ref.org, ref.deployment, ref.function))
            if function is None or not self._could_be_ours(worker, ref, function):
                continue
            if ref.runner in busy or self._has_place(worker, function):
                self._grants.found_runner(_runner(worker, ref, function, self._board.clock.monotonic()))

    def reconcile(self, worker: Worker, hello: Hello) -> None:
        """Attach what both sides have, and give back what the worker should hold and does not (G2.6)."""
        held = {(ref.job, ref.fence): ref for ref in hello.held}
        worker.finishing.clear()
        for job in self._loose(worker):
            ref = held.get((job.id, job.fence))
            if ref is None or not self._attach(worker, job, ref):
                self._reports.lose(job.id, "the worker came back without the attempt")
        self._give_back_missing(worker, held.keys(), {ref.runner for ref in hello.runners})

    def take_back_lost(self, worker: Worker, item: Heartbeat) -> None:
        """Give back what was sent to a worker before our newest answer and is not in a heartbeat that followed it."""
        held = {(ref.job, ref.fence) for ref in item.held}
        for job in self._jobs_of(worker):
            if job.is_granted and job.is_sent and job.sent_after < worker.answers and (job.id, job.fence) not in held:
                self._reports.lose(job.id, "the grant never reached the worker")

    def repeat_cancels(self, worker: Worker) -> None:
        """Tell a worker again what it has to stop: what was said to a broken link may be lost."""
        for job in self._jobs_of(worker):
            if job.status is JobStatus.CANCELLING and job.is_sent:
                self._calls.send_cancel(job)

    def unknown(self, worker: Worker, held: Iterable[HeldAttempt]) -> list[AttemptRef]:
        """Return those of `held` that are not, or no longer, granted to this worker."""
        return self._reports.unknown(worker, [AttemptRef(ref.job, ref.fence) for ref in held])

    def _could_be_ours(self, worker: Worker, ref: RunnerRef, function: Function) -> bool:
        spec = function.spec
        described = (ref.cpu, ref.memory_mb, ref.tasks)
        return (
            is_key(ref.runner)
            and RunnerId(ref.runner) not in self._board.fleet.runners
            and described == (spec.cpu, spec.memory_mb, spec.places)
            and spec.cpu <= worker.machine.cpus
            and spec.memory_mb <= worker.memory_free_mb
        )

    def _has_place(self, worker: Worker, function: Function) -> bool:
        fleet, group = self._board.fleet, (function.deployment, function.id)
        jobs = (self._board.jobs.get(job_id) for job_id in fleet.absent(group))
        elsewhere = sum(job is not None and job.worker != worker.id for job in jobs)
        return len(fleet.group(group)) + elsewhere < function.spec.max_containers

    def _loose(self, worker: Worker) -> list[LiveJob]:
        """Jobs that their rows grant to `worker` and that no runner in memory holds."""
        jobs = self._board.jobs.values()
        return [job for job in jobs if job.worker == worker.id and job.runner is None and job.is_granted]

    def _attach(self, worker: Worker, job: LiveJob, ref: HeldAttempt) -> bool:
        job.is_sent, job.sent_after = True, worker.answers
        self._board.fleet.unmiss(job.need.group, job.id)
        runner = worker.runners.get(RunnerId(ref.runner))
        if runner is None:
            worker.finishing.add(job.id)
            return True
        if runner.org != job.org or runner.group != job.need.group or len(runner.attempts) >= runner.tasks:
            return False
        runner.attempts.add(job.id)
        job.runner = runner
        if runner.is_batching and (job.is_chunk or job.status is not JobStatus.STARTING):
            runner.begun.add(job.id)
        self._board.parked(job)
        return True

    def _give_back_missing(self, worker: Worker, held: Iterable[tuple[str, int]], runners: set[str]) -> None:
        keys = set(held)
        lost = [job.id for job in self._jobs_of(worker) if job.is_sent and (job.id, job.fence) not in keys]
        for runner in list(worker.runners.values()):
            if self._grants.is_announced(runner) and runner.id not in runners:
                lost += [job_id for job_id in runner.attempts if job_id not in lost]
                self._grants.runner_gone(runner)
        for job_id in lost:
            self._reports.lose(job_id, "the grant did not survive the reconnect of its worker")

    def _jobs_of(self, worker: Worker) -> list[LiveJob]:
        ids = [job_id for runner in worker.runners.values() for job_id in runner.attempts]
        return [job for job_id in ids if (job := self._board.jobs.get(job_id)) is not None]


def _lacks_output(job: LiveJob) -> bool:
    return job.output is None or job.output.fence != job.fence


def _runner(worker: Worker, ref: RunnerRef, function: Function, now: float) -> Runner:
    return Runner(
        id=RunnerId(ref.runner),
        org=OrgId(function.org),
        group=(function.deployment, function.id),
        worker=worker,
        cpu=ref.cpu,
        memory_mb=ref.memory_mb,
        tasks=ref.tasks,
        idle_since=now,
        is_batching=function.spec.batching is not None,
    )
