"""The machines and runners a dispatcher sees, and what is free on them.

Memory only: the store's rows are the truth, and start-up rebuilds this picture from them. A slot is taken by a live
attempt and freed with it, never counted separately, so it cannot leak (G2.7).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from apothic.wire.ids import DeploymentId, EnrolledId, FunctionId, IncarnationId, JobId, OrgId, RunnerId
from apothic.wire.link import Machine
from apothic.wire.values import RemoteError

GroupKey = tuple[DeploymentId, FunctionId]
"""Runners that can take each other's work: one function of one deployment."""

EnvironmentKey = tuple[DeploymentId, str]
"""Deployment and environment; each deployment asks anew, so that it can try again what failed before."""


@dataclass(slots=True, eq=False)
class Runner:
    """A live process that executes attempts of one function of one deployment.

    Attributes:
        tasks: Attempts it may hold at once.
        attempts: Jobs it executes now, or collects for a batch.
        is_batching: It executes what it has collected as one batch, and takes nothing more until that ends.
        begun: Those of `attempts` whose batch began, and chunks of items, which nothing joins.
        waiting: Those of them that wait for another job, or follow its events.
        following: Those of `waiting` that only follow: they may well compute between two events.
        is_lent: Its worker was told that its processors are lent.
        idle_since: Monotonic seconds of the last moment it had work; meaningless while it has some.
        has_served: A call in it came to its own end.
        is_ending: Its process is gone, by what was reported of an attempt; it takes nothing more.
    """

    id: RunnerId
    org: OrgId
    group: GroupKey
    worker: Worker
    cpu: int
    memory_mb: int
    tasks: int
    idle_since: float
    attempts: set[JobId] = field(default_factory=set[JobId])
    waiting: set[JobId] = field(default_factory=set[JobId])
    following: set[JobId] = field(default_factory=set[JobId])
    is_lent: bool = False
    has_served: bool = False
    is_ending: bool = False
    is_batching: bool = False
    begun: set[JobId] = field(default_factory=set[JobId])

    @property
    def is_idle(self) -> bool:
        return not self.attempts

    @property
    def has_room(self) -> bool:
        """Another attempt may be given to it."""
        return len(self.attempts) < self.tasks and not self.begun

    @property
    def is_parked(self) -> bool:
        """All it executes waits for other jobs: its processors are lent to others, its memory is not (G2.7)."""
        return bool(self.attempts) and not self.is_computing

    @property
    def is_blocked(self) -> bool:
        """It is parked and has nothing to compute."""
        return self.is_parked and not self.following

    @property
    def is_computing(self) -> bool:
        """It takes its processors; a batch waits as a whole."""
        return not self.waiting if self.is_batching and self.attempts else len(self.waiting) < len(self.attempts)


@dataclass(slots=True)
class Preparation:
    """An environment that a worker was told to make ready.

    Attributes:
        is_answered: It said that it is there, or that it failed; what it says again is not told again.
        is_done: That is written, so runners may be started.
        error: Why it failed.
        failed_at: Monotonic seconds of that.
    """

    org: OrgId
    is_answered: bool = False
    is_done: bool = False
    error: RemoteError | None = None
    failed_at: float = 0.0


@dataclass(slots=True, eq=False)
class Worker:
    """One incarnation of a worker.

    Attributes:
        credits: Attempts it may hold at once (flow control of the link); those that a runner collects are one.
        lease_expires_at: Monotonic seconds after which its attempts are given to others; those of a function with a
            grace of its own that much later or earlier.
        is_draining: It stops soon and takes nothing more.
        enrolled: The enrolled worker whose start this is; None for one beside a server.
        is_cordoned: An operator wants it to get nothing new.
        environments: What it was told to make ready.
        is_removed: An operator removed it; nothing that it or its user code asks for is done any more.
        is_linked: Its link is open; without one it gets no new work but keeps what it has until the lease ends.
        is_impaired: It sends heartbeats, but orders do not reach its supervisor; it gets no new work (G3.4).
        answers: Welcomes and heartbeat answers sent to it.
        pinged: Number of the newest ping.
        pings: Pings of this link that were not echoed: number to monotonic seconds of sending.
        finishing: Attempts whose runner was gone when the worker dialled in; their ends are on the way.
    """

    id: IncarnationId
    org: OrgId
    name: str
    machine: Machine
    credits: int
    lease_expires_at: float
    is_linked: bool = True
    is_draining: bool = False
    runners: dict[RunnerId, Runner] = field(default_factory=dict[RunnerId, Runner])
    is_impaired: bool = False
    answers: int = 0
    pinged: int = 0
    pings: dict[int, float] = field(default_factory=dict[int, float])
    finishing: set[JobId] = field(default_factory=set[JobId])
    enrolled: EnrolledId | None = None
    is_cordoned: bool = False
    is_removed: bool = False
    environments: dict[EnvironmentKey, Preparation] = field(default_factory=dict[EnvironmentKey, Preparation])

    @property
    def held(self) -> int:
        held = 0
        for one in self.runners.values():  # asked at every grant, of each runner of a machine
            held += bool(one.attempts) if one.is_batching else len(one.attempts)
        return held

    @property
    def cpus_free(self) -> float:
        """Processors not taken; idle and parked runners take none.

        Below zero while a parked runner goes on before those that borrowed its processors are done: by as much as was
        lent, never more.
        """
        free = self.machine.cpus
        for runner in self.runners.values():
            if runner.attempts and (not runner.waiting or runner.is_computing):
                free -= runner.cpu
        return free

    @property
    def memory_free_mb(self) -> int:
        """MiB not promised; idle runners keep theirs."""
        return self.machine.memory_mb - sum(runner.memory_mb for runner in self.runners.values())

    @property
    def is_able(self) -> bool:
        """Whether it takes new work when it has room."""
        if self.is_cordoned:
            return False
        return self.is_linked and not self.is_draining and not self.is_impaired

    def has_ready(self, environment: EnvironmentKey | None) -> bool:
        """Whether runners that need this environment may be started; they need none when it is None."""
        if environment is None:
            return True
        asked = self.environments.get(environment)
        return asked is not None and asked.is_done

    @property
    def takes_work(self) -> bool:
        return self.is_able and self.held < self.credits


@dataclass(frozen=True, slots=True)
class Streak:
    """Runners of one function that crashed one after the other; see `domain.decide.crash_loop`.

    Attributes:
        error: The newest crash.
        crashed_at: Monotonic seconds of it.
        pause_s: Length of the newest pause; 0 before the first.
        next_at: Monotonic seconds at which that pause ends.
        is_paused: No runner is started now.
    """

    crashes: int
    error: RemoteError
    crashed_at: float
    pause_s: float = 0.0
    next_at: float = 0.0
    is_paused: bool = False


class Fleet:
    """All workers and runners, found by id and by group, and the functions whose runners crash."""

    def __init__(self) -> None:
        self.workers: dict[IncarnationId, Worker] = {}
        self.runners: dict[RunnerId, Runner] = {}
        self.streaks: dict[GroupKey, Streak] = {}
        self._groups: dict[GroupKey, dict[RunnerId, Runner]] = {}
        self._absent: dict[GroupKey, set[JobId]] = {}

    def group(self, key: GroupKey) -> dict[RunnerId, Runner]:
        """Runners of one function of one deployment; not to be changed by the caller."""
        return self._groups.get(key, {})

    def absent(self, key: GroupKey) -> frozenset[JobId]:
        """Jobs of a group that workers which have not come back yet may still execute, each in a runner of its own."""
        return frozenset(self._absent.get(key, ()))

    def miss(self, key: GroupKey, job: JobId) -> None:
        """Keep a place of `max_containers` for the runner of a job whose worker has not come back yet."""
        self._absent.setdefault(key, set()).add(job)

    def unmiss(self, key: GroupKey, job: JobId) -> None:
        """The job is attached or given back; does nothing for others."""
        jobs = self._absent.get(key)
        if jobs is not None:
            jobs.discard(job)
            if not jobs:
                del self._absent[key]

    def add_worker(self, worker: Worker) -> None:
        self.workers[worker.id] = worker

    def remove_worker(self, worker: Worker) -> None:
        for runner in list(worker.runners.values()):
            self.remove_runner(runner)
        self.workers.pop(worker.id, None)

    def add_runner(self, runner: Runner) -> None:
        self.runners[runner.id] = runner
        runner.worker.runners[runner.id] = runner
        self._groups.setdefault(runner.group, {})[runner.id] = runner

    def remove_runner(self, runner: Runner) -> None:
        self.runners.pop(runner.id, None)
        runner.worker.runners.pop(runner.id, None)
        group = self._groups.get(runner.group)
        if group is not None:
            group.pop(runner.id, None)
            if not group:
                del self._groups[runner.group]
