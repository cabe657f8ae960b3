"""When schedules are due, over every clock change of every zone from 2000 to 2037, and that periods keep their beat."""

import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from cronsim import CronSim, CronSimError
from hypothesis import given
from hypothesis import strategies as st

from apothic.wire.schedules import FIELDS, ScheduleSpec, cron_fault
from apothic_server.domain.timing import dues, jitter_of, next_due
from apothic_server.testing.guarantees import guarantee

START, END = datetime(2000, 1, 1, tzinfo=UTC), datetime(2038, 1, 1, tzinfo=UTC)
STEP = timedelta(days=5)
ZONELESS = START.replace(tzinfo=None)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def offset_at(zone, instant):
    return instant.astimezone(zone).utcoffset()


def wall_at(zone, instant):
    return instant.astimezone(zone).replace(tzinfo=None)


def changes_of(zone):
    """Return (instant, offset before, offset after) of each change, found by looking and halving."""
    low, found = START, []
    before = offset_at(zone, low)
    while low < END:
        high = low + STEP
        after = offset_at(zone, high)
        if after != before:
            first, last = low, high
            while last - first > MINUTE:
                middle = first + ((last - first) // 2 // MINUTE) * MINUTE
                first, last = (middle, last) if offset_at(zone, middle) == before else (first, middle)
            found.append((last, before, offset_at(zone, last)))
        low, before = high, after
    return found


@pytest.fixture(scope="module")
def changes():
    """All changes of all zones; names for the same clock count once."""
    seen, table = {}, []
    for name in sorted(available_timezones()):
        found = tuple(changes_of(ZoneInfo(name)))
        if found and found not in seen:
            seen[found] = name
            table += [(name, *change) for change in found]
    assert len(table) > 5_000
    return table


def at(local, zone):
    """Return the schedule of one local minute of every year."""
    return ScheduleSpec(f"{local.minute} {local.hour} {local.day} {local.month} *", zone)


@guarantee("G10.3", "dst_table")
def test_a_local_time_in_a_gap_is_due_once_at_its_end_and_one_that_comes_twice_the_first_time(changes):
    wrong = []
    for name, instant, before, after in changes:
        wall_before = (instant + before).replace(tzinfo=None)
        size, is_gap = abs(after - before), after > before
        begin = wall_before if is_gap else wall_before - size
        for local in (begin, begin + size // 2 // MINUTE * MINUTE, begin + size - MINUTE):
            expected = instant if is_gap else (local - before).replace(tzinfo=UTC)
            found = list(itertools.islice(dues(at(local, name), START, instant - size - HOUR), 2))
            if found[0] != expected or found[1] - found[0] < 300 * DAY:
                wrong.append((name, instant, local, expected, found))

    assert wrong == []


@guarantee("G10.3", "dst_table")
def test_local_times_beside_a_change_are_due_at_their_only_instant(changes):
    wrong = []
    for name, instant, before, after in changes:
        zone = ZoneInfo(name)
        size = abs(after - before)
        for real in (instant - size - MINUTE, instant + size + MINUTE):
            local = wall_at(zone, real)
            if next_due(at(local, name), START, real - DAY // 2) != real:
                wrong.append((name, instant, local))

    assert wrong == []


@guarantee("G10.3", "dst_table")
def test_hourly_and_finer_lines_follow_real_time(changes):
    shapes = {((instant + before).time(), before, after): (name, instant) for name, instant, before, after in changes}
    for line, minutes in (("*/15 * * * *", {0, 15, 30, 45}), ("0 * * * *", {0}), ("7 0-23 * * *", {7})):
        for (_, before, after), (name, instant) in shapes.items():
            zone, spec = ZoneInfo(name), ScheduleSpec(line, name)
            begin = instant - abs(after - before) - HOUR
            every = [begin + n * MINUTE for n in range(1, 60 * 5)]
            expected = [one for one in every if wall_at(zone, one).minute in minutes]

            found = list(itertools.takewhile(lambda due, every=every: due <= every[-1], dues(spec, START, begin)))

            assert found == expected, (name, instant)


@guarantee("G10.3", "dst_table")
def test_several_times_in_one_gap_are_one_tick():
    spec = ScheduleSpec("*/10 2 * * *", "Europe/Berlin")
    day = datetime(2030, 3, 31, tzinfo=UTC)

    found = list(itertools.islice(dues(spec, day, day), 2))

    assert found == [day + HOUR, datetime(2030, 4, 1, 0, 0, tzinfo=UTC)]


def test_an_hourly_line_for_some_days_only_comes_twice_in_an_hour_that_does():
    spec = ScheduleSpec("*/30 * 27 10 *", "Europe/Berlin")
    begin = datetime(2030, 10, 27, 0, 29, tzinfo=UTC)  # 02:29 for the first time

    found = [due - begin for due in itertools.islice(dues(spec, begin, begin), 4)]

    assert found == [MINUTE, 31 * MINUTE, 61 * MINUTE, 91 * MINUTE]


@guarantee("G10.3", "period_no_drift")
@given(
    st.floats(1, 366 * 86_400).map(lambda seconds: round(seconds, 3)),
    st.datetimes(ZONELESS, ZONELESS + 13_500 * DAY, timezones=st.just(UTC)),
    st.integers(0, 10**9),
)
def test_a_period_counts_from_its_anchor_wherever_one_begins_to_look(period_s, anchor, later_s):
    spec, after = ScheduleSpec(period_s=period_s), anchor + timedelta(seconds=later_s)
    period_us = round(period_s * 1000) * 1000

    found = list(itertools.islice(dues(spec, anchor, after), 3))

    first = (found[0] - anchor) // timedelta(microseconds=1)
    assert [(due - anchor) // timedelta(microseconds=1) for due in found] == [first + n * period_us for n in range(3)]
    assert first % period_us == 0
    assert after < found[0] <= after + timedelta(microseconds=period_us)


@guarantee("G10.3", "period_no_drift")
def test_a_million_periods_later_the_beat_is_the_same():
    spec, anchor = ScheduleSpec(period_s=0.1 * 11), datetime(2030, 1, 1, tzinfo=UTC)

    last = next(itertools.islice(dues(spec, anchor, anchor), 999_999, None))

    assert last == anchor + timedelta(milliseconds=1_100 * 1_000_000)


LINES = st.tuples(
    *(
        st.lists(
            st.integers(field.low, field.high).map(str)
            | st.just("*")
            | st.tuples(st.integers(field.low, field.high), st.integers(field.low, field.high)).map(
                lambda ends: f"{ends[0]}-{ends[1]}"
            )
            | st.integers(0, field.high).map(lambda step: f"*/{step}")
            | st.sampled_from(["", "L", "LW", "5L", "1#2", "?", "-1", "MON", "jan", "1-2-3", "x", "１"]),  # noqa: RUF001 - a digit of another script
            min_size=1,
            max_size=3,
        ).map(",".join)
        for field in FIELDS
    )
).map(" ".join)


@given(LINES)
def test_what_the_check_takes_the_library_takes_too(line):
    if cron_fault(line) is None:
        try:
            CronSim(line, ZONELESS)
        except CronSimError as error:
            assert str(error) == "Bad day-of-month", line  # the 31st of short months: good fields that never come


@given(st.integers(1, 3_600), st.datetimes(timezones=st.just(UTC), min_value=ZONELESS))
def test_jitter_is_within_its_bound_and_the_same_each_time(jitter_s, due):
    spec = ScheduleSpec("* * * * *", jitter_s=jitter_s)

    late = jitter_of(spec, "one", due)

    assert timedelta() <= late < timedelta(seconds=jitter_s)
    assert late == jitter_of(spec, "one", due)


def test_jitter_spreads_over_schedules():
    spec = ScheduleSpec("0 0 * * *", jitter_s=100)
    late = [jitter_of(spec, f"schedule {n}", START).total_seconds() for n in range(1_000)]

    assert 45 < sum(late) / len(late) < 55
    assert min(late) < 1
    assert max(late) > 99
