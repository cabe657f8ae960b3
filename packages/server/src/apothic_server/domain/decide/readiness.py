"""Whether what attempts of a function need is ready on a machine that could run them, and who is to make it so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from apothic.wire.images import BUILD_FAILURE_KEPT_S
from apothic.wire.values import RemoteError
from apothic_server.domain.decide.placement import NEEDS_BUILDER, Need, Wait, fitting_workers, missing_builder
from apothic_server.domain.fleet import EnvironmentKey, Fleet, Worker

Status = Literal["waiting", "building", "ready", "failed"]


@dataclass(frozen=True, slots=True)
class Readiness:
    """How far the environment of a function is.

    Attributes:
        status: `failed` stays so until it may be tried again, or for good when only an image builder could make it.
        worker: Where it is ready, is being built, or failed; None while it waits.
        reason: Why it waits, in one plain sentence.
        error: Why it failed.
        is_new: `worker` was not told to build it yet.
    """

    status: Status
    worker: Worker | None = None
    reason: str | None = None
    error: RemoteError | None = None
    is_new: bool = False


def readiness(need: Need, fleet: Fleet, now: float) -> Readiness:
    """Return how far it is: ready on one machine is ready, and one machine at a time builds.

    Args:
        now: Monotonic seconds; a build that failed long ago is tried again.
    """
    if missing := missing_builder(need):
        return Readiness("failed", error=RemoteError("builtins.NotImplementedError", missing, code=NEEDS_BUILDER))
    fitting = fitting_workers(need, fleet)
    if isinstance(fitting, Wait):
        return Readiness("waiting", reason=fitting.reason)
    fitting.sort(key=lambda worker: -worker.cpus_free)
    if need.environment is None:
        return Readiness("ready", fitting[0])
    asked = [(worker, _state(worker, need.environment, now)) for worker in fitting]
    for wanted in ("ready", "building", "failed"):
        for worker, state in asked:
            if state == wanted:
                error = worker.environments[need.environment].error if wanted == "failed" else None
                return Readiness(wanted, worker, error=error)
    return Readiness("building", fitting[0], is_new=True)


def _state(worker: Worker, environment: EnvironmentKey, now: float) -> Status:
    """Return what a worker said; `waiting` when it is to be told, also again."""
    asked = worker.environments.get(environment)
    if asked is None:
        return "waiting"
    if not asked.is_done:
        return "building"
    if asked.error is None:
        return "ready"
    return "failed" if now - asked.failed_at < BUILD_FAILURE_KEPT_S else "waiting"
