"""Grants: which waiting job gets which slot, the record that says so, and the frame that starts it (J2)."""

from __future__ import annotations

from collections.abc import Callable

from apothic.wire.ids import OrgId, RunnerId
from apothic.wire.images import PrepareImage
from apothic.wire.link import (
    Assign,
    ChunkOrder,
    StartRunner,
    StopRunner,
)
from apothic.wire.values import Value
from apothic_server.domain.decide.placement import Need, StartOn, UseRunner, Wait, place
from apothic_server.domain.fleet import Preparation, Runner, Worker
from apothic_server.domain.jobs import JobChange, JobEvent, JobFields, JobStatus
from apothic_server.services.dispatch.board import Board, Settled
from apothic_server.services.dispatch.live import LiveJob
from apothic_server.services.dispatch.records import move


class Grants:
    """Gives slots away and tells workers."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._announced: set[RunnerId] = set()
        self.cut_next: Callable[[LiveJob], None] = lambda _: None

    def grant_ready(self) -> None:
        """Grant waiting jobs until nothing fits: one per org and round, the oldest that fits first."""
        board = self._board
        progress = bool(board.ready) and board.takes_work
        while progress:
            granted = [self._grant_of(org) for org in board.ready.orgs_in_turn()]
            progress = any(granted)

    def grant_next(self, runner: Runner | None) -> None:
        """Grant the place that an attempt left in `runner`; as `grant_ready`, which looks at all that waits.

        When jobs of no other function wait, the first of them gets that place, and nothing else fits.
        """
        board = self._board
        if not board.ready:
            return
        head = None if runner is None or runner.is_batching else board.ready.sole_head(runner.group)
        if head is None:
            self.grant_ready()
        elif board.takes_work and self._grant_one(head) and head.runner is not runner:
            self.grant_ready()  # a runner that was started may have more than one place

    def slot_now(self, job: LiveJob) -> UseRunner | StartOn | None:
        """Return where a new job can start at once; None when others of its function wait already or nothing fits."""
        if self._board.pending(job.need.group):
            return None
        where = place(job.need, self._board.fleet)
        if isinstance(where, Wait):
            self._prepare(job, where)
            return None
        return where

    def start(self, job: LiveJob, where: UseRunner | StartOn) -> None:
        """Grant, and send the attempt: at once for a blocking call (G2.1), else after the commit."""
        change = self.grant(job, where)
        if job.covers is not None:
            self.cut_next(job)
        if job.is_blocking:
            self._board.write_quietly(change, job)
            self.send(job)
            return
        fence = job.fence
        self._board.write(change, lambda settled: self._granted(job, fence, settled))

    def grant(self, job: LiveJob, where: UseRunner | StartOn) -> JobChange:
        """Take the slot in memory and return the record of J2."""
        runner = where.runner if isinstance(where, UseRunner) else self._new_runner(job, where)
        board = self._board
        board.ready.served(job.org)
        runner.attempts.add(job.id)
        if runner.is_batching and job.is_chunk:  # a batch by itself
            runner.begun.add(job.id)
        board.tell_lent(runner)
        job.runner, job.worker = runner, runner.worker.id
        job.attempt += 1
        job.granted_at = board.clock.monotonic()
        fence = job.fence_max = max(job.fence, job.fence_max) + 1
        term = board.term
        fields = JobFields(attempt=job.attempt, fence=fence, worker=runner.worker.id, term=term)
        change = move(job, JobEvent.GRANTED, board.clock.now(), fields=fields, term=term, fence=fence)
        board.watch_attempt(job)
        return change

    def send(self, job: LiveJob) -> None:
        """Send a granted attempt to its worker; arguments in the blob store are read first, by the feeding loop."""
        if job.runner is None or job.status is not JobStatus.STARTING:
            return
        if job.arguments.blob is None:
            self._assign(job, job.runner, job.arguments.value)
        else:
            self._board.to_feed.append((job, job.fence))
            self._board.hints.feed()

    def feed(self, job: LiveJob, fence: int, arguments: Value) -> None:
        """Send an attempt whose arguments were read, unless it ended meanwhile."""
        if job.fence == fence and job.runner is not None and job.status is JobStatus.STARTING:
            self._assign(job, job.runner, arguments)

    def stop_runner(self, runner: Runner) -> None:
        """End an idle runner."""
        self._board.fleet.remove_runner(runner)
        if runner.id in self._announced:
            self._announced.discard(runner.id)
            self._board.send(runner.worker, "stop_runner", StopRunner(runner.id))

    def prepare(self, need: Need, worker: Worker) -> None:
        """Have the environment that attempts need made ready by a worker; nothing when nothing is installed."""
        wanted, image = need.environment, need.spec.image
        if wanted is not None and image is not None:
            worker.environments[wanted] = Preparation(need.org)
            self._board.send(worker, "prepare_image", PrepareImage(need.org, *wanted, image))

    def is_announced(self, runner: Runner) -> bool:
        """Whether the runner's worker was told to start it."""
        return runner.id in self._announced

    def clear(self) -> None:
        """Forget all runners: another process dispatches now."""
        self._announced.clear()

    def found_runner(self, runner: Runner) -> None:
        """Take in a runner that its worker has since before this process knew it."""
        self._announced.add(runner.id)
        self._board.fleet.add_runner(runner)

    def runner_gone(self, runner: Runner) -> None:
        """Forget a runner that its worker reported as ended."""
        self._announced.discard(runner.id)
        self._board.fleet.remove_runner(runner)

    def _grant_of(self, org: OrgId) -> bool:
        return any(self._grant_one(job) for job in self._board.ready.heads(org))

    def _grant_one(self, job: LiveJob) -> bool:
        board = self._board
        where = place(job.need, board.fleet)
        if isinstance(where, Wait):
            self._prepare(job, where)
            return False
        board.ready.pop(job)
        board.dequeue(job)
        self.start(job, where)
        return True

    def _prepare(self, job: LiveJob, wait: Wait) -> None:
        """Have the environment of a job made ready where placement wants it."""
        if wait.prepare_on is not None:
            self.prepare(job.need, wait.prepare_on)

    def _granted(self, job: LiveJob, fence: int, settled: Settled) -> None:
        if settled is not True:
            self._board.reload(job.id)
        elif job.fence == fence:
            self.send(job)

    def _new_runner(self, job: LiveJob, where: StartOn) -> Runner:
        for idle in where.evict:
            self.stop_runner(idle)
        spec = job.need.spec
        runner = Runner(
            id=RunnerId(self._board.new_key()),
            org=job.org,
            group=job.need.group,
            worker=where.worker,
            cpu=spec.cpu,
            memory_mb=spec.memory_mb,
            tasks=spec.places,
            idle_since=self._board.clock.monotonic(),
            is_batching=spec.batching is not None,
        )
        self._board.fleet.add_runner(runner)
        return runner

    def _assign(self, job: LiveJob, runner: Runner, arguments: Value) -> None:
        if runner.id not in self._announced:
            self._announced.add(runner.id)
            self._board.send(runner.worker, "start_runner", start_runner(job, runner))
        job.is_sent, job.sent_after = True, runner.worker.answers
        timeout_s, left_s = job.need.spec.timeout_s, self._deadline_left_s(job)
        assign = Assign(runner.id, job.id, job.fence, job.attempt, timeout_s, arguments, left_s, order_of(job))
        self._board.send(runner.worker, "assign", assign)

    def _deadline_left_s(self, job: LiveJob) -> float | None:
        return None if job.deadline_at is None else max(0.0, job.deadline_at - self._board.clock.monotonic())


def order_of(job: LiveJob) -> ChunkOrder | None:
    """Return what the link says of the items of a group that an attempt executes; None for any other job."""
    covers = job.covers
    return None if covers is None else ChunkOrder(covers.group, covers.first, covers.count, covers.spread)


def start_runner(job: LiveJob, runner: Runner) -> StartRunner:
    """Return the link item that starts `runner` for the function of `job`."""
    function, spec = job.function, job.need.spec
    return StartRunner(
        runner=runner.id,
        org=job.org,
        app=function.app_name,
        deployment=function.deployment,
        archive=function.archive,
        module=function.module,
        app_variable=function.app_variable,
        function=spec.name,
        qualname=spec.qualname,
        python=job.need.python,
        cpu=spec.cpu,
        memory_mb=spec.memory_mb,
        tasks=spec.tasks_per_container,
        is_async=spec.is_async,
        startup_timeout_s=spec.startup_timeout_s,
        disconnect_grace_s=spec.disconnect_grace_s,
        image=spec.image,
        batching=spec.batching,
    )
