"""Each check of the judge: good data passes, and each planted fault is found under its invariant."""

import dataclasses

import pytest

from . import checker, growth
from .checker import Execution, Expectation, Violation
from .history import (
    Accepted,
    CancelAnswered,
    CancelAsked,
    Ended,
    History,
    HistoryFile,
    Read,
    Refused,
    Unanswered,
    read_history,
)
from .stored import StoredEvent, StoredJob

EXPECTED = {
    "long": Expectation(outlives_leases=True),
    "quick": Expectation(),
    "fails": Expectation(ends=frozenset(), codes=frozenset({"exception"})),
    "once": Expectation(codes=frozenset({"worker_lost"}), is_once=True),
}


def events(*told):
    return tuple(StoredEvent(index=index, kind=kind, data=data) for index, (kind, data) in enumerate(told))


def granted(attempt):
    return ("job.status", {"status": "starting", "previous": "queued", "attempt": attempt})


def job(**changes):
    """A job that was lost once and then succeeded."""
    told = events(
        ("job.queued", {}),
        granted(1),
        ("job.running", {"attempt": 1}),
        ("job.error", {"code": "worker_lost"}),
        ("job.status", {"status": "retrying", "attempt": 1}),
        granted(2),
        ("job.running", {"attempt": 2}),
        ("job.result", {"attempt": 2}),
        ("job.end", {"status": "succeeded"}),
    )
    known = StoredJob(
        id="j1", status="succeeded", attempt=2, fence=2, losses=1, token="t1", result='"t1"', next_index=9, events=told
    )
    return dataclasses.replace(known, **changes)


TWICE = events(
    ("job.queued", {}),
    granted(1),
    ("job.running", {"attempt": 1}),
    ("job.status", {"status": "retrying", "attempt": 1}),
    granted(1),
    ("job.running", {"attempt": 1}),
    ("job.result", {"attempt": 1}),
    ("job.end", {"status": "succeeded"}),
)


def failed(code="exception", **changes):
    told = events(
        ("job.queued", {}),
        granted(1),
        ("job.running", {}),
        ("job.error", {"code": code}),
        ("job.end", {"status": "failed"}),
    )
    known = StoredJob(id="j2", status="failed", attempt=1, fence=1, token="t2", code=code, next_index=5, events=told)
    return dataclasses.replace(known, **changes)


def stored(*jobs):
    return {one.id: one for one in jobs}


def history(*records):
    found = History()
    for one in records:
        found.add(one)
    return found


def accepted(job="j1", token="t1", function="quick", key=""):
    return Accepted(at=1.0, job=job, token=token, function=function, key=key)


def read(*told, after=-1, is_whole=True):
    return Read(at=2.0, job="j1", reader="r", after=after, events=list(told), is_whole=is_whole)


def whole(begin=0):
    return [(event.index, event.kind) for event in job().events[begin:]]


def run(began, ended, *, finished=True, token="t1"):
    return Execution(token=token, pid=int(began), began=began, ended=ended, has_finished=finished)


RUNS = [run(1.0, 2.0, finished=False), run(3.0, 4.0), run(5.0, 6.0, token="t2", finished=False)]
GOOD = history(
    accepted(),
    accepted(job="j2", token="t2", function="fails", key="k2"),
    Ended(at=3.0, job="j1", status="succeeded", result='"t1"'),
    Ended(at=3.0, job="j2", status="failed", code="exception"),
    CancelAsked(at=4.0, job="j1"),
    CancelAnswered(at=4.0, job="j1", status="succeeded"),
    read(*whole()),
    read(*whole(4), after=3),
    read(*whole()[:3], is_whole=False),
    read((7, "job.reset"), (8, "job.end"), after=2),
    Refused(at=1.0, token="t3", status=503, code="unavailable"),
    Unanswered(at=1.0, token="t4", why="reset"),
)


def everything(told, rows, runs):
    """All checks that read clients, user code and the store."""
    return [
        *checker.acknowledged_jobs_exist(told, rows),
        *checker.rows_are_whole(rows),
        *checker.ends_never_change(told, rows),
        *checker.cancels_hold(told, rows),
        *checker.nothing_is_stuck(rows),
        *checker.attempts_are_dense(rows),
        *checker.executions_fit_attempts(runs, rows),
        *checker.ends_are_explained(runs, rows, told, EXPECTED),
        *checker.executions_do_not_overlap(runs),
        *checker.streams_are_dense(rows),
        *checker.readers_saw_the_stream(told, rows),
        *checker.one_job_per_key(told, rows),
    ]


def test_a_run_that_went_well_is_found_good():
    assert everything(GOOD, stored(job(), failed()), RUNS) == []


def without(position):
    return tuple(event for event in job().events if event.index != position)


DOUBLE_END = (*job().events, StoredEvent(index=9, kind="job.end", data={"status": "failed"}))

BAD_ROWS = {
    "the job is missing": (stored(failed()), "I1"),
    "it holds another call": (stored(job(token="other", result='"other"'), failed()), "I1"),
    "a status outside the nine": (stored(job(status="lost"), failed()), "I1"),
    "two ends": (stored(job(next_index=10, events=DOUBLE_END), failed()), "I1"),
    "an end that says another status": (stored(job(status="failed"), failed()), "I1"),
    "no result event": (stored(job(events=without(7)), failed()), "I1"),
    "a failure without an error": (stored(job(), failed(events=failed().events[:3] + failed().events[4:])), "I1"),
    "told otherwise": (stored(job(result='"other"'), failed()), "I1"),
    "still running": (stored(job(status="running"), failed()), "I2"),
    "an attempt too many": (stored(job(attempt=3, fence=3), failed()), "I3"),
    "an attempt that user code began and nobody counts": (stored(job(attempt=1, fence=2), failed()), "I3"),
    "a number that is given again after user code began": (stored(job(attempt=1, events=TWICE), failed()), "I3"),
    "a fence that fell behind": (stored(job(fence=1), failed()), "I3"),
    "an unexpected failure": (stored(job(), failed(code="internal")), "I1"),
    "a hole in the stream": (stored(job(events=without(2)), failed()), "I5"),
    "more promised than written": (stored(job(next_index=11), failed()), "I5"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_store_that_lost_or_changed_something_is_found(name):
    rows, invariant = BAD_ROWS[name]

    assert invariant in {one.invariant for one in everything(GOOD, rows, RUNS)}


def test_a_grant_that_never_reached_user_code_has_no_number_of_its_own():
    told = events(
        ("job.queued", {}),
        granted(1),
        ("job.status", {"status": "retrying", "attempt": 1}),
        granted(1),
        ("job.running", {"attempt": 1}),
        ("job.error", {"code": "worker_lost"}),
        ("job.status", {"status": "retrying", "attempt": 1}),
        granted(2),
        ("job.cancelled", {}),
    )

    assert checker.attempts_are_dense(stored(job(attempt=1, events=told))) == []
    assert checker.attempts_are_dense(stored(job(attempt=2, events=told))) == []
    assert checker.attempts_are_dense(stored(job(attempt=3, fence=3, events=told))) != []


BAD_HISTORY = {
    "succeeded after a cancel": (CancelAnswered(at=1.0, job="j1", status="cancelling"), "I1"),
    "succeeded after it was cancelled": (CancelAnswered(at=1.0, job="j1", status="cancelled"), "I1"),
    "two ends were told": (Ended(at=9.0, job="j1", status="failed", code="exception"), "I1"),
    "another result was told": (Ended(at=9.0, job="j1", status="succeeded", result='"t9"'), "I1"),
    "an end of nothing": (Ended(at=9.0, job="j9", status="failed"), "I1"),
    "a gap": (read(*whole()[:2], *whole()[3:]), "I5"),
    "a repeat": (read(*whole()[:2], *whole()[1:]), "I5"),
    "an old event after a resume": (read(*whole(2), after=3), "I5"),
    "another kind": (read((0, "job.end"), is_whole=False), "I5"),
    "an end too early": (read(*whole()[:4]), "I5"),
    "an event that was never written": (read(*whole(), (9, "job.log")), "I5"),
    "events of nothing": (Read(at=1.0, job="j9", reader="r", after=-1, events=[], is_whole=False), "I5"),
    "two jobs of one key": (accepted(job="j1", token="t1", key="k2"), "I11"),
}


@pytest.mark.parametrize("name", BAD_HISTORY)
def test_a_client_that_was_told_something_else_is_found(name):
    record, invariant = BAD_HISTORY[name]
    told = history(*GOOD.accepted, *GOOD.ended, *GOOD.reads, record)

    assert invariant in {one.invariant for one in everything(told, stored(job(), failed()), RUNS)}


def test_a_second_job_of_one_key_is_found_in_the_store():
    told = history(accepted(key="k1"))
    twin = job(id="j3")

    assert [one.invariant for one in checker.one_job_per_key(told, stored(job(), twin))] == ["I11"]


BAD_RUNS = {
    "three runs in two attempts": ([*RUNS, run(7.0, 8.0)], "I3"),
    "a success that never ran to its end": ([run(1.0, 2.0, finished=False), RUNS[2]], "I3"),
    "two at once": ([run(1.0, 3.5), run(3.0, 4.0), RUNS[2]], "I4"),
    "one that never ended": ([run(1.0, None, finished=False), run(3.0, 4.0), RUNS[2]], "I4"),
}


@pytest.mark.parametrize("name", BAD_RUNS)
def test_user_code_that_ran_too_often_or_at_once_is_found(name):
    runs, invariant = BAD_RUNS[name]

    assert invariant in {one.invariant for one in everything(GOOD, stored(job(), failed()), runs)}


def test_an_overlap_while_a_machine_was_frozen_is_excused():
    runs = [run(1.0, 3.5), run(3.0, 4.0)]

    assert checker.executions_do_not_overlap(runs, [(2.5, 3.2)]) == []
    assert len(checker.executions_do_not_overlap(runs, [(3.2, 9.0)])) == 1


def test_a_second_run_of_a_call_that_may_run_once_is_found():
    told = history(accepted(function="once"))

    found = checker.ends_are_explained(RUNS[:2], stored(job()), told, EXPECTED)

    assert found == [Violation("I3", "j1", "may run once and ran 2 times")]


@pytest.mark.parametrize(
    ("function", "attempt", "losses", "is_found"),
    [("long", 9, 9, False), ("long", 8, 8, True), ("long", 9, 8, True), ("quick", 9, 9, True)],
)
def test_only_a_long_call_may_use_up_its_losses_and_only_all_of_them(function, attempt, losses, is_found):
    ended = job(status="failed", code="worker_lost", result=None, attempt=attempt, losses=losses)

    found = checker.ends_are_explained([], stored(ended), history(accepted(function=function)), EXPECTED)

    assert [one.invariant for one in found] == ["I1"] * is_found


def test_a_cancel_that_nobody_asked_for_is_found():
    ended = job(status="cancelled", result=None)

    found = checker.ends_are_explained([], stored(ended), history(accepted()), EXPECTED)

    assert [one.what for one in found] == ["was cancelled by nobody"]


def test_what_is_left_on_the_host_is_found_by_kind():
    before = {"process": {1, 2}, "mount": {"/"}}

    assert checker.nothing_is_left(before, {"process": {2}, "mount": {"/"}}) == []
    assert [str(one) for one in checker.nothing_is_left(before, {"process": {2, 7}, "mount": {"/", "/x"}})] == [
        "I14 mount: left behind: /x",
        "I14 process: left behind: 7",
    ]


def test_growth_over_the_last_half_is_found_and_a_first_rise_is_not():
    rises = [(float(t), 100.0 + t) for t in range(20)]
    settles = [(float(t), min(100.0 + 5 * t, 140.0)) for t in range(40)]

    assert growth.is_flat("rss", rises, slack=5.0)
    assert growth.is_flat("rss", settles, slack=5.0) == []


@pytest.mark.parametrize(
    "line",
    [
        "Traceback (most recent call last):",
        "Task was destroyed but it is pending!",
        "Future exception was never retrieved",
        '{"event": "loop.crashed", "level": "error"}',
        '{"event": "request.failed", "level": "info", "exception": "ValueError"}',
        "PANIC:  could not locate a valid checkpoint record",
    ],
)
def test_a_line_that_tells_of_a_swallowed_failure_is_found(line):
    assert len(checker.logs_are_clean({"server.log": ["fine", line]})) == 1


def test_lines_that_faults_explain_are_allowed():
    lines = ['{"event": "store.died", "level": "error"}', '{"event": "link.opened", "level": "info"}', "plain words"]

    assert checker.logs_are_clean({"server.log": lines}, frozenset({"store.died"})) == []


def test_a_history_is_read_back_as_it_was_written(tmp_path):
    file = HistoryFile(tmp_path / "history.jsonl")
    for one in (*GOOD.accepted, *GOOD.ended, *GOOD.asked, *GOOD.cancels, *GOOD.reads, *GOOD.refused, *GOOD.unanswered):
        file.add(one)
    file.close()

    assert read_history(tmp_path / "history.jsonl") == GOOD == file.history
