"""What the harness does to a running cloud. Only processes of that cloud are hit, and only with work under way."""

import asyncio
import json
import signal
import time
from dataclasses import asdict, dataclass

from .cloudrun import send

LIVE_WITHIN_S = 30.0
POLL_S = 0.005


@dataclass(frozen=True)
class Done:
    """One fault that was tried.

    Attributes:
        at: Monotonic seconds.
        live: Calls that had been accepted and had not ended.
        has_hit: It hit a process, while work was under way.
    """

    at: float
    place: str
    target: int
    live: int
    has_hit: bool
    lasted_s: float = 0.0


class Faults:
    """Carries out a plan.

    Args:
        cloud: A `CloudRun`.
        startlog: Tells which user code runs.
        load: Tells how many calls were accepted and how many are live.
    """

    def __init__(self, cloud, startlog, load, plan, *, log):
        self._cloud = cloud
        self._startlog = startlog
        self._load = load
        self._plan = plan
        self._chance = plan.random("faults")
        self._log = log
        self.done = []
        self._hit = {
            "server": self._server,
            "worker": self._worker,
            "user": self._user,
            "database": self._database,
            "freeze-worker": self._freeze_worker,
            "freeze-server": self._freeze_server,
        }

    async def run(self):
        """Do all of the plan, each when its time has come and the cloud stands again."""
        for planned in self._plan.faults:
            await self._load.accepted_at_least(planned.after_jobs)
            await self._cloud.ready()
            await asyncio.sleep(planned.wait_s)
            await self._one(planned)

    async def _one(self, planned):
        deadline = time.monotonic() + LIVE_WITHIN_S
        needs_user = planned.place in ("user", "worker", "freeze-worker")
        while time.monotonic() < deadline and not self._has_prey(needs_user):  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        began, live = time.monotonic(), self._load.live
        target = await self._hit[planned.place](planned)
        done = Done(began, planned.place, target or 0, live, bool(target and live), time.monotonic() - began)
        self.done.append(done)
        with self._log.open("a") as file:
            file.write(json.dumps(asdict(done)) + "\n")

    def _has_prey(self, needs_user):
        return self._startlog.running if needs_user else self._load.live

    async def _server(self, _):
        return self._kill(self._cloud.server)

    async def _worker(self, _):
        return self._kill(self._cloud.worker())

    async def _user(self, _):
        running = self._startlog.running
        return self._kill(self._chance.choice(running)) if running else None

    async def _database(self, _):
        """One process of the database; it ends all others and recovers. Now and then its first one."""
        if self._chance.random() < 0.2:
            return self._kill(self._cloud.postmaster())
        backends = self._cloud.backends()
        return self._kill(self._chance.choice(backends)) if backends else self._kill(self._cloud.postmaster())

    async def _freeze_worker(self, planned):
        return await self._freeze(self._cloud.worker(), planned.lasts_s)

    async def _freeze_server(self, planned):
        return await self._freeze(self._cloud.server, planned.lasts_s)

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
