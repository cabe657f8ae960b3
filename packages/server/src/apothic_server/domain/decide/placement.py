"""Where the next attempt of a function runs: an existing runner, a new one, or nowhere yet and why."""

from __future__ import annotations

import math
from dataclasses import dataclass

from apothic.wire.functions import FunctionSpec
from apothic.wire.ids import OrgId, RunnerId
from apothic.wire.images import environment_id
from apothic_server.domain.decide.crash_loop import crash_reason, holds_back
from apothic_server.domain.decide.wishes import unmet_wishes
from apothic_server.domain.fleet import EnvironmentKey, Fleet, GroupKey, Runner, Worker

REQUIREMENTS_SHOWN = 5
NEEDS_BUILDER = "image_needs_builder"


@dataclass(frozen=True, slots=True)
class Need:
    """What one attempt asks for.

    Attributes:
        python: `major.minor` that it runs under.
    """

    org: OrgId
    group: GroupKey
    python: str
    spec: FunctionSpec

    @property
    def environment(self) -> EnvironmentKey | None:
        """What has to be ready on a worker before a runner is started there; None when nothing is installed."""
        environment = environment_id(self.spec.image)
        return (self.group[0], environment) if environment else None


@dataclass(frozen=True, slots=True)
class UseRunner:
    """An existing runner has a free place."""

    runner: Runner


@dataclass(frozen=True, slots=True)
class StartOn:
    """Start a runner on `worker` after ending the idle runners `evict`, which make room for it.

    Idle runners of the same function on workers that get nothing new make room within `max_containers`.
    """

    worker: Worker
    evict: tuple[Runner, ...] = ()


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can run it now.

    Attributes:
        reason: One plain sentence for the user.
        is_hopeless: None of the machines that are connected could ever run it.
        is_crash_loop: The runners of its function crash.
        prepare_on: Worker that is to make the environment ready, and was not told to.
    """

    reason: str
    is_hopeless: bool = False
    is_crash_loop: bool = False
    prepare_on: Worker | None = None


def place(need: Need, fleet: Fleet) -> UseRunner | StartOn | Wait:
    """Return where an attempt goes, within `max_containers`, places of runners, processors, memory and credits."""
    group = fleet.group(need.group)
    if warm := _warm_runner(group, need):
        return UseRunner(warm)
    streak = fleet.streaks.get(need.group)
    if streak is not None and holds_back(streak, group.values()):
        return Wait(crash_reason(streak), is_crash_loop=True)
    stranded = tuple(runner for runner in group.values() if runner.is_idle and runner.worker.is_cordoned)
    taken = len(group) - len(stranded) + len(fleet.absent(need.group))
    if taken >= need.spec.max_containers:
        return Wait(_full(taken, need))
    where = _new_runner(need, fleet)
    return StartOn(where.worker, (*stranded, *where.evict)) if isinstance(where, StartOn) else where


def missing_builder(need: Need) -> str | None:
    """Return why only an image builder could make what it needs; None when none is needed."""
    if need.spec.image is None or not need.spec.image.recorded:
        return None
    steps = ", ".join(need.spec.image.recorded)
    return f"the image has steps that only an image builder can do ({steps}); none is here"


def fitting_workers(need: Need, fleet: Fleet) -> list[Worker] | Wait:
    """Return the workers that could run it as soon as they have room; at least one, else why none could."""
    if missing := missing_builder(need):
        return Wait(f"{NEEDS_BUILDER}: {missing}", is_hopeless=True)
    able = [worker for worker in fleet.workers.values() if worker.is_able]
    if not able:
        drains = any(worker.is_cordoned for worker in fleet.workers.values())
        return Wait("every connected worker is draining" if drains else "no worker is connected")
    fitting = [worker for worker in able if _could_ever_fit(worker, need)]
    if not fitting:
        return Wait(_never_fits(able, need), is_hopeless=True)
    if need.spec.placement:
        unmet = {worker.id: unmet_wishes(need.spec.placement, worker.machine) for worker in fitting}
        if all(unmet.values()):
            missing = ", ".join(min(unmet.values(), key=len)[:REQUIREMENTS_SHOWN])
            return Wait(f"no machine offers what placement asks for: {missing}", is_hopeless=True)
        fitting = [worker for worker in fitting if not unmet[worker.id]]
    return fitting


def _warm_runner(group: dict[RunnerId, Runner], need: Need) -> Runner | None:
    best: Runner | None = None
    warmest = (False, -math.inf)
    for runner in group.values():
        if runner.is_ending or not runner.has_room:
            continue
        warmth = _warmth(runner)
        if best is not None and warmth <= warmest:
            continue
        # Looked at last, because it asks all runners of a worker.
        if _takes_one(runner) and (runner.is_computing or runner.worker.cpus_free >= need.spec.cpu):
            best, warmest = runner, warmth
    return best


def _takes_one(runner: Runner) -> bool:
    """Whether its worker may be given one more; a batch that is being collected counts as one already."""
    return runner.worker.is_able if runner.is_batching and runner.attempts else runner.worker.takes_work


def _warmth(runner: Runner) -> tuple[bool, float]:
    """An idle runner is better than a busy one, and a batch that is being collected better than a new one."""
    return (runner.is_idle != runner.is_batching, runner.idle_since)


def _new_runner(need: Need, fleet: Fleet) -> StartOn | Wait:
    fitting = fitting_workers(need, fleet)
    if isinstance(fitting, Wait):
        return fitting
    chosen: StartOn | None = None
    unready: Worker | None = None
    for worker in sorted(fitting, key=lambda worker: -worker.cpus_free):
        plan = _room_on(worker, need)
        if not worker.has_ready(need.environment):
            unready = unready or (worker if plan is not None else None)
        elif plan is not None and (chosen is None or len(plan.evict) < len(chosen.evict)):
            chosen = plan
    if chosen is None and need.environment is not None and unready is not None:
        return _unbuilt(need, need.environment, unready, fitting)
    return chosen or Wait("every machine is busy; waiting for processors or memory to become free")


def _unbuilt(need: Need, environment: EnvironmentKey, worker: Worker, fitting: list[Worker]) -> Wait:
    """Return the wait for an environment; one worker at a time makes it ready."""
    builder = next(
        (other for other in fitting if environment in other.environments and not other.has_ready(environment)), None
    )
    requirements = need.spec.image.requirements if need.spec.image is not None else ()
    shown = ", ".join(text.split(";")[0].split(" --hash")[0].strip() for text in requirements[:REQUIREMENTS_SHOWN])
    more = f" and {len(requirements) - REQUIREMENTS_SHOWN} more" if len(requirements) > REQUIREMENTS_SHOWN else ""
    reason = f"image_building: worker {(builder or worker).name} makes the environment ready: {shown}{more}"
    return Wait(reason, prepare_on=worker if builder is None else None)


def _could_ever_fit(worker: Worker, need: Need) -> bool:
    machine = worker.machine
    return machine.cpus >= need.spec.cpu and machine.memory_mb >= need.spec.memory_mb and need.python in machine.pythons


def _room_on(worker: Worker, need: Need) -> StartOn | None:
    if not worker.takes_work or worker.cpus_free < need.spec.cpu:
        return None
    missing_mb = need.spec.memory_mb - worker.memory_free_mb
    evict: list[Runner] = []
    for runner in sorted(worker.runners.values(), key=lambda runner: runner.idle_since):
        if missing_mb <= 0:
            break
        if runner.is_idle:
            evict.append(runner)
            missing_mb -= runner.memory_mb
    return StartOn(worker, tuple(evict)) if missing_mb <= 0 else None


def _full(containers: int, need: Need) -> str:
    each = need.spec.tasks_per_container
    tasks = "1 job" if each == 1 else f"{each} jobs"
    tasks = tasks if need.spec.batching is None else "1 batch"
    return f"all {containers} of max_containers={need.spec.max_containers} runners are busy with {tasks} each"


def _never_fits(workers: list[Worker], need: Need) -> str:
    pythons = sorted({python for worker in workers for python in worker.machine.pythons})
    if need.python not in pythons:
        return f"no machine has Python {need.python}; present: {', '.join(pythons)}"
    cpus = max(worker.machine.cpus for worker in workers)
    memory = max(worker.machine.memory_mb for worker in workers)
    return (
        f"needs {need.spec.cpu} cpu and {need.spec.memory_mb} MiB of memory; "
        f"the largest connected machine offers {cpus:g} cpu and {memory} MiB"
    )
