"""Each check of the judge of maps: good data passes, and each planted fault is found under its invariant."""

import dataclasses
import random

import pytest

from ..checker import Execution
from ..history import CancelAnswered, CancelAsked, History
from ..stored import StoredEvent, StoredJob
from . import work
from .checker import Judge, Met
from .load import Mapped
from .outcomes import outcomes_of
from .stored import Group, Row, World

ITEMS = 10
SPEC = work.MapSpec(tag=3, items=ITEMS, key="map 3")
VALUES = tuple(work.value(SPEC, number) for number in range(ITEMS))
COUNTS = {"queued": 0, "running": 0, "retrying": 0, "succeeded": 10, "failed": 0, "cancelled": 0, "timed_out": 0}


def chunk(first, upto, **changes):
    """A chunk whose items all succeeded."""
    known = Row(
        id=f"g.{first}-7",
        first=first,
        status="succeeded",
        items=upto - first,
        done=upto - first,
        entries=VALUES[first:upto],
        attempt=1,
        finished=50.0,
    )
    return dataclasses.replace(known, **changes)


def own(number, **changes):
    """The row of one item that succeeded."""
    known = Row(id=f"g.{number}", first=number, status="succeeded", value=VALUES[number], attempt=1, finished=50.0)
    return dataclasses.replace(known, **changes)


def stream(*kinds, status="succeeded", counts=COUNTS):
    told = [StoredEvent(index=0, kind="group.created")]
    told += [
        StoredEvent(index=index, kind=kind, data={"counts": counts, "status": status})
        for index, kind in enumerate(kinds, 1)
    ]
    return StoredJob(id="g", status=status, attempt=0, fence=0, next_index=len(told), events=tuple(told))


ROWS = (chunk(0, 4), chunk(4, 4, status="failed"), own(4), chunk(5, 10))


def group(**changes):
    known = Group(
        id="g",
        function="steady",
        status="succeeded",
        key="map 3",
        uploaded=ITEMS,
        total=ITEMS,
        counts=COUNTS,
        finished=60.0,
        inputs=tuple((3, number) for number in range(ITEMS)),
        rows=ROWS,
        stream=stream("group.progress", "group.end"),
    )
    return dataclasses.replace(known, **changes)


def rows(*changed, without=()):
    """The rows of a good group, with these in the place of those that begin with the same item."""
    kept = [row for row in ROWS if row.id not in without and row.id not in {one.id for one in changed}]
    return group(rows=tuple(sorted([*kept, *changed], key=lambda row: (row.first, row.id))))


def run(number, began, ended, *, finished=True, pid=1):
    return Execution(token=f"3-{number}", pid=pid, began=began, ended=ended, has_finished=finished)


RUNS = [run(number, 40.0 + number, 40.5 + number) for number in range(ITEMS)]
TOLD = {"values": list(VALUES)}


def found(one, *, spec=SPEC, told=TOLD, runs=RUNS, faults=(), history=None, items=None):
    """The invariants that the judge finds broken."""
    maps = {spec.tag: Mapped("shape", spec, told)}
    world = World(groups=(one,) if isinstance(one, Group) else one, items=items or {})
    return sorted({bad.invariant for bad in Judge(world, maps, history or History(), runs, faults).judged()})


def test_a_map_that_went_well_is_found_good():
    assert found(group()) == []


def cut(row, **changes):
    return dataclasses.replace(row, **changes)


SHIFTED = chunk(0, 4, entries=(VALUES[1], VALUES[0], *VALUES[2:4]))
FAILED_ENTRY = chunk(0, 4, entries=(*VALUES[:3], {"code": "exception"}), failed=(3,))

BAD = {
    "a chunk that is not there": (rows(without=("g.5-7",)), ["I1", "I18"]),
    "two chunks over one item": (rows(chunk(3, 5, id="g.3-8")), ["I1"]),
    "an own row beside a chunk": (rows(own(2)), ["I1"]),
    "an own row over an entry that says otherwise": (rows(own(2, overlays="F")), ["I1"]),
    "outcomes under other numbers": (rows(SHIFTED), ["I1", "I18"]),
    "fewer entries than the row says": (rows(chunk(0, 4, entries=VALUES[:3])), ["I1", "I18"]),
    "a failure that the row does not count": (rows(cut(FAILED_ENTRY, failed=())), ["I1", "I18"]),
    "a failure that nothing explains": (rows(FAILED_ENTRY), ["I1", "I18"]),
    "a chunk that has not ended": (rows(chunk(0, 4, status="running", done=0, entries=())), ["I18", "I2"]),
    "a group that has not ended": (group(status="running", counts=None, stream=stream()), ["I2"]),
    "counts that are not those of the items": (group(counts={**COUNTS, "succeeded": 9}), ["I18"]),
    "a total that is not that of the items": (group(total=11), ["I18"]),
    "a status that is not that of the items": (group(status="failed"), ["I18"]),
    "cancelled by nobody": (group(status="cancelled"), ["I18"]),
    "stopped for nothing": (group(status="cancelled", code="stopped_after_failures"), ["I18"]),
    "no end in the stream": (group(stream=stream("group.progress")), ["I18"]),
    "inputs in another order": (group(inputs=((3, 1), (3, 0), *group().inputs[2:])), ["I1"]),
    "an input too many": (group(inputs=(*group().inputs, (3, 10))), ["I1"]),
    "two groups of one key": ((group(), group(id="h", rows=ROWS)), ["I11"]),
    "no group": ((), ["I11"]),
}


@pytest.mark.parametrize("name", BAD)
def test_a_store_that_lost_or_changed_something_is_found(name):
    one, invariants = BAD[name]

    assert found(one) == invariants


def test_successes_that_a_stream_takes_back_are_found():
    fewer = StoredEvent(index=2, kind="group.progress", data={"counts": {**COUNTS, "succeeded": 3}})
    told = stream("group.progress", "group.progress", "group.end")
    events = (*told.events[:2], fewer, told.events[3])

    assert found(group(stream=dataclasses.replace(told, events=events))) == ["I18"]


@pytest.mark.parametrize(
    "told",
    [
        {"values": [VALUES[1], VALUES[0], *VALUES[2:]]},
        {"values": list(VALUES[:-1])},
        {"values": [{"code": "exception"}, *VALUES[1:]]},
        {"values": list(VALUES), "twice": [4]},
        {"raised": 0, "code": "exception"},
    ],
)
def test_a_client_that_was_given_something_else_is_found(told):
    assert found(group(), told=told) == ["I18"]


def test_a_client_that_came_to_no_end_proves_nothing_and_breaks_nothing():
    assert found(group(), told=None) == []


LATE = [*RUNS, run(2, 54.0, 55.0)]
AGAIN = [run(2, 39.0, 39.2), *RUNS]


def test_an_item_that_begins_after_its_outcome_is_on_disk_is_found():
    assert found(group(), runs=LATE) == ["I3"]
    assert found(group(), runs=LATE, faults=[Met(at=53.0, ended=56.0)]) == ["I3"]
    assert found(group(), runs=LATE, faults=[Met(at=41.0, ended=56.0, is_freeze=True)]) == []


def test_an_item_that_ran_to_its_end_twice_is_found_unless_a_fault_met_it_in_flight():
    assert found(group(), runs=AGAIN) == ["I3"]
    assert found(group(), runs=AGAIN, faults=[Met(at=40.0, ended=40.0)]) == []
    assert found(group(), runs=AGAIN, faults=[Met(at=40.0, ended=40.0, pids=frozenset({2}))]) == ["I3"]
    assert found(group(), runs=AGAIN, faults=[Met(at=30.0, ended=38.0)]) == ["I3"]
    assert found(group(), runs=AGAIN, faults=[Met(at=44.0, ended=48.0)]) == ["I3"]


def test_a_success_that_never_ran_to_its_end_is_found():
    assert found(group(), runs=[run(0, 40.0, 40.1, finished=False), *RUNS[1:]]) == ["I1"]


FAILING = next(spec for tag in range(99) if work.does(spec := work.MapSpec(tag=tag, function="weak", fails=0.1), 0))
FAILED = Group(
    id="g",
    function="weak",
    status="failed",
    uploaded=1,
    total=1,
    counts={"failed": 1, "succeeded": 0},
    inputs=((FAILING.tag, 0),),
    rows=(Row(id="g.0", first=0, status="failed", code="exception", attempt=2, finished=50.0),),
    stream=stream("group.end", status="failed", counts={"failed": 1, "succeeded": 0}),
)


def failing(times, *, one=FAILED, **more):
    token = work.token(FAILING, 0)
    runs = [Execution(token=token, pid=1, began=40.0 + n, ended=40.5 + n) for n in range(times)]
    return found(one, spec=FAILING, told={"raised": 0, "code": "exception"}, runs=runs, **more)


def test_a_failure_was_tried_as_often_as_its_function_says():
    assert failing(2) == []
    assert failing(1) == ["I1"]


def test_no_more_items_die_than_processes_were_killed():
    died = cut(FAILED.rows[0], code="killed_by_signal")
    one = dataclasses.replace(FAILED, rows=(died,))

    assert failing(2, one=one, faults=[Met(at=40.0, ended=45.0, place="user", pids=frozenset({1}))]) == []
    assert failing(2, one=one, faults=[Met(at=40.0, ended=45.0, place="server")]) == ["I1"]


def cancelled(**changes):
    counts = {**COUNTS, "succeeded": 9, "cancelled": 1}
    return dataclasses.replace(
        rows(own(4, status="cancelled", value=None)),
        status="failed",
        counts=counts,
        stream=stream("group.end", status="failed", counts=counts),
        **changes,
    )


def asked(status, job="g.4"):
    history = History()
    history.add(CancelAsked(at=1.0, job=job))
    history.add(CancelAnswered(at=1.0, job=job, status=status))
    return history


GIVEN = {"values": [*VALUES[:4], {"code": "cancelled"}, *VALUES[5:]]}


def test_an_item_is_cancelled_when_that_was_answered_and_only_then():
    assert found(cancelled(), told=GIVEN, history=asked("cancelling")) == []
    assert found(cancelled(), told=GIVEN) == ["I1"]
    assert found(cancelled(), told=TOLD, history=asked("cancelled")) == ["I18"]
    assert found(group(), history=asked("running")) == []
    assert found(group(), history=asked("cancelling")) == ["I1"]
    assert found(group(), history=asked("cancelled", job="g")) == ["I1"]


SAYING = next(spec for tag in range(999) if work.does(spec := work.MapSpec(tag=tag, says=0.01), 0))


def log(*lines):
    told = [
        StoredEvent(index=n, kind="job.log", data={"stream": "stdout", "line": line}) for n, line in enumerate(lines)
    ]
    return StoredJob(id="g.0", status="succeeded", attempt=1, fence=1, events=tuple(told))


@pytest.mark.parametrize(
    ("lines", "is_found"),
    [
        (["1 0", "1 1"], False),
        (["1 0", "2 0", "2 1"], True),
        (["1 0", "1 0", "1 1"], True),
        (["1 0"], True),
        ([], True),
    ],
)
def test_output_is_there_once(lines, is_found):
    token = work.token(SAYING, 0)
    one = dataclasses.replace(
        FAILED,
        function="steady",
        status="succeeded",
        counts={"succeeded": 1},
        inputs=((SAYING.tag, 0),),
        rows=(Row(id="g.0", first=0, status="succeeded", value=work.value(SAYING, 0), finished=50.0),),
        stream=stream("group.end", counts={"succeeded": 1}),
    )
    runs = [Execution(token=token, pid=1, began=40.0, ended=40.5, has_finished=True)]
    told = {"values": [work.value(SAYING, 0)]}
    items = {"g.0": log(*(f"{token} {line}" for line in lines))}

    assert found(one, spec=SAYING, told=told, runs=runs, items=items) == ["I19"] * is_found


def test_what_never_began_has_the_outcome_of_its_group():
    told, wrong = outcomes_of(group(rows=(), status="cancelled", code="stopped_after_failures"))

    assert wrong == []
    assert {(one.status, one.code) for one in told} == {("cancelled", "stopped_after_failures")}


def test_maps_of_a_seed_are_the_same_and_no_two_items_alike():
    first, second = (
        [spec for _, spec in zip(range(12), work.specs(random.Random(4), items=50, life_s=3.0), strict=False)]
        for _ in range(2)
    )
    values = [work.value(spec, number) for _, spec in first for number in range(spec.items)]

    assert first == second
    assert len(set(values)) == 12 * 50
    assert work.MapSpec.of(first[0][1].text()) == first[0][1]
    assert {shape.name for shape, _ in first[: len(work.SHAPES)]} == {shape.name for shape in work.SHAPES}
