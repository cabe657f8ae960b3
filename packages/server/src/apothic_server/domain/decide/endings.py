"""What the end of an attempt makes of its job: success, failure, or another attempt after a delay."""

from __future__ import annotations

from dataclasses import dataclass

from apothic.wire.functions import FunctionSpec
from apothic.wire.limits import INFRASTRUCTURE_LOSSES_MAX
from apothic.wire.values import RemoteError
from apothic_server.domain.decide.limits import STOPPED_BY_WORKERS, limit_error
from apothic_server.domain.groups import Part
from apothic_server.domain.jobs import JobEvent, JobStatus

NEVER_RETRIED = frozenset(
    {
        "python_mismatch",
        "python_not_available",
        "image_build_failed",
        "arguments_unreadable",
        "result_unserializable",
        "result_too_large",
        "generator_not_supported",
        "deadline_exceeded",
    }
)
"""Failures that the same code and arguments repeat for certain, and the one that leaves no time."""

UNSTARTED_MAX = 8
"""Grants in a row that never reached user code and cost nothing; the next one counts as a loss."""

LOSS_DELAY_S_MAX = 30.0
"""Longest delay before the attempt after a lost one, without jitter."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt ended, as its worker or the sweeper tells it; outcomes as in `apothic.wire.link.Finished`.

    Attributes:
        never_started: Its worker says that user code was never handed the call, and never will be.
        part: What became of the items of a chunk; None for any other job, and when nobody said it.
    """

    outcome: str
    error: RemoteError | None
    never_started: bool = False
    part: Part | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """Attempts so far: all grants, and those of them lost to infrastructure.

    Attributes:
        has_items: One of them published an item.
        unstarted: Grants in a row that never reached user code, this one not counted.
    """

    attempt: int
    losses: int
    has_items: bool = False
    unstarted: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """The move to make.

    Attributes:
        event: Move of table J.
        losses: New count of lost grants.
        delay_s: Seconds before the next attempt; 0 unless `event` is RETRY.
        is_unused: The grant was none: the next attempt has the same number.
    """

    event: JobEvent
    error: RemoteError | None
    losses: int
    delay_s: float = 0.0
    is_unused: bool = False


def judge(status: JobStatus, ended: Ended, tally: Tally, spec: FunctionSpec, jitter: float) -> Verdict:
    """Return the move after an attempt ended (J4, J5, J6, J9, J10).

    Args:
        status: Status before; STARTING, RUNNING or CANCELLING.
        jitter: Random number in [0, 1), spread over the delay (G2.4).
    """
    if status is JobStatus.CANCELLING:
        return Verdict(JobEvent.STOPPED, None, tally.losses)
    if ended.outcome == "succeeded" and status is JobStatus.RUNNING:
        return Verdict(JobEvent.SUCCEEDED, None, tally.losses)
    if ended.outcome in ("failed", "timed_out"):
        return _user_failure(_in_our_words(ended, spec), tally, spec, jitter)
    if ended.never_started and status is JobStatus.STARTING and tally.unstarted < UNSTARTED_MAX:
        return Verdict(JobEvent.RETRY, ended.error, tally.losses, is_unused=True)
    return _lost(ended, tally, spec, jitter)


def retry_delay_s(retry: int, spec: FunctionSpec, jitter: float) -> float:
    """Return the delay before retry number `retry` (1, 2, …), clamped to [1 s, max] plus 0 to 10 % jitter (G2.4)."""
    exponent = min(retry - 1, 64)
    delay = spec.retry_initial_delay_s * spec.retry_backoff_coefficient**exponent
    return max(1.0, min(delay, spec.retry_max_delay_s)) * (1 + 0.1 * jitter)


def delay_s_max(spec: FunctionSpec) -> float:
    """Return the longest delay before any attempt of a function, jitter included."""
    return 1.1 * max(1.0, spec.retry_max_delay_s, LOSS_DELAY_S_MAX)


def _user_failure(ended: Ended, tally: Tally, spec: FunctionSpec, jitter: float) -> Verdict:
    retries_used = tally.attempt - tally.losses - 1
    is_retryable = not spec.at_most_once and (ended.error is None or ended.error.code not in NEVER_RETRIED)
    if is_retryable and retries_used < spec.max_retries:
        delay = retry_delay_s(retries_used + 1, spec, jitter)
        return Verdict(JobEvent.RETRY, ended.error, tally.losses, delay)
    final = JobEvent.TIMED_OUT if ended.outcome == "timed_out" else JobEvent.FAILED
    return Verdict(final, ended.error, tally.losses)


def _in_our_words(ended: Ended, spec: FunctionSpec) -> Ended:
    """A limit is told alike whether a worker or the server enforced it."""
    if ended.outcome != "timed_out" or ended.error is None or ended.error.code not in STOPPED_BY_WORKERS:
        return ended
    return Ended("timed_out", limit_error(ended.error.code, spec))


def _lost(ended: Ended, tally: Tally, spec: FunctionSpec, jitter: float) -> Verdict:
    losses = tally.losses + 1
    error = ended.error or RemoteError(
        "apothic.WorkerLost", "the worker that executed the attempt is gone", code="worker_lost"
    )
    # Somebody may have seen items, so only who asked for retries gets them a second time (G2.8).
    may_repeat = not spec.at_most_once and (not tally.has_items or spec.max_retries > 0)
    if may_repeat and losses <= INFRASTRUCTURE_LOSSES_MAX:
        delay = 0.0 if losses == 1 else min(2.0 ** (losses - 2), LOSS_DELAY_S_MAX) * (1 + 0.1 * jitter)
        return Verdict(JobEvent.RETRY, error, losses, delay)
    return Verdict(JobEvent.FAILED, error, losses)
