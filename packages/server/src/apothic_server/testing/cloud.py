"""A whole control plane in process: real PostgreSQL, virtual clock, loops stepped by hand, an in-memory worker link."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import pytest

from apothic.wire.functions import FunctionSpec, Manifest
from apothic.wire.ids import IncarnationId, JobId, OrgId, new_key
from apothic.wire.items import pack_items
from apothic.wire.link import (
    Assign,
    AttemptRef,
    Finished,
    Heartbeat,
    HeldAttempt,
    Hello,
    Items,
    LogLine,
    Logs,
    Machine,
    Ping,
    RunnerRef,
    Started,
    StartRunner,
    WorkerFrame,
)
from apothic.wire.values import RemoteError, Value
from apothic.wire.version import LINK_PROTOCOL, VERSION
from apothic_server.api.shared.asgi import Face
from apothic_server.bootstrap import Cloud, Sources
from apothic_server.domain.access import Actor, Role
from apothic_server.domain.apps import Deployment, Switch
from apothic_server.domain.fleet import Worker
from apothic_server.domain.jobs import JobChange, JobFields, JobStatus, StreamEvent
from apothic_server.domain.views import Outcome, Submitted
from apothic_server.loops.base import Loop
from apothic_server.services.dispatch.leases import PASS_S
from apothic_server.services.offer import Services
from apothic_server.store.address import StoreAddress
from apothic_server.testing.clock import VirtualClock

__all__ = ["CloudUnderTest", "ScriptedWorker", "cloud", "ended", "start_beside"]

ARCHIVE = b"no worker of a test unpacks this"


class CloudUnderTest:
    """A started cloud with two orgs and everything that a test asks of it.

    Attributes:
        is_frozen: Time passes without the renewals of the dispatcher's term that a running process makes meanwhile.
    """

    def __init__(self, inner: Cloud, clock: VirtualClock) -> None:
        self.inner = inner
        self.clock = clock
        self.is_frozen = False
        clock.moved.append(self._renewed)
        self._started: list[Loop] = []
        self.key = ""
        self.other_key = ""
        self.worker_key = ""
        self.actor: Actor
        self.other_actor: Actor
        self.worker_actor: Actor

    @property
    def asgi(self) -> Face:
        return self.inner.asgi

    @property
    def services(self) -> Services:
        return self.inner.services

    async def prepare(self) -> None:
        """Make the keys of two orgs and a worker."""
        keys, other = self.inner.keys, OrgId(new_key())
        async with self.inner.database.system_unit() as unit:
            await unit.execute(
                "INSERT INTO orgs (org, slug, created_at) VALUES ($1, 'other', $2)", other, self.clock.now()
            )
        self.key = await keys.create(self.inner.org, name="owner", role=Role.OWNER)
        self.other_key = await keys.create(other, name="owner", role=Role.OWNER)
        self.worker_key = await keys.create(self.inner.org, name="worker", role=Role.WORKER)
        self.actor = await keys.authenticate(self.key)
        self.other_actor = await keys.authenticate(self.other_key)
        self.worker_actor = await keys.authenticate(self.worker_key)

    async def deploy(
        self, app: str = "shop", *specs: FunctionSpec, actor: Actor | None = None, archive: bytes = ARCHIVE
    ) -> Deployment:
        """Upload an archive and deploy functions; one named `work` when none is given."""
        from apothic_server.services.blobs import digest_of

        digest = digest_of(archive)

        async def chunks() -> AsyncGenerator[bytes]:
            yield archive

        who = actor or self.actor
        await self.services.archives.put(who, digest, chunks())
        functions = specs or (FunctionSpec("work", qualname="work"),)
        manifest = Manifest("shop", "app", "3.11", VERSION, functions)
        made = await self.services.apps.deploy(who, app, manifest, digest)
        assert isinstance(made, Switch)
        return made.deployment

    async def spawn(self, function: str = "work", app: str = "shop", *, blocking: bool = False) -> Submitted:
        """Call a function with no arguments; returns when the job is durable unless `blocking`."""
        submitted = await self.services.jobs.submit(
            self.actor, (app, function), Value("json", b"[[],{}]"), blocking=blocking
        )
        if not blocking:
            await submitted.accepted
        return submitted

    def start_loop(self, name: str) -> None:
        """Let one loop run by its own hints and timer, for tests about work that waits for I/O."""
        loop = next(loop for loop in self.inner.loops if loop.name == name)
        loop.start()
        self._started.append(loop)

    async def stop_loops(self) -> None:
        """Stop the loops that `start_loop` started."""
        for loop in self._started:
            await loop.stop()

    async def step(self) -> None:
        """One step of every loop, as their timers would do."""
        for loop in self.inner.loops:
            await loop.step()

    async def advance(self, seconds: float) -> None:
        """Let time pass, then step every loop."""
        self.live(seconds)
        await self.step()

    def live(self, seconds: float) -> None:
        """Let time pass while the server listens to its workers; `clock.advance` alone is time that it slept."""
        left = seconds
        while left > 0:
            self.clock.advance(min(left, PASS_S))
            self.inner.leases.begin_look()
            self.inner.leases.end_look()
            left -= PASS_S

    async def settle(self) -> None:
        """Wait until every record that somebody waits for is on disk or refused, and was acted on."""
        nobody = JobChange(
            org=self.inner.org,
            job=JobId(new_key()),
            expect_status=JobStatus.QUEUED,
            expect_fence=0,
            path="",
            fields=JobFields(),
            events=(StreamEvent("job.log", self.clock.now(), {}),),
        )
        assert not await self.inner.writer.append(nobody), "no such job"

    def _renewed(self, seconds: float) -> None:
        if not self.is_frozen:
            self.inner.board.term_until += seconds

    async def status(self, job: JobId) -> str:
        """Status in the store."""
        async with self.inner.database.system_unit() as unit:
            return str(await unit.fetchval("SELECT status FROM jobs WHERE id = $1", job))

    async def events(self, job: JobId) -> list[tuple[int, str]]:
        """Stored events of a job: index and kind, in order."""
        async with self.inner.database.system_unit() as unit:
            rows = await unit.fetch("SELECT index, kind FROM events WHERE stream = $1 ORDER BY index", job)
        return [(row["index"], row["kind"]) for row in rows]


class ScriptedWorker:
    """A worker that does what a test says; its link is a pair of lists instead of a socket."""

    def __init__(
        self, cloud: CloudUnderTest, *, name: str = "scripted", cpus: float = 4, memory_mb: int = 8192
    ) -> None:
        self._cloud = cloud
        self.name = name
        self.incarnation = IncarnationId(new_key())
        self.machine = Machine("host", "sandbox", [], [], {}, cpus, memory_mb, ["3.11"])
        self.worker: Worker | None = None
        self._actor: Actor | None = None
        self.received: deque[tuple[str, Any]] = deque()
        self._lines: dict[tuple[str, int], int] = {}
        self.close_code: str | None = None
        self.started: dict[str, StartRunner] = {}
        self.echo = 0
        self._arrived = asyncio.Event()

    def send(self, name: str, item: Any) -> None:
        """The server sends."""
        self.received.append((name, item))
        if isinstance(item, StartRunner):
            self.started[item.runner] = item
        elif isinstance(item, Ping):
            self.echo = item.number
        self._arrived.set()

    def close(self, code: str, detail: str) -> None:
        """The server closes."""
        self.close_code = code

    def supersede(self) -> None:
        """The server has a newer link of this worker."""
        self.close_code = "superseded"

    async def connect(
        self,
        *held: Assign,
        idle: Sequence[str] = (),
        on: CloudUnderTest | None = None,
        actor: Actor | None = None,
        forerunners: Sequence[str] = (),
    ) -> ScriptedWorker:
        """Dial in; returns when greeted.

        Args:
            held: Attempts it says it has, in runners that live.
            idle: Runners it says it has, without an attempt.
            on: Another cloud, from now on.
            actor: The holder of another credential than the test's own, from now on.
            forerunners: Starts that it says are dead.
        """
        self._cloud, self._actor = on or self._cloud, actor or self._actor
        refs = [HeldAttempt(item.job, item.fence, item.runner) for item in held]
        runners = [self.described(name) for name in dict.fromkeys([*(item.runner for item in held), *idle])]
        return await self.greet(refs, runners, forerunners)

    async def greet(
        self, refs: list[HeldAttempt], runners: list[RunnerRef], forerunners: Sequence[str] = ()
    ) -> ScriptedWorker:
        """Dial in with whatever hello."""
        dead = list(forerunners)
        hello = Hello(LINK_PROTOCOL, VERSION, self.incarnation, self.name, self.machine, 256, refs, runners, dead)
        self.worker = await self._cloud.inner.links.opened(self._actor or self._cloud.worker_actor, hello, self)
        return self

    def described(self, runner: str) -> RunnerRef:
        """Return what a hello says of a runner that the server started here."""
        spec = self.started[runner]
        return RunnerRef(runner, spec.org, spec.deployment, spec.function, spec.cpu, spec.memory_mb, spec.places)

    def disconnect(self) -> None:
        """The link breaks; the worker goes on."""
        self._cloud.inner.links.closed(self._linked, self)

    async def heartbeat(self, *held: Assign, echo: int | None = None) -> None:
        """Renew the lease; echoes the newest ping unless told otherwise."""
        refs = [AttemptRef(item.job, item.fence) for item in held]
        await self._cloud.inner.links.heartbeat(self._linked, Heartbeat(1, refs, self.echo if echo is None else echo))

    async def next(self, name: str) -> Any:
        """Return the next item of that name that the server sends, waiting for it; others are dropped."""
        return (await self.next_of(name))[1]

    async def next_of(self, *names: str) -> tuple[str, Any]:
        """Return name and content of the next item of one of these names, waiting for it; others are dropped."""
        async with asyncio.timeout(10):
            while True:
                while self.received:
                    kind, item = self.received.popleft()
                    if kind in names:
                        return kind, item
                self._arrived.clear()
                await self._arrived.wait()

    async def take(self) -> Assign:
        """Wait for the next attempt and report it started."""
        assign: Assign = await self.next("assign")
        self.report({"started": [Started(assign.job, assign.fence)]})
        return assign

    def succeed(self, assign: Assign, data: bytes = b"null") -> None:
        self.report({"finished": [Finished(assign.job, assign.fence, "succeeded", Value("json", data))]})

    def fail(self, assign: Assign, *, outcome: str = "failed", code: str = "exception") -> None:
        error = RemoteError("builtins.ValueError", "no", "Traceback …", code)
        self.report({"finished": [Finished(assign.job, assign.fence, outcome, None, error)]})

    def log(self, assign: Assign, *lines: str, first: int | None = None) -> None:
        """Report lines, with numbers from `first` on, or after those that were reported before."""
        key = (assign.job, assign.fence)
        start = self._lines.get(key, 0) if first is None else first
        self._lines[key] = start + len(lines)
        self.report({"logs": [Logs(*key, start, [LogLine("stdout", 0, line) for line in lines])]})

    def yield_items(self, assign: Assign, first: int, *items: bytes, encoding: str = "json") -> None:
        """Report items, given encoded, with ordinals from `first` on."""
        data = pack_items(encoding, items)
        self.report({"items": [Items(assign.job, assign.fence, first, len(items), encoding, data)]})

    def report(self, frame: WorkerFrame) -> None:
        """Send a frame."""
        self._cloud.inner.links.report(self._linked, frame)

    @property
    def _linked(self) -> Worker:
        assert self.worker is not None, "connect first"
        return self.worker


async def ended(submitted: Submitted) -> Outcome:
    """Wait for a job's end, at most ten real seconds."""
    return await asyncio.wait_for(asyncio.shield(submitted.outcome), 10)


async def start_beside(running: CloudUnderTest, inner: Cloud) -> CloudUnderTest:
    """Start a second process on the store of a running cloud, whose membership loop must answer meanwhile."""
    starting = asyncio.create_task(inner.start(run_loops=False))
    while not starting.done():
        await asyncio.wait({starting}, timeout=0.01)
        await running.inner.peers.renew()
    await starting
    beside = CloudUnderTest(inner, running.clock)
    beside.actor, beside.other_actor, beside.worker_actor = running.actor, running.other_actor, running.worker_actor
    beside.key, beside.other_key, beside.worker_key = running.key, running.other_key, running.worker_key
    return beside


@pytest.fixture
async def cloud(postgres: StoreAddress, tmp_path: Path) -> AsyncGenerator[CloudUnderTest]:
    """Yield a started cloud on the test's own database; its loops run only when stepped."""
    clock = VirtualClock()
    inner = Cloud(postgres, tmp_path, url="http://cloud.test", sources=Sources(clock=clock, random=lambda: 0.0))
    await inner.start(run_loops=False)
    try:
        under_test = CloudUnderTest(inner, clock)
        await under_test.prepare()
        yield under_test
        await under_test.stop_loops()
    finally:
        await inner.stop()
