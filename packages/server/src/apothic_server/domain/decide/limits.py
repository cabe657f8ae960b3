"""When a job runs into a time limit next, and what it is told (J10, J11).

The server ends waiting jobs itself, exactly on time. Attempts are stopped by their worker; the server waits `late_s`
longer and then ends the job whatever the worker says (G4.3).
"""

from __future__ import annotations

from dataclasses import dataclass

from apothic.wire.functions import FunctionSpec
from apothic.wire.values import RemoteError
from apothic_server.domain.jobs import JobStatus

STOPPED_BY_WORKERS = frozenset({"timeout", "deadline_exceeded"})
"""Limits that a worker enforces first; it says only which one."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit and when it is enforced, in monotonic seconds. `code` is that of the job's error."""

    at: float
    code: str


def next_limit(
    status: JobStatus, since: float, deadline_at: float | None, spec: FunctionSpec, *, late_s: float, items: int = 1
) -> Limit | None:
    """Return the limit that a job meets first while it keeps its status, None when it meets none.

    Args:
        since: Monotonic seconds from which the status counts. While it waits: when it could have run.
        deadline_at: End of `deadline_s`, over all attempts.
        late_s: How much longer a worker may take to stop an attempt and say so.
        items: Items of a map that the attempt executes; each has `timeout_s` for itself.
    """
    match status:
        case JobStatus.QUEUED | JobStatus.RETRYING:
            own, late_s = Limit(since + spec.queue_timeout_s, "queue_timeout"), 0.0
        case JobStatus.STARTING:
            own = Limit(since + spec.startup_timeout_s + _collecting_s(spec) + late_s, "startup_timeout")
        case JobStatus.RUNNING:
            own = Limit(since + spec.timeout_s * items + late_s, "timeout")
        case _:
            return None
    if deadline_at is not None and deadline_at + late_s <= own.at:
        return Limit(deadline_at + late_s, "deadline_exceeded")
    return own


def _collecting_s(spec: FunctionSpec) -> float:
    """Return how long an attempt may wait for its batch: behind one that runs, and then for others."""
    return 0.0 if spec.batching is None else spec.timeout_s + spec.batching.wait_ms / 1000


def limit_error(code: str, spec: FunctionSpec) -> RemoteError:
    """Return what a job is told that ran into the limit with this code."""
    message = {
        "queue_timeout": f"the job waited longer than {spec.queue_timeout_s} s for a runner (queue_timeout_s)",
        "startup_timeout": f"starting a runner took longer than {spec.startup_timeout_s} s (startup_timeout_s)",
        "timeout": f"the attempt ran longer than {spec.timeout_s} s (timeout_s)",
        "deadline_exceeded": f"the job did not end within {spec.deadline_s} s of its call (deadline_s)",
    }[code]
    return RemoteError("apothic.JobTimedOut", message, code=code)
