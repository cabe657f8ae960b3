"""What the harness does to a running cloud. Only processes of that cloud are hit, and only with work under way."""

import asyncio
import json
import math
import signal
import time
from dataclasses import asdict, dataclass

from .cloudrun import below, send
from .faultproxy import weather
from .plan import FAILPOINTS, PARTITIONS

OF_MACHINES = ("worker", "freeze-worker", "drain", *PARTITIONS, "delay", "lose")
LIVE_WITHIN_S = 30.0
MET_WITHIN_S = 25.0
"""A failpoint that is not met for so long after the start was ready counts as missed; heartbeats come every 10 s."""

POLL_S = 0.005


@dataclass(frozen=True)
class Done:
    """One fault that was tried.

    Attributes:
        at: Monotonic seconds.
        live: Calls that had been accepted and had not ended.
        has_hit: It hit something while work was under way; on a machine, while user code ran there.
        lasted_s: From `at` until it was over.
        machine: Name of the worker that it hit; empty when it hit none, or the one beside the server.
        met: Processes of user code on that machine when it began.
        near: Those that had been at work there a moment before, too; of the worker beside the server as well.
    """

    at: float
    place: str
    target: int
    live: int
    has_hit: bool
    lasted_s: float = 0.0
    machine: str = ""
    met: tuple[int, ...] = ()
    near: tuple[int, ...] = ()

    @property
    def ended(self):
        """When it was over."""
        return self.at + self.lasted_s


class Faults:
    """Carries out a plan.

    Args:
        cloud: A `CloudRun`.
        startlog: Tells which user code runs.
        load: Tells how many calls were accepted and how many are live.
        workers: Those of other machines; without any, faults of a worker hit the one beside the server.
        clients: The way of the clients.
        budget_s: No fault begins later than so long after the first.
    """

    def __init__(self, cloud, startlog, load, plan, *, log, workers=(), clients=None, budget_s=math.inf):
        self._cloud = cloud
        self._startlog = startlog
        self._load = load
        self._plan = plan
        self._chance = plan.random("faults")
        self._log = log
        self._workers = workers
        self._clients = clients
        self._budget_s = budget_s
        self.done = []
        self._hit = {
            "server": self._server,
            "server-at-cancel": self._server_at_cancel,
            "restart": self._restart,
            "worker": self._worker,
            "own-worker": self._own_worker,
            "user": self._user,
            "database": self._database,
            "freeze-worker": self._freeze_worker,
            "freeze-server": self._freeze_server,
            "drain": self._drain,
            "clients-cut": self._disturb_clients,
            "clients-lose": self._disturb_clients,
            **dict.fromkeys(FAILPOINTS, self._failpoint),
            **dict.fromkeys((*PARTITIONS, "delay", "lose"), self._disturb_worker),
        }

    async def run(self):
        """Do all of the plan, each when its time has come and the cloud stands again."""
        for planned in self._plan.faults:
            if self.done and time.monotonic() > self.done[0].at + self._budget_s:
                break
            self._load.keep_near(planned.after_jobs)
            await self._load.accepted_at_least(planned.after_jobs)
            await self._cloud.ready()
            await asyncio.sleep(planned.wait_s)
            await self._one(planned)
        self._load.keep_near(None)

    async def _one(self, planned):
        deadline = time.monotonic() + LIVE_WITHIN_S
        while not (prey := self._prey(planned.place)) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        machine = None
        if self._workers and planned.place in OF_MACHINES:
            machine = self._chance.choice(prey or self._workers)
        began, live = time.monotonic(), self._load.live
        met = tuple(machine.user_code(self._startlog.running)) if machine else ()
        near = tuple(self._near(planned.place, machine))
        target = await self._hit[planned.place](planned, machine)
        done = Done(
            began,
            planned.place,
            target or 0,
            live,
            bool(target and (met if machine else live)),
            time.monotonic() - began,
            machine.name if machine else "",
            met,
            near,
        )
        self.done.append(done)
        with self._log.open("a") as file:
            file.write(json.dumps(asdict(done)) + "\n")

    def _near(self, place, machine):
        if place == "own-worker":
            return set(self._startlog.connected) & below({self._cloud.worker()})
        return machine.user_code(self._startlog.connected) if machine else ()

    def _prey(self, place):
        """Return what makes this fault worth while now; for faults of workers, those that are at work."""
        if place in OF_MACHINES and self._workers:
            return [worker for worker in self._workers if worker.user_code(self._startlog.running)]
        return self._startlog.running if place in ("user", *OF_MACHINES) else self._load.live

    async def _restart(self, *_):
        return await self._cloud.restart()

    async def _own_worker(self, *_):
        return self._kill(self._cloud.worker())

    async def _server(self, *_):
        return self._kill(self._cloud.server)

    async def _server_at_cancel(self, *_):
        """The moment that a client was answered its cancel."""
        try:
            async with asyncio.timeout(LIVE_WITHIN_S):
                await self._load.next_cancel()
        except TimeoutError:
            return None
        return await self._server()

    async def _worker(self, _, machine):
        return self._kill(machine.pid if machine else self._cloud.worker())

    async def _user(self, *_):
        running = self._startlog.running
        return self._kill(self._chance.choice(running)) if running else None

    async def _database(self, *_):
        """One process of the database; it ends all others and recovers. Now and then its first one."""
        if self._chance.random() < 0.2:
            return self._kill(self._cloud.postmaster())
        backends = self._cloud.backends()
        return self._kill(self._chance.choice(backends)) if backends else self._kill(self._cloud.postmaster())

    async def _freeze_worker(self, planned, machine):
        return await self._freeze(machine.pid if machine else self._cloud.worker(), planned.lasts_s)

    async def _freeze_server(self, planned, _):
        return await self._freeze(self._cloud.server, planned.lasts_s)

    async def _failpoint(self, planned, _):
        return await self._cloud.die_at(f"{planned.place}=kill@{planned.turn}", MET_WITHIN_S)

    async def _drain(self, _, machine):
        return await machine.drain()

    async def _disturb_worker(self, planned, machine):
        return await self._disturb(machine.proxy, planned.place, planned)

    async def _disturb_clients(self, planned, _):
        return await self._disturb(self._clients, planned.place.removeprefix("clients-"), planned)

    async def _disturb(self, proxy, kind, planned):
        async with proxy.disturbed(weather(kind, self._chance), resets=planned.resets):
            await asyncio.sleep(planned.lasts_s)
        return proxy.port

    async def _freeze(self, pid, seconds):
        if pid is None or not send(pid, signal.SIGSTOP):
            return None
        try:
            await asyncio.sleep(seconds)
        finally:
            send(pid, signal.SIGCONT)
        return pid

    def _kill(self, pid):
        return pid if pid is not None and send(pid, signal.SIGKILL) else None
