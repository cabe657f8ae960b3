"""The control plane in virtual time: one seed decides what clients, workers, clock, disk and the server itself do.

Real are the store, the whole server and the protocol state of the workers; scripted are user code and the network.
Actions come one after the other; what waits for the disk waits until the seed lets a flush go, before its commit or
after it. The same seed gives the same run.
"""

import asyncio
import random
from collections import Counter
from contextlib import suppress

from apothic.wire.functions import FunctionSpec
from apothic.wire.ids import JobId, make_key
from apothic.wire.values import Value
from apothic_server import failpoints
from apothic_server.bootstrap import Cloud, Sources
from apothic_server.domain.errors import PlatformError
from apothic_server.testing.clock import VirtualClock
from apothic_server.testing.cloud import CloudUnderTest

from . import checker
from .checker import Expectation, Violation
from .history import Accepted, CancelAnswered, CancelAsked, Ended, History
from .simworker import SimWorker
from .stored import read_store

ACTIONS = 120
SETTLE_S_MAX = 600
RIDE_S = 0.003
"""Quiet records that are older than the writer's bound join a flush; waiting this long makes all of them older."""

FUNCTIONS = (
    FunctionSpec("work", qualname="work", max_containers=2, max_pending_tasks=1000),
    FunctionSpec("wide", qualname="wide", tasks_per_container=3, max_pending_tasks=1000, disconnect_grace_s=90),
    FunctionSpec("again", qualname="again", max_containers=3, max_retries=2, max_pending_tasks=1000),
)
CODES = frozenset({"exception", "worker_lost", "timeout", "startup_timeout"})
EXPECTED = {spec.name: Expectation(codes=CODES) for spec in FUNCTIONS}


class Gate:
    """Holds the writer at a failpoint until the seed lets it go."""

    def __init__(self):
        self.hold_at = None
        self.held = None
        self._go = asyncio.Event()

    async def __call__(self, name):
        if name == self.hold_at:
            self.held = name
            self._go.clear()
            await self._go.wait()
            self.held = None

    def release(self):
        """Let what is held go on."""
        self.hold_at = None
        self._go.set()


class World:
    """One simulated cloud with its workers and clients."""

    def __init__(self, seed, address, folder):
        self.seed = seed
        self.random = random.Random(seed)
        self.address = address
        self.folder = folder
        self.clock = VirtualClock()
        self.gate = Gate()
        self.workers = []
        self.executions = []
        self.history = History()
        self.violations = []
        self.trace = []
        self.excused = []
        self.jobs = []
        self.cloud = None
        self.actor = self.worker_actor = None
        self._tick = 0
        self._made = 0
        self._calls = 0
        self._crashes = 0
        self._asking = []
        self._frozen_at = {}
        self._blocking = set()

    def new_key(self):
        """Return the next id, made from the seed and the virtual time."""
        return make_key(int(self.clock.now().timestamp() * 1000), self.random.getrandbits(80))

    def tick(self):
        """Return the next instant of the log of executions."""
        self._tick += 1
        return float(self._tick)

    def found(self, invariant, where, what):
        """Note a violation that shows itself at once."""
        self.violations.append(Violation(invariant, str(where), what))

    # --- life of the world

    async def begin(self):
        """Start the first control plane and the first workers."""
        self.cloud = await self._start()
        under_test = CloudUnderTest(self.cloud, self.clock)
        await under_test.prepare()
        self.actor, self.worker_actor = under_test.actor, under_test.worker_actor
        await under_test.deploy("shop", *FUNCTIONS)
        for _ in range(2):
            await self.new_worker()

    async def _start(self):
        sources = Sources(clock=self.clock, new_key=self.new_key, random=self.random.random)
        cloud = Cloud(self.address, self.folder, url="http://sim.test", sources=sources, holder="simulation")
        await cloud.start(run_loops=False)
        return cloud

    async def close(self):
        """Stop everything in good order."""
        self.gate.release()
        await self._forget_asking()
        if self.cloud is not None:
            await self.cloud.stop()

    async def crash(self):
        """Kill the control plane where it stands and start another one on the same store."""
        self._crashes += 1
        await self._forget_asking()
        old, self.cloud = self.cloud, None
        writer = next(task for task in asyncio.all_tasks() if task.get_name() == "writer")
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
        await old.writer._flusher.close()
        await old.peers._channel.close()
        await old.database.close()
        self.gate.release()
        self.cloud = old
        for worker in self.living():
            worker.lose_link()
        self.cloud = await self._start()

    async def _forget_asking(self):
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)
        self._asking.clear()

    async def new_worker(self):
        """Start a worker process and link it."""
        self._made += 1
        worker = SimWorker(self, self._made, f"w{self._made % 3}")
        self.workers.append(worker)
        await worker.connect()
        return worker

    def living(self):
        """Workers whose process lives."""
        return [worker for worker in self.workers if not worker.is_dead]

    async def settle(self):
        """Let the control plane do everything that it can do without anybody else."""
        writer = self.cloud.writer
        for _ in range(8):
            await asyncio.sleep(0)
        while self.gate.held is None and (writer.waiting or writer.is_flushing):  # noqa: ASYNC110
            await asyncio.sleep(0.0005)
        for _ in range(8):
            await asyncio.sleep(0)

    # --- what clients do

    async def submit(self, name=None, *, blocking=None):
        """Call a function."""
        self._calls += 1
        token, name = f"c{self._calls}", name or self.random.choice(FUNCTIONS).name
        blocking = self.random.random() < 0.5 if blocking is None else blocking
        value = Value("json", b'[["%b"],{}]' % token.encode())
        try:
            call = await self.cloud.services.jobs.submit(self.actor, ("shop", name), value, blocking=blocking)
        except PlatformError:
            return
        if blocking:
            self._blocking.add(token)
        self.jobs.append(call.job)
        cloud = self.cloud
        call.accepted.add_done_callback(lambda done: self._told_accepted(cloud, call.job, token, name, done))
        call.outcome.add_done_callback(lambda done: self._told_end(cloud, done))

    def _told_accepted(self, cloud, job, token, name, done):
        if cloud is self.cloud and not done.cancelled() and done.exception() is None:
            self.history.add(Accepted(at=self._tick, job=job, token=token, function=name))

    def _told_end(self, cloud, done):
        if cloud is self.cloud and not done.cancelled() and done.exception() is None:
            outcome = done.result()
            result = outcome.value.data.decode() if outcome.value is not None else None
            code = outcome.error.code if outcome.error is not None else None
            self.history.add(
                Ended(at=self._tick, job=outcome.job, status=outcome.status.value, result=result, code=code)
            )

    def cancel(self):
        """Ask for a cancel, in the background: its answer waits for the disk."""
        if self.jobs:
            job = self.random.choice(self.jobs[-12:])
            self._asking.append(asyncio.ensure_future(self._cancel(job)))

    async def _cancel(self, job):
        self.history.add(CancelAsked(at=self._tick, job=job))
        with suppress(PlatformError):
            status = await self.cloud.services.jobs.cancel(self.actor, JobId(job))
            self.history.add(CancelAnswered(at=self._tick, job=job, status=status.value))

    # --- time

    async def pass_time(self, seconds, *, is_calm=False):
        """Let time pass in steps of a second; workers beat and guard their leases, loops step now and then."""
        for _ in range(int(seconds)):
            self.clock.advance(1.0)
            await self.step("role")
            for worker in self.living():
                worker.guard()
                worker.beat()
            if is_calm or self.random.random() < 0.7:
                await self.exchange()
            if is_calm or self.random.random() < 0.5:
                await self.step(self.random.choice(("sweep", "reload", "retries")))

    async def step(self, name):
        """One step of a loop; one that the store refuses is taken again later."""
        loop = next(loop for loop in self.cloud.loops if loop.name == name)
        with suppress(PlatformError):
            await loop.step()
        await self.settle()

    async def exchange(self):
        """Deliver everything that is on the way, in both directions, until nothing is."""
        for _ in range(6):
            for worker in self.living():
                while worker.link is not None and worker.link.to_server and worker.link.is_open:
                    await worker.serve_one()
            await self.settle()
            for worker in self.living():
                while not worker.is_frozen and worker.link is not None and worker.link.to_worker:
                    worker.receive_one()

    # --- the judge

    def watch(self):
        """Check what must hold at every moment: nobody has more than there is (G2.7)."""
        fleet = self.cloud.board.fleet
        for worker in fleet.workers.values():
            if worker.cpus_free < 0 or worker.memory_free_mb < 0:
                self.found("G2.7", worker.id, f"{worker.cpus_free} cpus and {worker.memory_free_mb} MiB are free")
        for spec in FUNCTIONS:
            runners = [runner for runner in fleet.runners.values() if _is_of(runner, spec, self.cloud)]
            if len(runners) > spec.max_containers:
                self.found("G2.7", spec.name, f"has {len(runners)} runners of {spec.max_containers}")
            for runner in runners:
                if len(runner.attempts) > runner.tasks:
                    self.found("G2.7", runner.id, f"has {len(runner.attempts)} attempts of {runner.tasks}")

    async def judge(self):
        """Return every violation of the run, once it is over."""
        stored = await read_store(self.address)
        executions = self._judged(stored)
        return [
            *self.violations,
            *checker.acknowledged_jobs_exist(self.history, stored),
            *checker.rows_are_whole(stored),
            *checker.ends_never_change(self.history, stored),
            *checker.cancels_hold(self.history, stored),
            *checker.nothing_is_stuck(stored),
            *checker.attempts_are_dense(stored),
            *checker.executions_fit_attempts(executions, stored),
            *checker.ends_are_explained(self.executions, stored, self.history, EXPECTED),
            *checker.executions_do_not_overlap(executions, self.excused),
            *checker.streams_are_dense(stored),
        ]

    def _judged(self, stored):
        """Leave out blocking calls that ran and whose grant never reached the disk: they may run again (G2.1)."""
        attempts = {job.token: job.attempt for job in stored.values()}
        began = Counter(run.token for run in self.executions)
        early = {token for token in self._blocking if began[token] > attempts.get(token, 0)} if self._crashes else set()
        return [run for run in self.executions if run.token not in early]


def _is_of(runner, spec, cloud):
    jobs = cloud.board.jobs
    return any(jobs[job].need.spec.name == spec.name for job in runner.attempts if job in jobs)


class Simulation:
    """Runs one seed."""

    def __init__(self, seed, address, folder, *, actions=ACTIONS, settle_s=SETTLE_S_MAX):
        self.world = World(seed, address, folder)
        self._settle_s = settle_s
        self._actions = actions
        self._weights = {
            self.submit: 22,
            self.work: 40,
            self.deliver: 30,
            self.cancel: 6,
            self.pass_time: 8,
            self.step: 8,
            self.hold: 8,
            self.release: 12,
            self.break_link: 4,
            self.link_again: 8,
            self.kill_worker: 2,
            self.prove_death: 2,
            self.end_runner: 2,
            self.freeze: 2,
            self.thaw: 4,
            self.new_worker: 2,
            self.crash: 2,
            self.jump: 1,
        }

    async def run(self):
        """Return the violations of this seed."""
        world = self.world
        take_away = failpoints.install(world.gate)
        try:
            await world.begin()
            names, weights = list(self._weights), list(self._weights.values())
            for _ in range(self._actions):
                act = world.random.choices(names, weights)[0]
                told = await act()
                await world.settle()
                world.watch()
                world.trace.append(f"{act.__name__} {told or ''}".strip())
            await self.calm_down()
            return await world.judge()
        finally:
            await world.close()
            take_away()

    async def submit(self):
        for _ in range(self.world.random.randint(1, 3)):
            await self.world.submit()
        return self.world._calls

    async def work(self):
        """One attempt somewhere begins, writes or ends."""
        found = [
            (worker, run) for worker in self.world.living() if not worker.is_frozen for run in worker.runs.values()
        ]
        if not found:
            return None
        worker, run = self.world.random.choice(found)
        if run.began is None:
            worker.start(run)
            return f"{run.token} starts"
        if self.world.random.random() < 0.2:
            worker.write(run, "a line")
            return f"{run.token} writes"
        outcome = self.world.random.choices(("succeeded", "failed", "lost", "timed_out"), (80, 12, 5, 3))[0]
        worker.finish(run, outcome)
        return f"{run.token} {outcome}"

    async def deliver(self):
        """One message arrives, in one direction."""
        worker = self._any(lambda worker: worker.link is not None)
        if worker is None:
            return None
        if self.world.random.random() < 0.5:
            await worker.serve_one()
            return f"{worker} is heard"
        worker.receive_one()
        return f"{worker} hears"

    async def cancel(self):
        self.world.cancel()

    async def pass_time(self):
        seconds = self.world.random.choice((1, 2, 3, 5, 12, 25, 40))
        await self.world.pass_time(seconds)
        return seconds

    async def step(self):
        name = self.world.random.choice(("sweep", "reload", "retries", "role", "values"))
        await self.world.step(name)
        return name

    async def hold(self):
        """From now on flushes wait, before their commit or after it."""
        if self.world.gate.hold_at is None:
            self.world.gate.hold_at = self.world.random.choice(("writer.taken", "writer.committed"))
        return self.world.gate.hold_at

    async def release(self):
        """The disk goes on."""
        await asyncio.sleep(RIDE_S)
        self.world.gate.release()

    async def break_link(self):
        worker = self._any(lambda worker: worker.link is not None)
        if worker is not None:
            worker.lose_link()
        return worker

    async def link_again(self):
        worker = self._any(lambda worker: not worker.is_frozen)
        if worker is not None:
            worker.lose_link()
            await worker.connect()
        return worker

    async def kill_worker(self):
        """A machine dies; nobody tells the server."""
        worker = self._any(lambda _: True)
        if worker is not None:
            worker.die()
        return worker

    async def prove_death(self):
        """Every process of one name dies, and the server is told so."""
        worker = self._any(lambda _: True)
        if worker is None:
            return None
        for one in self.world.living():
            if one.name == worker.name:
                one.die()
        await self.world.cloud.links.declare_dead(worker.name, "its process ended")
        return worker.name

    async def end_runner(self):
        worker = self._any(lambda worker: worker.specs and not worker.is_frozen)
        if worker is not None:
            worker.end_runner(self.world.random.choice(sorted(worker.specs)))
        return worker

    async def freeze(self):
        worker = self._any(lambda worker: not worker.is_frozen)
        if worker is not None:
            worker.is_frozen = True
            self.world._frozen_at[worker] = self.world.tick()
        return worker

    async def thaw(self):
        worker = self._any(lambda worker: worker.is_frozen)
        if worker is not None:
            self._thaw(worker)
        return worker

    def _thaw(self, worker):
        worker.is_frozen = False
        worker.guard()
        self.world.excused.append((self.world._frozen_at.pop(worker), self.world.tick()))

    async def new_worker(self):
        if len(self.world.living()) < 4:
            await self.world.new_worker()

    async def crash(self):
        await self.world.crash()

    async def jump(self):
        """Somebody sets the wall clock."""
        seconds = self.world.random.choice((-7200, -60, 60, 7200))
        self.world.clock.step(seconds)
        return seconds

    async def calm_down(self):
        """All faults are over: a healthy worker does everything, until nothing is left to do (I2)."""
        world = self.world
        world.gate.release()
        await world.settle()
        for worker in world.living():
            if worker.is_frozen:
                self._thaw(worker)
        for spec in FUNCTIONS:
            for _ in range(3):
                await world.submit(spec.name, blocking=False)
        for second in range(self._settle_s):
            await self._calm_second(second)
            if not world.cloud.board.jobs and await self._is_done():
                break
        await asyncio.gather(*world._asking)

    async def _calm_second(self, second):
        world = self.world
        for worker in world.living():
            if worker.link is None:
                await worker.connect()
        if not world.living():
            await world.new_worker()
        await world.exchange()
        for worker in world.living():
            for run in list(worker.runs.values()):
                worker.start(run)
                worker.finish(run, "succeeded")
        await world.exchange()
        await world.pass_time(1, is_calm=True)
        if second % 2 == 0:
            for name in ("reload", "sweep", "retries"):
                await world.step(name)

    async def _is_done(self):
        async with self.world.cloud.database.system_unit() as unit:
            left = "SELECT count(*) FROM jobs WHERE status NOT IN ('succeeded', 'failed', 'cancelled', 'timed_out')"
            return await unit.fetchval(left) == 0

    def _any(self, condition):
        found = [worker for worker in self.world.living() if condition(worker)]
        return self.world.random.choice(found) if found else None
