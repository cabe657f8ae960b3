"""What is decided about due ticks: missed ones, overlapping ones, and that each is decided about once."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apothic.wire.ids import AppId, DeploymentId, FunctionId, KeyId, OrgId, ScheduleId
from apothic.wire.schedules import ScheduleSpec
from apothic_server.domain.decide.ticks import CATCH_UP_MAX, ON_TIME, WINDOW, fire_time, passed_over, plan_ticks
from apothic_server.domain.schedules import Schedule, SkipReason
from apothic_server.domain.timing import dues, next_due
from apothic_server.testing.guarantees import guarantee

START = datetime(2030, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ROOM = 1_000
DOWN = [0, 1, 29, 31, 59, 61, 300, 3_599, 3_601, 7_200, 86_400, 30 * 86_400]


def schedule(spec=ScheduleSpec(period_s=60), **fields):  # noqa: B008 - immutable
    first = next_due(spec, START, START)
    made = Schedule(
        id=ScheduleId("s"), org=OrgId("o"), app=AppId("a"), function=FunctionId("f"), app_name="app",
        function_name="work", deployment=DeploymentId("d"), created_by=KeyId("k"), spec=spec, anchor=START,
        next_due=first, fire_at=first, waiting_due=None, jobs=(), revision=0, created_at=START, paused_at=None,
        ended_at=None,
    )  # fmt: skip
    return replace(made, **{"fire_at": fire_time(made, first), **fields})


def told(plan):
    return sum(skipped.count for skipped in plan.skipped)


@guarantee("G10.2", "missed_ticks_matrix")
@pytest.mark.parametrize("down_s", DOWN)
@pytest.mark.parametrize("catch_up", ["latest", "skip", "all"])
@pytest.mark.parametrize("period_s", [1, 60, 3_600, 86_400])
def test_missed_ticks(down_s, catch_up, period_s):
    spec = ScheduleSpec(period_s=period_s, catch_up=catch_up, overlap="allow")
    now = START + timedelta(seconds=down_s)
    due = [START + timedelta(seconds=n) for n in range(period_s, down_s + 1, period_s)]
    on_time = [tick for tick in due if tick >= now - ON_TIME]
    late = [tick for tick in due if now - WINDOW < tick < now - ON_TIME]

    plan = plan_ticks(schedule(spec), now, running=0, room=100_000)

    made_up = {"skip": [], "latest": [] if on_time else late[-1:], "all": late[-CATCH_UP_MAX:]}[catch_up]
    assert plan.runs == made_up + on_time
    assert plan.next_due == START + timedelta(seconds=(down_s // period_s + 1) * period_s)
    assert plan.fire_at == plan.next_due
    is_more = any(skipped.is_more for skipped in plan.skipped)
    assert told(plan) + len(plan.runs) == len(due) or is_more
    assert {skipped.reason for skipped in plan.skipped} <= {
        SkipReason.MISSED, SkipReason.TOO_LATE, SkipReason.TOO_MANY_MISSED
    }  # fmt: skip


@guarantee("G10.2", "missed_ticks_matrix")
def test_a_tick_older_than_the_window_is_not_made_up_for_and_the_schedule_goes_on():
    daily = schedule(ScheduleSpec("0 12 * * *"))

    plan = plan_ticks(daily, START + timedelta(hours=13, seconds=1), running=0, room=ROOM)

    assert plan.runs == []
    assert [(one.reason, one.count) for one in plan.skipped] == [(SkipReason.TOO_LATE, 1)]
    assert plan.next_due == START + timedelta(hours=36)


@guarantee("G10.4", "overlap_policies")
@pytest.mark.parametrize(
    ("overlap", "running", "waiting", "runs", "waits", "cancels", "reasons"),
    [
        ("skip", 0, False, 1, False, False, []),
        ("skip", 1, False, 0, False, False, [SkipReason.OVERLAP]),
        ("allow", 3, False, 1, False, False, []),
        ("cancel_previous", 0, False, 1, False, False, []),
        ("cancel_previous", 2, False, 1, False, True, []),
        ("queue_one", 0, False, 1, False, False, []),
        ("queue_one", 1, False, 0, True, False, []),
        ("queue_one", 1, True, 0, True, False, [SkipReason.ONE_WAITS]),
        ("queue_one", 0, True, 1, True, False, []),
    ],
)
def test_overlap(overlap, running, waiting, runs, waits, cancels, reasons):
    earlier = START - MINUTE if waiting else None
    one = schedule(ScheduleSpec(period_s=60, overlap=overlap), waiting_due=earlier)

    plan = plan_ticks(one, START + MINUTE, running=running, room=ROOM)

    assert (len(plan.runs), plan.waiting_due is not None, plan.cancels) == (runs, waits, cancels)
    assert [skipped.reason for skipped in plan.skipped] == reasons
    if waiting and not running:
        assert (plan.runs, plan.waiting_due) == ([earlier], START + MINUTE)


@guarantee("G10.4", "overlap_policies")
def test_a_tick_that_waits_runs_once_nothing_runs_though_no_other_is_due():
    one = schedule(ScheduleSpec(period_s=60, overlap="queue_one"), waiting_due=START)

    plan = plan_ticks(one, START, running=0, room=ROOM)

    assert (plan.runs, plan.waiting_due, plan.next_due) == ([START], None, START + MINUTE)


@guarantee("G10.4", "overlap_policies")
def test_of_several_that_replace_each_other_the_last_runs():
    one = schedule(ScheduleSpec(period_s=5, overlap="cancel_previous"))

    plan = plan_ticks(one, START + timedelta(seconds=15), running=0, room=ROOM)

    assert plan.runs == [START + timedelta(seconds=15)]
    assert [(one.reason, one.count) for one in plan.skipped] == [(SkipReason.OVERLAP, 2)]


def test_a_function_whose_queue_is_full_gets_no_job_and_nothing_is_cancelled_for_it():
    one = schedule(ScheduleSpec(period_s=60, overlap="cancel_previous"))

    plan = plan_ticks(one, START + MINUTE, running=1, room=0)

    assert (plan.runs, plan.cancels) == ([], False)
    assert [skipped.reason for skipped in plan.skipped] == [SkipReason.TOO_MANY_PENDING]


@given(
    st.sampled_from([("latest", "skip"), ("skip", "queue_one"), ("all", "allow"), ("latest", "cancel_previous")]),
    st.sampled_from([{"period_s": 7.0}, {"period_s": 600.0}, {"cron": "*/5 * * * *"}, {"cron": "0 3 * * *"}]),
    st.sampled_from([0.0, 5.0]),
    st.lists(st.tuples(st.integers(0, 2_000), st.integers(0, 2)), max_size=30),
)
def test_each_tick_runs_once_waits_or_is_left_out_and_none_twice(policies, timing, jitter_s, looks):
    spec = ScheduleSpec(**timing, catch_up=policies[0], overlap=policies[1], jitter_s=jitter_s)
    one, now, ran, left = schedule(spec), START, [], 0
    for seconds, running in looks:
        now += timedelta(seconds=seconds)
        plan = plan_ticks(one, now, running=running, room=ROOM)
        ran += plan.runs
        left += told(plan)
        one = replace(one, next_due=plan.next_due, fire_at=plan.fire_at, waiting_due=plan.waiting_due)

    decided = [due for due in _upto(spec, now) if due < one.next_due]
    assert len(ran) == len(set(ran))
    assert set(ran) <= set(decided)
    assert len(ran) + left + (one.waiting_due is not None) == len(decided)
    assert one.fire_at == fire_time(one, one.next_due) > now


def test_what_passed_during_a_pause_is_told_with_a_bounded_count():
    one = schedule(ScheduleSpec(period_s=1), waiting_due=START)

    waited, passed = passed_over(one, START + timedelta(days=30), SkipReason.PAUSED)

    assert (waited.first, waited.count) == (START, 1)
    assert (passed.first, passed.count, passed.is_more) == (START + timedelta(seconds=1), 1_000, True)


def _upto(spec, end):
    for due in dues(spec, START, START):
        if due > end:
            return
        yield due
