"""What the end of an attempt makes of its job."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apothic.wire.functions import FunctionSpec
from apothic.wire.limits import INFRASTRUCTURE_LOSSES_MAX
from apothic.wire.values import RemoteError
from apothic_server.domain.decide.endings import NEVER_RETRIED, Ended, Tally, judge, retry_delay_s
from apothic_server.domain.jobs import JOB, JobEvent, JobStatus
from apothic_server.testing.guarantees import guarantee

ERROR = RemoteError("builtins.ValueError", "no")
HELD = (JobStatus.STARTING, JobStatus.RUNNING, JobStatus.CANCELLING)
OUTCOMES = ("succeeded", "failed", "timed_out", "cancelled", "lost")


@given(
    st.sampled_from(HELD),
    st.sampled_from(OUTCOMES),
    st.integers(1, 20),
    st.integers(0, 12),
    st.integers(0, 3),
    st.floats(0, 0.999),
)
def test_every_verdict_is_a_move_of_the_table(status, outcome, attempt, losses, retries, jitter):
    spec = FunctionSpec("work", max_retries=retries)

    verdict = judge(status, Ended(outcome, ERROR), Tally(attempt, min(losses, attempt)), spec, jitter)

    assert JOB.allows(status, verdict.event)


@guarantee("G2.3", "budgets_separate")
def test_losses_do_not_use_retries_and_failures_do_not_use_losses():
    spec = FunctionSpec("work", max_retries=1)

    lost = judge(JobStatus.RUNNING, Ended("lost", None), Tally(1, 0), spec, 0.0)
    failed_after_loss = judge(JobStatus.RUNNING, Ended("failed", ERROR), Tally(2, 1), spec, 0.0)
    failed_again = judge(JobStatus.RUNNING, Ended("failed", ERROR), Tally(3, 1), spec, 0.0)

    assert (lost.event, lost.losses) == (JobEvent.RETRY, 1)
    assert (failed_after_loss.event, failed_after_loss.losses) == (JobEvent.RETRY, 1)
    assert failed_again.event is JobEvent.FAILED


@guarantee("G2.3", "poison_job_bounded")
def test_a_job_that_always_kills_its_worker_ends_within_nine_grants():
    spec, losses, grants = FunctionSpec("work"), 0, 0
    while True:
        grants += 1
        verdict = judge(JobStatus.RUNNING, Ended("lost", None), Tally(grants, losses), spec, 0.0)
        losses = verdict.losses
        if verdict.event is not JobEvent.RETRY:
            break

    assert grants == INFRASTRUCTURE_LOSSES_MAX + 1
    assert verdict.error is not None
    assert verdict.error.code == "worker_lost"


@pytest.mark.parametrize("status", [JobStatus.STARTING, JobStatus.RUNNING])
@pytest.mark.parametrize("outcome", ["failed", "timed_out", "cancelled", "lost"])
def test_at_most_once_leaves_no_second_attempt(status, outcome):
    spec = FunctionSpec("work", at_most_once=True)

    verdict = judge(status, Ended(outcome, None), Tally(1, 0), spec, 0.0)

    assert JOB.fire(status, verdict.event).is_final


def test_at_most_once_says_that_the_worker_was_lost():
    verdict = judge(JobStatus.RUNNING, Ended("lost", None), Tally(1, 0), FunctionSpec("work", at_most_once=True), 0.0)

    assert verdict.event is JobEvent.FAILED
    assert verdict.error is not None
    assert verdict.error.code == "worker_lost"


@guarantee("G2.4", "retry_delay_law")
@given(st.integers(1, 100), st.floats(0, 100), st.floats(1, 10), st.floats(1, 3600), st.floats(0, 0.999))
def test_delays_grow_by_the_coefficient_and_stay_in_bounds(retry, initial, coefficient, longest, jitter):
    spec = FunctionSpec(
        "work", retry_initial_delay_s=initial, retry_backoff_coefficient=coefficient, retry_max_delay_s=longest
    )
    law = initial * coefficient ** min(retry - 1, 64)
    clamped = max(1.0, min(law, longest))

    delay = retry_delay_s(retry, spec, jitter)

    assert clamped <= delay <= clamped * 1.1


@guarantee("G4.1", "cancel_linearizable")
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_after_cancelling_every_report_ends_the_job_cancelled(outcome):
    verdict = judge(JobStatus.CANCELLING, Ended(outcome, ERROR), Tally(1, 0), FunctionSpec("work", max_retries=3), 0.0)

    assert verdict.event is JobEvent.STOPPED


@pytest.mark.parametrize("code", sorted(NEVER_RETRIED))
def test_what_would_fail_again_for_certain_is_not_tried_again(code):
    error = RemoteError("apothic.Error", "no", code=code)

    verdict = judge(JobStatus.RUNNING, Ended("failed", error), Tally(1, 0), FunctionSpec("work", max_retries=5), 0.0)

    assert verdict.event is JobEvent.FAILED


def test_a_timeout_without_budget_ends_timed_out():
    verdict = judge(JobStatus.RUNNING, Ended("timed_out", ERROR), Tally(1, 0), FunctionSpec("work"), 0.0)

    assert verdict.event is JobEvent.TIMED_OUT
