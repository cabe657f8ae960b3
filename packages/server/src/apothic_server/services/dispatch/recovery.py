"""Recovery: memory from the store. At start, when a record was refused, and for rows that nobody holds (D11, G1.2).

Start is nothing special: it takes the role, then sweeps; the sweep adopts every unfinished row that memory lacks.
"""

from __future__ import annotations

import asyncio
from itertools import islice

import structlog

from apothic.wire.ids import IncarnationId, JobId
from apothic.wire.runner import error_from_json
from apothic_server.domain.apps import Function
from apothic_server.domain.decide.endings import Ended
from apothic_server.domain.errors import NotFound, Unavailable
from apothic_server.domain.fleet import Worker
from apothic_server.domain.groups import row_of_caller
from apothic_server.domain.jobs import Job, JobStatus, UnfinishedJob
from apothic_server.domain.views import Outcome
from apothic_server.failpoints import fp
from apothic_server.services.dispatch.board import Board
from apothic_server.services.dispatch.calls import Calls
from apothic_server.services.dispatch.closing import Closing
from apothic_server.services.dispatch.endings import Endings
from apothic_server.services.dispatch.grants import Grants
from apothic_server.services.dispatch.leases import Leases, Over
from apothic_server.services.dispatch.live import LiveJob
from apothic_server.services.dispatch.map_upkeep import MapUpkeep
from apothic_server.services.dispatch.nesting import adopt_child, has_caller
from apothic_server.services.dispatch.reports import Reports
from apothic_server.services.dispatch.restored import delay_s, restored
from apothic_server.services.outcomes import Outcomes
from apothic_server.store import recovery as rows
from apothic_server.store.connection import Connection
from apothic_server.store.database import Database

log = structlog.get_logger("apothic.dispatch")

PAGE = 1_000
PAGES_PER_SWEEP = 10
"""A sweep looks at so many unfinished rows and goes on from there next time; the one after a new term looks at all."""


class Recovery:
    """Reads rows and repairs memory with them."""

    def __init__(
        self,
        database: Database,
        board: Board,
        grants: Grants,
        calls: Calls,
        endings: Endings,
        reports: Reports,
        leases: Leases,
        closing: Closing,
        outcomes: Outcomes,
        maps: MapUpkeep,
        *,
        grace_s: float,
    ) -> None:
        self._database = database
        self._board = board
        self._grants = grants
        self._calls = calls
        self._endings = endings
        self._reports = reports
        self._closing = closing
        self._outcomes = outcomes
        self._grace_s = grace_s
        self._swept_to: JobId | None = None
        self._is_first = True
        self._to_verify: list[JobId] = []
        self._functions: dict[tuple[str, str], Function | None] = {}
        self._leases = leases
        self._maps = maps

    def begin_term(self) -> None:
        """The role was taken: the next sweep looks at all rows, and every lease gets a full grace."""
        self._swept_to = None
        self._is_first = True
        self._leases.extend_all()

    async def reload_requested(self) -> None:
        """Read all jobs whose reload was asked for, and those of which another process wrote something."""
        await self._look_at_told()
        while page := [one for one in self._board.to_reload if not self._owes_answers(one)]:
            for job_id in page:
                await self._reload(job_id)
        self._grants.grant_ready()

    async def _reload(self, job_id: JobId) -> None:
        board = self._board
        job = board.jobs.get(job_id)
        moves = 0 if job is None else job.moves
        if self._owes_answers(job_id):
            return  # it has moved since it was asked for
        async with self._database.system_unit() as unit:
            found = await rows.get_jobs(unit, [job_id])
            function = await self._function_of(unit, found[0].job) if found else None
        if job_id not in board.to_reload:
            return  # the role, and all memory with it, was lost meanwhile
        if job is not None and (board.jobs.get(job_id) is not job or job.moves != moves):
            return  # what was read is older than what memory did since
        del board.to_reload[job_id]
        if board.term is None:
            board.tell_reloaded(job_id, Unavailable("another server dispatches now; ask again", retry_after_s=1))
        elif job_id in board.ended:
            board.tell_reloaded(job_id, None)
        else:
            try:
                self._replace(job_id, found[0] if found else None, function)
            finally:  # nobody waits for ever for one that cannot be taken in
                board.tell_reloaded(job_id, Unavailable("the job is being repaired", retry_after_s=1))

    async def sweep(self) -> None:
        """Look at leases and unfinished rows: at all rows at the beginning of a term, else at some pages of them."""
        if not self._board.dispatches:
            return
        pages = None if self._is_first else PAGES_PER_SWEEP
        await fp("sweep.before")
        await self._closing.read()
        await self._end_silent_workers()
        await fp("sweep.after")
        await self._maps.read()
        while pages is None or pages > 0:
            await self._sweep_page()
            if self._swept_to is None or not self._board.dispatches:
                break
            pages = None if pages is None else pages - 1
        if self._board.is_shared:
            await self._verify_waiting()
        await self._cancel_orphans()
        if not self._board.dispatches:
            return
        self._is_first = False
        self._maps.begin()
        self._functions.clear()
        await self._closing.carry_out()
        self._grants.grant_ready()

    def _owes_answers(self, job_id: JobId) -> bool:
        """Whether moves of a job are on their way to the store: its row is read after their answers."""
        job = self._board.jobs.get(job_id)
        return job is not None and job.told < job.moves

    async def _look_at_told(self) -> None:
        """Adopt new jobs of other processes, and see what became of those that they cancelled."""
        board = self._board
        while board.to_look_at:
            page = list(islice(board.to_look_at, PAGE))
            for job_id in page:
                del board.to_look_at[job_id]
            async with self._database.system_unit() as unit:
                await self._compare(unit, await rows.statuses_of(unit, page))

    async def _verify_waiting(self) -> None:
        """See whether jobs that wait in memory have ended in the store, where another process may cancel them.

        A sweep compares `PAGE` * `PAGES_PER_SWEEP` of them; this repairs what a lost notification left.
        """
        for _ in range(PAGES_PER_SWEEP):
            if not self._to_verify:
                self._to_verify = [job.id for job in self._board.ready]
            page = self._to_verify[-PAGE:]
            del self._to_verify[-PAGE:]
            async with self._database.system_unit() as unit:
                await self._compare(unit, await rows.statuses_of(unit, page))
            if not self._to_verify:
                return

    async def _compare(self, unit: Connection, found: dict[JobId, JobStatus]) -> None:
        """Adopt unfinished rows that memory lacks; reload those that another process cancelled."""
        missing = [job_id for job_id, status in found.items() if not status.is_final and not self._is_known(job_id)]
        for row in await rows.get_jobs(unit, missing) if missing else []:
            await self._adopt_row(unit, row)
        for job_id, status in found.items():
            job = self._board.jobs.get(job_id)
            if job is not None and _was_cancelled_elsewhere(job, status):
                self._board.reload(job_id)

    async def adopt_held(self, unit: Connection, worker: IncarnationId, jobs: list[JobId]) -> None:
        """Take those of `jobs` into memory that it lacks and that their rows grant to `worker`."""
        missing = [job_id for job_id in jobs if not self._is_known(job_id)]
        found = await rows.get_jobs(unit, missing) if missing else []
        groups = {row.covers.group for row in found if row.covers is not None}
        if groups:  # first: what is asked of their items counts when these end
            await self._maps.take_in(unit, sorted(groups))
        for row in found:
            if row.job.worker == worker and not row.job.status.is_final:
                await self._adopt_row(unit, row)

    async def _adopt_row(self, unit: Connection, row: UnfinishedJob) -> None:
        function = await self._function_of(unit, row.job)
        if not self._is_known(row.job.id) and self._board.term is not None:
            self._adopt(row, function)

    async def _end_silent_workers(self) -> None:
        self._leases.begin_look()
        known = list(self._board.fleet.workers.values())
        async with self._database.system_unit() as unit:
            live = await rows.live_workers(unit)
            over = self._leases.over(live)
            self._give_back(over)
            # Before all rows were read once nobody knows who holds attempts with a longer grace.
            incarnations = [] if self._is_first else over.incarnations
            seen = {worker: live[worker] for worker in incarnations if worker in live}
            ended = await rows.end_workers(unit, seen, self._board.clock.now())
        self._leases.end_look()
        for incarnation in incarnations:
            if incarnation in ended or incarnation not in live:  # not when it was renewed meanwhile
                self._lose_worker(incarnation)

        for worker in known:
            if worker.id not in live and self._board.fleet.workers.get(worker.id) is worker:
                self._lose_ended(worker)

    def _give_back(self, over: Over) -> None:
        """Take from silent workers what is over, while some of their attempts go on.

        Runners that hold nothing go, too: places of their functions are free for others. The worker hears of it when
        it dials in again.
        """
        board = self._board
        for worker in over.silent:  # first, so that it gets none of that again
            if worker.is_linked:
                board.dial_again(worker, "nothing was heard of this worker; dial again")
            for runner in [runner for runner in worker.runners.values() if runner.is_idle]:
                self._grants.runner_gone(runner)
        for job in over.attempts:
            reason = f"worker {job.worker} was not heard of for {board.grace_of(job):g} s"
            log.warning("attempt.lost", job=job.id, worker=job.worker)
            if job.runner is not None:
                self._reports.forget_runner(job.runner, reason)
            else:
                self._reports.lose(job.id, reason)

    def _lose_ended(self, worker: Worker) -> None:
        """Another process has proof that the worker is dead, and said so in its row."""
        self._board.dial_again(worker, "the lease of this incarnation was ended")
        self._reports.worker_lost(worker, f"worker {worker.id} was declared dead")

    def _lose_worker(self, incarnation: IncarnationId) -> None:
        board = self._board
        worker = board.fleet.workers.get(incarnation)
        if worker is not None and worker.lease_expires_at > board.clock.monotonic():
            return
        self._leases.forget(incarnation)
        reason = f"worker {incarnation} was not heard of for {self._grace_s:g} s or more"
        link = board.links.get(incarnation)
        if link is not None:
            link.close("fenced", reason)
        if worker is not None:
            self._reports.worker_lost(worker, reason)
        else:
            self._reports.lose_unattached(incarnation, reason)
        log.warning("worker.lost", worker=incarnation)

    async def _sweep_page(self) -> None:
        async with self._database.system_unit() as unit:
            page = await (self._adopt_page(unit) if self._is_first else self._compare_page(unit))
        self._swept_to = page[-1] if len(page) == PAGE else None

    async def _compare_page(self, unit: Connection) -> list[JobId]:
        page = await rows.unfinished(unit, after=self._swept_to, limit=PAGE)
        await self._compare(unit, page)
        return list(page)

    async def _adopt_page(self, unit: Connection) -> list[JobId]:
        """At the beginning of a term memory lacks nearly all rows, so they are read whole: one statement a page."""
        page = await rows.unfinished_jobs(unit, after=self._swept_to, limit=PAGE)
        for row in page:
            if not self._is_known(row.job.id):
                await self._adopt_row(unit, row)
        await self._compare(unit, {row.job.id: row.job.status for row in page})
        return [row.job.id for row in page]

    def _is_known(self, job_id: JobId) -> bool:
        board = self._board
        return job_id in board.jobs or job_id in board.to_reload or job_id in board.ended

    async def _function_of(self, unit: Connection, row: Job) -> Function | None:
        key = (row.deployment, row.function)
        if key not in self._functions:
            self._functions[key] = await rows.deployed_function(unit, row.org, row.deployment, row.function)
        return self._functions[key]

    def _replace(self, job_id: JobId, row: UnfinishedJob | None, function: Function | None) -> None:
        """Make memory agree with a row that was read because memory was wrong."""
        board = self._board
        old = board.jobs.pop(job_id, None)
        if old is not None:
            board.dequeue(old)
            board.fleet.unmiss(old.need.group, job_id)
            if old.runner is not None and (row is None or old.fence != row.job.fence or row.job.status.is_final):
                self._calls.send_cancel(old)
        if row is None:
            if old is not None:
                board.release(old)
                _fail(old.outcome, Unavailable("the job was not stored; try again", retry_after_s=1))
            board.tell_reloaded(job_id, NotFound("no such job"))
            return
        if row.job.status.is_final:
            self._tell_end(old, row.job)
            return
        live = self._adopt(row, function, old)
        if live is not None and old is not None:
            self._go_on_cancelling(live, old)
        if live is not None:
            board.tell_reloaded(job_id, live.outcome)

    def _go_on_cancelling(self, live: LiveJob, old: LiveJob) -> None:
        """Another process asked for the end of an attempt that was granted, or had just ended, here."""
        if live.status is not JobStatus.CANCELLING or old.status is JobStatus.CANCELLING or old.fence != live.fence:
            return
        if live.runner is not None and live.is_sent:
            self._calls.send_cancel(live)
        elif live.runner is not None:
            self._endings.end_attempt(live, Ended("cancelled", None))

    def _tell_end(self, old: LiveJob | None, job: Job) -> None:
        """The job has ended in the store: who waits is told, at once or when the result was read."""
        if old is not None:
            self._board.release(old)
            self._board.forget(job.id)
            if job.status is JobStatus.SUCCEEDED:
                self._outcomes.keep(job.org, job.id, old.outcome)
                self._outcomes.hint(job.id)
            elif not old.outcome.done():
                error = error_from_json(job.error) if job.error is not None else None
                old.outcome.set_result(Outcome(job.id, job.status, None, error, job.attempt))
        self._board.tell_reloaded(job.id, None)

    def _adopt(self, row: UnfinishedJob, function: Function | None, old: LiveJob | None = None) -> LiveJob | None:
        board = self._board
        if function is None:
            log.error("job.without_function", job=row.job.id)
            if old is not None:
                board.release(old)
            return None
        live = restored(row, function, old, self._outcomes.take(row.job.id), board.clock)
        self._maps.met(live)
        parent = board.jobs.get(row_of_caller(live.parent)) if live.parent is not None else None
        if parent is not None and parent.fence == live.waited_fence:
            adopt_child(parent, live)
        if live.waits:
            if old is not None:
                board.release(old)
            live.runner = live.worker = live.children = None
            board.adopt(live, delay_s(row.job, function.spec, board.clock.now()))
            self._closing.admit(live)
            return live
        if old is not None and old.runner is not None and live.runner is None:
            board.release(old)  # a grant that the store does not have keeps no slot
        board.adopt(live, 0.0)
        if old is not None and live.runner is not None and not live.is_sent:
            old.runner = None  # what still holds the former object sends nothing
            self._grants.send(live)
        if live.status is JobStatus.CANCELLING and old is not None and _is_over(live, old):
            self._endings.end_attempt(live, Ended("cancelled", None))
        elif live.runner is None and live.worker is not None:
            self._ask_worker(IncarnationId(live.worker))
        return live

    def _ask_worker(self, incarnation: IncarnationId) -> None:
        """Memory does not know what became of an attempt: its worker says so in its next hello, or is lost in time."""
        board = self._board
        worker = board.fleet.workers.get(incarnation)
        if worker is None:
            self._leases.meet(incarnation)
        elif worker.is_linked:
            board.dial_again(worker, "the server has to compare what the worker holds; dial again")

    async def _cancel_orphans(self) -> None:
        """End blocking calls whose caller ended while no process looked (G2.7)."""
        async with self._database.system_read() as unit:
            found = await rows.orphans(unit)
        jobs = [job for key in found if (job := self._board.jobs.get(key)) is not None]
        self._calls.cancel_orphans([job for job in jobs if not has_caller(self._board, job)])


def _was_cancelled_elsewhere(job: LiveJob, stored: JobStatus) -> bool:
    """Whether a row says so and memory does not; a row behind memory only waits for a commit of ours."""
    is_cancelled = stored is JobStatus.CANCELLING or stored.is_final
    return is_cancelled and job.status is not JobStatus.CANCELLING and not job.status.is_final


def _is_over(live: LiveJob, old: LiveJob) -> bool:
    """Whether the attempt that a row still shows had ended here before somebody else's write came first."""
    return old.fence == live.fence and old.runner is None and old.worker is None


def _fail(outcome: asyncio.Future[Outcome], error: Exception) -> None:
    if not outcome.done():
        outcome.set_exception(error)
        outcome.exception()
