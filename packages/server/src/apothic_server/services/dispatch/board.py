"""The dispatcher's board: unfinished jobs, ready queues, fleet and open links, in memory."""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from apothic.wire.ids import DeploymentId, IncarnationId, JobId
from apothic.wire.lease import grace_of, heartbeat_of
from apothic.wire.link import Lent
from apothic_server.domain.decide.company import patience_s
from apothic_server.domain.decide.limits import Limit, next_limit
from apothic_server.domain.deployments import Closed
from apothic_server.domain.errors import Unavailable
from apothic_server.domain.fleet import Fleet, GroupKey, Runner, Worker
from apothic_server.domain.jobs import JobChange, NewItems
from apothic_server.domain.views import Outcome
from apothic_server.ports.clock import Clock
from apothic_server.services.dispatch.alarms import Alarms
from apothic_server.services.dispatch.hints import Hints
from apothic_server.services.dispatch.live import LiveJob, ReadyQueues
from apothic_server.services.dispatch.records import Records

NOTICED_S = 5.0
"""The loss of a worker is noticed this long after its lease at most (G3.3)."""

ENDED_REMEMBERED_MAX = 100_000
"""More ends than this while one page is being read do not happen."""

Settled = bool | BaseException
"""What the writer says of a record: applied, refused, or why it cannot be known."""


class Link(Protocol):
    """An open worker link; items sent in one tick of the event loop travel in one frame."""

    def send(self, name: str, item: Any) -> None:
        """Queue `item` under the field `name` of `ServerFrame`. Never blocks, never raises."""
        ...

    def close(self, code: str, detail: str) -> None:
        """Refuse the link and close it."""
        ...

    def supersede(self) -> None:
        """Close the link because its worker opened a newer one."""
        ...


class Board:
    """State of the dispatcher. All methods are synchronous and run on the event loop.

    Attributes:
        term: Term of the dispatcher role, or None while this process does not dispatch.
        term_until: Monotonic seconds at which the term ends unless it is renewed; a process that was frozen past it may
            have lost the role.
        is_shared: Other processes of this cloud live, or lived since the start; they write rows, too.
        is_draining: The process stops; nothing new is taken or granted.
        to_look_at: Jobs of which another process wrote something.
        to_feed: Attempts (job, fence) whose arguments wait to be read from the blob store.
        to_reload: Jobs to be read again from the store, because a record of theirs was refused.
        grace_s: `disconnect_grace_s` of this cloud.
        alarms: When to look at which job because of its time limits.
        ended: Jobs that ended most recently, so that a row read before their last commit is not taken in again.
        fenced_reports: Worker reports refused for an old fence (G1.3).
        closed: Deployments that were stopped or deleted since this process dispatches, or had unfinished jobs then.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        records: Records,
        new_key: Callable[[], str],
        random: Callable[[], float],
        grace_s: float,
    ) -> None:
        self.clock = clock
        self.records = records
        self.new_key = new_key
        self.random = random
        self.grace_s = grace_s
        self._heartbeat_s = heartbeat_of(grace_s)
        self.term: int | None = None
        self.term_until = 0.0
        self.is_shared = False
        self.is_draining = False
        self.jobs: dict[JobId, LiveJob] = {}
        self.alarms = Alarms(self.jobs)
        self.ready = ReadyQueues()
        self.fleet = Fleet()
        self.links: dict[IncarnationId, Link] = {}
        self.hints = Hints()
        self.to_feed: deque[tuple[LiveJob, int]] = deque()
        self.to_reload: dict[JobId, None] = {}
        self.to_look_at: dict[JobId, None] = {}
        self.fenced_reports = 0
        self.closed: dict[DeploymentId, Closed] = {}
        self.ended: OrderedDict[JobId, None] = OrderedDict()
        self._retries: list[tuple[float, JobId]] = []
        self._pending: dict[GroupKey, int] = {}
        self._reload_waiters: dict[JobId, list[asyncio.Future[asyncio.Future[Outcome] | None]]] = {}
        self._overs: dict[tuple[JobId, int], asyncio.Future[None]] = {}

    @property
    def dispatches(self) -> bool:
        """Whether this process holds the role, as far as its own clock can tell."""
        return self.term is not None and self.clock.monotonic() < self.term_until

    @property
    def takes_work(self) -> bool:
        return self.dispatches and not self.is_draining

    def grace_of(self, job: LiveJob) -> float:
        """Return the seconds of silence of its worker that an attempt of the job outlives (G3.2)."""
        return grace_of(job.need.spec.disconnect_grace_s, self.grace_s, self._heartbeat_s)

    def late_of(self, job: LiveJob) -> float:
        """Return the seconds that a worker may take to end an overdue attempt of the job and to say so.

        Longer than its lease, so that the loss of a worker, which costs no retry, is noticed first (G4.3).
        """
        return self.grace_of(job) + NOTICED_S

    def write(self, change: JobChange | NewItems, then: Callable[[Settled], None], *, within_s: float = 0.0) -> None:
        """Record a move within `within_s` that memory has made already; `then` gets the answer, after this returns.

        A record that cannot even be queued is answered like one that the store refused: the job is read again.
        """
        job = self.jobs.get(change.job)
        moved = job if isinstance(change, JobChange) and change.path else None
        loop = asyncio.get_running_loop()
        told: asyncio.Future[Settled] = loop.create_future()
        answer = partial(self._answer, change.job, moved, then, told)
        try:
            self.records.append_told(change, answer, within_s=within_s)
        except (Unavailable, ValueError) as error:
            loop.call_soon(answer, error)
        if job is not None:
            job.written = told
        if moved is not None:
            moved.moves += 1

    def _answer(
        self,
        job_id: JobId,
        moved: LiveJob | None,
        then: Callable[[Settled], None],
        told: asyncio.Future[Settled],
        settled: Settled,
    ) -> None:
        if moved is not None:
            self._count_answer(moved)
        try:
            then(settled)
        finally:
            told.set_result(settled)
        if settled is True:
            self.hints.committed(job_id)

    def write_quietly(
        self, change: JobChange | NewItems, job: LiveJob, then: Callable[[bool], None] | None = None
    ) -> None:
        """Record a move that no caller waits for; `then` is told whether it was. If not, the job is read again."""
        moved = job if isinstance(change, JobChange) and change.path else None
        if moved is not None:
            moved.moves += 1
        waiting = self.pending(job.need.group)
        told = partial(self._told, job.id, moved, then)
        try:
            self.records.append_quietly(change, told, patience_s=patience_s(waiting) if waiting else 0.0)
        except (Unavailable, ValueError):
            told(False)
        except BaseException:
            if moved is not None:
                self._count_answer(moved)
            self.reload(job.id)
            raise

    def _told(
        self, job_id: JobId, moved: LiveJob | None, then: Callable[[bool], None] | None, settled: Settled
    ) -> None:
        if moved is not None:
            self._count_answer(moved)
        if then is not None:
            then(settled is True)
        if settled is True:
            self.hints.committed(job_id)
        else:
            self.reload(job_id)

    def _count_answer(self, job: LiveJob) -> None:
        job.told += 1
        if job.id in self.to_reload:
            self.hints.reload()

    def pending(self, group: GroupKey) -> int:
        """Return how many jobs of `group` are queued and could run now."""
        return self._pending.get(group, 0)

    def enqueue(self, job: LiveJob) -> None:
        group = job.need.group
        self._pending[group] = self.pending(group) + 1
        job.is_queued = True
        self.ready.push(job)
        self._look_by(job, job.due_at + job.need.spec.queue_timeout_s)

    def dequeue(self, job: LiveJob) -> None:
        """Stop counting a job as pending: it was granted or has ended."""
        if not job.is_queued:
            return
        job.is_queued = False
        left = self._pending.pop(job.need.group) - 1
        if left:
            self._pending[job.need.group] = left
        self.ready.left(job, left)

    def retry_after(self, job: LiveJob, delay_s: float) -> None:
        """Queue a job that waits, not before `delay_s` have passed; less than 0 when it could have run before."""
        job.due_at = self.clock.monotonic() + delay_s
        if delay_s <= 0:
            self.enqueue(job)
            return
        heapq.heappush(self._retries, (job.due_at, job.id))
        self.watch(job)
        self.hints.retries()

    def promote_due(self) -> float | None:
        """Move retries whose time has come into the queues; return seconds until the next one, None without one."""
        now = self.clock.monotonic()
        while self._retries and self._retries[0][0] <= now:
            _, job_id = heapq.heappop(self._retries)
            job = self.jobs.get(job_id)
            if job is not None and job.waits and not job.is_queued:
                self.enqueue(job)
        return self._retries[0][0] - now if self._retries else None

    def limit_of(self, job: LiveJob) -> Limit | None:
        """Return the time limit that a job meets next."""
        spec, late_s = job.need.spec, self.late_of(job)
        return next_limit(job.status, job.since, job.deadline_at, spec, late_s=late_s, items=job.items_covered)

    def watch(self, job: LiveJob, *, not_before: float = 0.0) -> None:
        """Have the job's next time limit enforced; called whenever that may have come nearer."""
        limit = self.limit_of(job)
        if limit is not None and self.alarms.set(job, max(limit.at, not_before)):
            self.hints.limits()

    def watch_attempt(self, job: LiveJob) -> None:
        """Have the limits of a new attempt enforced, with one entry: the nearer of what it has to start and to run."""
        self._look_by(job, job.granted_at + min(job.need.spec.startup_timeout_s, job.need.spec.timeout_s))

    def _look_by(self, job: LiveJob, at: float) -> None:
        if job.deadline_at is not None and job.deadline_at < at:
            at = job.deadline_at
        if job.alarm_at > at and self.alarms.set(job, at):
            self.hints.limits()

    def adopt(self, job: LiveJob, delay_s: float) -> None:
        """Take a job from the store into memory: queued when it waits, else left to its worker."""
        self.jobs[job.id] = job
        if job.waits:
            self.retry_after(job, delay_s)
            return
        # Its worker may have ended it in time and not been able to say so (G3.5).
        self.watch(job, not_before=self.clock.monotonic() + self.late_of(job))
        if job.runner is None:
            self.fleet.miss(job.need.group, job.id)

    def over(self, job_id: JobId, fence: int) -> asyncio.Future[None]:
        """Return what is done when an attempt is over, or when this process knows it no longer; not to be cancelled."""
        job = self.jobs.get(job_id)
        if job is None or job.fence != fence or not job.is_granted:
            over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            over.set_result(None)
            return over
        return self._overs.setdefault((job_id, fence), asyncio.get_running_loop().create_future())

    def release(self, job: LiveJob) -> None:
        """Free the slot of an attempt that ended, and forget whom it waited for; the runner stays."""
        if self._overs and (over := self._overs.pop((job.id, job.fence), None)) is not None:
            over.set_result(None)
        self.fleet.unmiss(job.need.group, job.id)
        runner, job.runner, job.worker = job.runner, None, None
        job.is_sent = False
        job.awaited.clear()
        job.follows = 0
        job.children = None
        if runner is not None:
            runner.attempts.discard(job.id)
            runner.begun.discard(job.id)
            runner.waiting.discard(job.id)
            runner.following.discard(job.id)
            self.tell_lent(runner)
            runner.idle_since = self.clock.monotonic()

    def parked(self, job: LiveJob) -> None:
        """Whom the current attempt of a job waits for, or follows, has changed."""
        runner = job.runner
        if runner is None:
            return
        waits, follows = bool(job.awaited), job.follows > 0
        (runner.waiting.add if waits or follows else runner.waiting.discard)(job.id)
        (runner.following.add if follows and not waits else runner.following.discard)(job.id)
        self.tell_lent(runner)

    def tell_lent(self, runner: Runner) -> None:
        """Tell the worker of a runner when its processors are lent to others, and when they are so no more."""
        if (runner.waiting or runner.is_lent) and runner.is_blocked != runner.is_lent:
            runner.is_lent = runner.is_blocked
            self.send(runner.worker, "lent", Lent(runner.id, runner.is_lent))

    def finish(self, job: LiveJob, outcome: Outcome) -> None:
        """The end is on disk: tell everybody who waits, and forget the job."""
        self.forget(job.id)
        if not job.outcome.done():
            job.outcome.set_result(outcome)

    def forget(self, job_id: JobId) -> LiveJob | None:
        """Take an ended job out of memory for good."""
        self.ended[job_id] = None
        if len(self.ended) > ENDED_REMEMBERED_MAX:
            self.ended.popitem(last=False)
        job = self.jobs.pop(job_id, None)
        if job is not None and job.worker is not None:
            self.release(job)  # it may be another object than the one that ended, taken in with a new term
        return job

    def reload(self, job_id: JobId) -> None:
        """Have the job read again from the store: what memory believes was refused."""
        self.to_reload[job_id] = None
        self.hints.reload()

    def look_at(self, job_id: JobId) -> None:
        """Another process wrote something of the job: take it in, or see what became of it."""
        if self.term is not None:
            self.to_look_at[job_id] = None
            self.hints.reload()

    def reloaded(self, job_id: JobId) -> asyncio.Future[asyncio.Future[Outcome] | None]:
        """Return a future of the job's outcome future, or of None when its end is in the store; resolved once read."""
        waiter: asyncio.Future[asyncio.Future[Outcome] | None] = asyncio.get_running_loop().create_future()
        self._reload_waiters.setdefault(job_id, []).append(waiter)
        return waiter

    def tell_reloaded(self, job_id: JobId, outcome: asyncio.Future[Outcome] | BaseException | None) -> None:
        """Answer those who wait for a reload."""
        for waiter in self._reload_waiters.pop(job_id, []):
            if waiter.done():
                continue
            if isinstance(outcome, BaseException):
                waiter.set_exception(outcome)
            else:
                waiter.set_result(outcome)

    def dial_again(self, worker: Worker, why: str) -> None:
        """Close a worker's link so that it dials in again and says what it has."""
        worker.is_linked = False
        link = self.links.pop(worker.id, None)
        if link is not None:
            link.close("unavailable", why)

    def clear(self) -> list[LiveJob]:
        """Another process dispatches now: forget everything and return the jobs that were held.

        Answers to writes under way still resolve the outcomes of these jobs.
        """
        held = list(self.jobs.values())
        for job in held:
            self.dequeue(job)
            job.runner = job.worker = None
            job.is_sent = False
        self.jobs.clear()
        for over in self._overs.values():
            over.set_result(None)
        self._overs.clear()
        self.ready = ReadyQueues()
        self.fleet = Fleet()
        self.links.clear()
        self.to_feed.clear()
        self.to_reload.clear()
        self.to_look_at.clear()
        self._retries.clear()
        self._pending.clear()
        self.alarms = Alarms(self.jobs)
        for job_id in list(self._reload_waiters):
            self.tell_reloaded(job_id, Unavailable("another server dispatches now; ask again", retry_after_s=1))
        return held

    def send(self, worker: Worker, name: str, item: Any) -> None:
        """Send to a worker; dropped when its link is down, because `hello` compares what both sides hold."""
        link = self.links.get(worker.id)
        if link is not None:
            link.send(name, item)
