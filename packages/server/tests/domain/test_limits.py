"""When a job meets which time limit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apothic.wire.functions import FunctionSpec
from apothic_server.domain.decide.limits import limit_error, next_limit
from apothic_server.domain.jobs import JOB, JobEvent, JobStatus

LATE_S = 35.0
SECONDS = st.integers(1, 604_800)
WAITING = (JobStatus.QUEUED, JobStatus.RETRYING)


@given(st.sampled_from(JobStatus), SECONDS, SECONDS, SECONDS, st.none() | SECONDS, st.floats(0, 1e6), st.floats(0, 1e6))
def test_the_limit_is_the_first_of_the_two_and_comes_late_only_for_attempts(
    status, queue_s, startup_s, timeout_s, deadline_s, called_at, later_s
):
    spec = FunctionSpec(
        "work", queue_timeout_s=queue_s, startup_timeout_s=startup_s, timeout_s=timeout_s, deadline_s=deadline_s
    )
    since = called_at + later_s
    deadline_at = None if deadline_s is None else called_at + deadline_s
    own_s = {JobStatus.QUEUED: queue_s, JobStatus.RETRYING: queue_s, JobStatus.STARTING: startup_s}

    limit = next_limit(status, since=since, deadline_at=deadline_at, spec=spec, late_s=LATE_S)

    if not JOB.allows(status, JobEvent.TIMED_OUT):
        assert limit is None
        return
    late_s = 0.0 if status in WAITING else LATE_S
    moments = [since + own_s.get(status, timeout_s) + late_s]
    moments += [] if deadline_at is None else [deadline_at + late_s]
    assert limit is not None
    assert limit.at == pytest.approx(min(moments))
    assert limit_error(limit.code, spec).code == limit.code


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (JobStatus.QUEUED, "queue_timeout"),
        (JobStatus.RETRYING, "queue_timeout"),
        (JobStatus.STARTING, "startup_timeout"),
        (JobStatus.RUNNING, "timeout"),
    ],
)
def test_each_status_has_its_own_limit(status, code):
    limit = next_limit(status, since=0.0, deadline_at=None, spec=FunctionSpec("work"), late_s=LATE_S)

    assert limit is not None
    assert limit.code == code


def test_when_both_limits_are_over_at_once_nothing_is_tried_again():
    spec = FunctionSpec("work", timeout_s=60, deadline_s=60)

    limit = next_limit(JobStatus.RUNNING, since=5.0, deadline_at=65.0, spec=spec, late_s=LATE_S)

    assert limit is not None
    assert (limit.at, limit.code) == (100.0, "deadline_exceeded")
