"""Worker links: hello, heartbeat, reports and the end of a link, for the face that carries them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import msgspec
import structlog

from apothic.wire.ids import IncarnationId, is_key
from apothic.wire.lease import heartbeat_of
from apothic.wire.limits import FORERUNNERS_MAX
from apothic.wire.link import Heartbeat, HeartbeatAnswer, Hello, Welcome, WorkerFrame
from apothic.wire.version import LINK_PROTOCOL
from apothic_server.domain.access import Actor
from apothic_server.domain.errors import Fenced, Invalid, Moved, Unauthenticated, Unavailable
from apothic_server.domain.fleet import Worker
from apothic_server.failpoints import fp
from apothic_server.services.attempts import Attempts
from apothic_server.services.dispatch.board import Board, Link
from apothic_server.services.dispatch.builds import Builds
from apothic_server.services.dispatch.cordons import REMOVED
from apothic_server.services.dispatch.grants import Grants
from apothic_server.services.dispatch.liveness import Liveness
from apothic_server.services.dispatch.reattach import Deployed, Reattach
from apothic_server.services.dispatch.reports import Reports
from apothic_server.services.dispatch.shelves import Shelves
from apothic_server.store import dispatcher, enrolment, recovery
from apothic_server.store import workers as rows
from apothic_server.store.database import Database
from apothic_server.store.enrolment import EnrolledWorker

log = structlog.get_logger("apothic.links")

UNASKED = -1
"""Send time in an answer to no heartbeat, which renews no lease."""

GRACE_S = 30.0
"""`disconnect_grace_s` unless configured: the lease of a worker, from its last answered heartbeat (G3.2)."""

CREDITS_MAX, CPUS_MAX, MEMORY_MB_MAX = 1_000_000, 1_000_000, 1 << 40
MACHINE_BYTES_MAX = 64 * 1024
HELD_MAX, RUNNERS_MAX = 100_000, 10_000
"""What a hello may claim; more is a mistake."""


class Links:
    """What the server does with links.

    Args:
        servers: Addresses of the live servers of this cloud.
    """

    def __init__(
        self,
        database: Database,
        board: Board,
        grants: Grants,
        reports: Reports,
        reattach: Reattach,
        attempts: Attempts,
        builds: Builds,
        shelves: Shelves,
        *,
        servers: Callable[[], list[str]],
        grace_s: float = GRACE_S,
    ) -> None:
        self._servers = servers
        self._attempts = attempts
        self._builds = builds
        self.shelves = shelves
        self._database = database
        self._board = board
        self._grants = grants
        self._reports = reports
        self._reattach = reattach
        self._liveness = Liveness(board)
        self._grace_s = grace_s
        self._linked: dict[str, asyncio.Event] = {}

    def linked(self, name: str) -> asyncio.Event:
        """Return the event that is set whenever a worker of this name was greeted, or sent to the dispatcher."""
        return self._linked.setdefault(name, asyncio.Event())

    async def opened(self, actor: Actor, hello: Hello, link: Link) -> Worker:
        """Greet a worker: its row and lease first, then `welcome`, then work.

        Raises:
            Invalid: Another protocol or an impossible hello.
            Fenced: This incarnation's lease ended before; it has to start again under a new one.
            Moved: Another process dispatches.
            Unauthenticated: The worker was removed.
            Unavailable: Nobody dispatches at this moment, or another process uses the credential of this worker.
        """
        _check_hello(hello)
        board = self._board
        enrolled = await self._enrolled(actor)
        if enrolled is not None:
            hello = replace(hello, name=enrolled.name)
        if not board.dispatches:
            raise await self._elsewhere(hello)
        incarnation = IncarnationId(hello.incarnation)
        now = board.clock.now()
        await fp("hello.before")
        async with self._database.system_unit() as unit:
            is_live = await rows.record_hello(
                unit,
                org=actor.org,
                worker=incarnation,
                name=hello.name,
                machine=hello.machine,
                now=now,
                lease_expires_at=now + timedelta(seconds=self._grace_s),
                enrolled=None if enrolled is None else enrolled.id,
            )
            deployed = await self._reattach.read(unit, hello) if is_live else {}
        await fp("hello.after")
        if not is_live:
            raise Fenced("the lease of this incarnation ended; start again")
        if enrolled is not None:
            await self._end_forerunners(enrolled, hello)
        if not board.dispatches:  # lost while the rows were written
            raise await self._elsewhere(hello)
        if enrolled is not None:
            self._check_only(enrolled, incarnation)
        return self._attach(actor, hello, link, deployed, enrolled)

    async def heartbeat(self, worker: Worker, item: Heartbeat) -> None:
        """Extend the lease in the store, then in memory, then answer.

        Raises:
            Fenced: The lease ended before.
            Unavailable: The store is away; the worker dials again and keeps what it has.
        """
        expires_at = self._board.clock.now() + timedelta(seconds=self._grace_s)
        await fp("heartbeat.before")
        async with self._database.system_unit() as unit:
            is_live = await rows.renew_lease(unit, worker.org, worker.id, expires_at)
        await fp("heartbeat.after")
        if not is_live or worker.id not in self._board.fleet.workers:
            raise Fenced("the lease of this incarnation ended; start again")
        worker.lease_expires_at = self._board.clock.monotonic() + self._grace_s
        self._give_up_finishing(worker)
        self._reattach.take_back_lost(worker, item)
        unknown = self._reports.unknown(worker, item.held)
        worker.answers += 1
        self._board.send(worker, "heartbeat_answer", HeartbeatAnswer(item.sent_at_ms, unknown, self._servers()))
        self._liveness.beat(worker, item)
        self._grants.grant_ready()

    def _give_up_finishing(self, worker: Worker) -> None:
        """Ends that were on the way when the link opened came before its first heartbeat, or never come."""
        for job_id in worker.finishing:
            job = self._board.jobs.get(job_id)
            if job is not None and job.runner is None and job.worker == worker.id:
                self._reports.lose(job_id, "the runner of the attempt is gone and its end was never reported")
        worker.finishing.clear()

    def report(self, worker: Worker, frame: WorkerFrame) -> None:
        """Act on draining, starts, logs, items, ends and runners, in that order."""
        if frame.get("draining"):
            worker.is_draining = True
        for started in frame.get("started", []):
            self._reports.started(worker, started)
        for logs in frame.get("logs", []):
            self._reports.logs(worker, logs)
        for items in frame.get("items", []):
            self._reports.items(worker, items)
        for finished in frame.get("finished", []):
            self._reports.finished(worker, finished)
        for ended in frame.get("runner_ended", []):
            self._reports.runner_ended(worker, ended)
        for lines in frame.get("build_lines", []):
            self._builds.lines(worker, lines)
        for prepared in frame.get("prepared", []):
            self._builds.prepared(worker, prepared)
        for tidied in frame.get("images_tidied", []):
            self.shelves.answered(worker, tidied)

    def closed(self, worker: Worker, link: Link) -> None:
        """The link is gone; the worker keeps its attempts until its lease ends."""
        if self._board.links.get(worker.id) is link:
            del self._board.links[worker.id]
            worker.is_linked = False
            log.info("link.closed", worker=worker.id, name=worker.name)

    async def declare_dead(self, name: str, reason: str, *, but: str = "") -> None:
        """The processes of the workers called `name` are proven dead: give their leases back at once (G3.3).

        Args:
            but: Incarnation that lives.
        """
        now = self._board.clock.now()
        async with self._database.system_unit() as unit:
            ended = await recovery.end_workers_named(unit, name, reason, now, but=but)
        self._give_back(ended, reason)
        self._grants.grant_ready()

    async def _end_forerunners(self, enrolled: EnrolledWorker, hello: Hello) -> None:
        """Give back at once what earlier starts of a worker had that it knows to be dead; others keep their grace."""
        named = [IncarnationId(one) for one in hello.forerunners if is_key(one) and one != hello.incarnation]
        if not named:
            return
        reason = "its worker was killed and started again"
        async with self._database.system_unit() as unit:
            ended = await recovery.end_starts_of(unit, enrolled.id, named, reason, self._board.clock.now())
        self._give_back(ended, reason)

    def _give_back(self, ended: list[IncarnationId], reason: str) -> None:
        for incarnation in ended:
            worker = self._board.fleet.workers.get(incarnation)
            if worker is not None:
                self._reports.worker_lost(worker, reason)
            else:
                self._reports.lose_unattached(incarnation, reason)

    async def _enrolled(self, actor: Actor) -> EnrolledWorker | None:
        """Return the enrolled worker whose credential was sent; None for a worker beside a server."""
        async with self._database.system_unit() as unit:
            found = await enrolment.enrolled_by_key(unit, actor.org, actor.key)
        if found is not None and found.removed_at is not None:
            raise Unauthenticated(REMOVED)
        return found

    def _check_only(self, enrolled: EnrolledWorker, incarnation: IncarnationId) -> None:
        """A copy of the data folder on another machine would be a second worker under one name."""
        workers = self._board.fleet.workers.values()
        if any(one.enrolled == enrolled.id and one.id != incarnation and one.is_linked for one in workers):
            raise Unavailable(f"another process uses the credential of worker {enrolled.name} now; dial again")

    def _attach(
        self, actor: Actor, hello: Hello, link: Link, deployed: Deployed, enrolled: EnrolledWorker | None
    ) -> Worker:
        board = self._board
        incarnation = IncarnationId(hello.incarnation)
        worker = board.fleet.workers.get(incarnation)
        expires_at = board.clock.monotonic() + self._grace_s
        if worker is None:
            worker = Worker(incarnation, actor.org, hello.name, hello.machine, hello.credits, expires_at)
            worker.enrolled = None if enrolled is None else enrolled.id
            board.fleet.add_worker(worker)
            self._reattach.rebuild(worker, hello, deployed)
        worker.environments.clear()  # it is asked again, and says what was not heard
        worker.is_linked = False  # nothing is granted to it before the welcome
        worker.is_cordoned = enrolled is not None and enrolled.is_draining
        worker.lease_expires_at = expires_at
        self._reattach.reconcile(worker, hello)
        self._link(worker, link)
        worker.answers += 1
        link.send("welcome", self._welcome(worker, hello))
        for runner in worker.runners.values():
            runner.is_lent = False  # with the welcome the worker forgets it
            board.tell_lent(runner)
        self._liveness.linked(worker)
        self._reattach.repeat_cancels(worker)
        if worker.name in self._linked:
            self._linked[worker.name].set()
        log.info("link.opened", worker=worker.id, name=worker.name, host=hello.machine.host)
        self._grants.grant_ready()
        return worker

    def tell_servers(self) -> None:
        """Tell all workers the addresses of the live servers, outside of their heartbeats' turn."""
        for worker in list(self._board.fleet.workers.values()):
            self._board.send(worker, "heartbeat_answer", HeartbeatAnswer(UNASKED, [], self._servers()))

    async def _elsewhere(self, hello: Hello) -> Unavailable:
        """Return where a worker that dialled this process is to go."""
        async with self._database.system_unit() as unit:
            found = await dispatcher.get_dispatcher(unit)
        if found is None or not found.is_live or self._board.term is not None:
            return Unavailable("no server dispatches at this moment; dial again")
        if hello.name in self._linked:
            self._linked[hello.name].set()
        return Moved("another server dispatches", found.url)

    def _link(self, worker: Worker, link: Link) -> None:
        previous = self._board.links.get(worker.id)
        if previous is not None and previous is not link:
            previous.supersede()
        self._board.links[worker.id] = link
        worker.is_linked = True

    def _welcome(self, worker: Worker, hello: Hello) -> Welcome:
        unknown = self._reattach.unknown(worker, hello.held)
        unknown_runners = [ref.runner for ref in hello.runners if ref.runner not in worker.runners]
        key = self._attempts.key_of(worker.id)
        term, grace_s, servers = self._board.term or 0, self._grace_s, self._servers()
        return Welcome(worker.id, heartbeat_of(grace_s), grace_s, term, unknown, unknown_runners, servers, key)


def _check_hello(hello: Hello) -> None:
    if hello.protocol != LINK_PROTOCOL:
        detail = (
            f"the worker speaks link protocol {hello.protocol}, this server {LINK_PROTOCOL}; install equal versions"
        )
        raise Invalid(detail, code="protocol")
    if not is_key(hello.incarnation) or not hello.name or len(hello.name) > 128:
        raise Invalid("the hello has no usable incarnation or name", code="protocol")
    machine = hello.machine
    offers = ((hello.credits, CREDITS_MAX), (machine.cpus, CPUS_MAX), (machine.memory_mb, MEMORY_MB_MAX))
    if not all(0 < offered <= bound for offered, bound in offers):  # false for what is no number, too
        raise Invalid("the hello offers no possible number of credits, processors or MiB of memory", code="protocol")
    claimed = ((hello.held, HELD_MAX), (hello.runners, RUNNERS_MAX), (hello.forerunners, FORERUNNERS_MAX))
    if any(len(found) > bound for found, bound in claimed):
        raise Invalid("the hello claims more attempts, runners or starts than a worker can have", code="protocol")
    described = msgspec.json.encode((hello.name, machine))
    if len(described) > MACHINE_BYTES_MAX or b"\\u0000" in described:
        raise Invalid("the hello describes its machine in text that cannot be kept", code="protocol")
