"""`Cron` and `Period`: what they take, and errors that say what is wrong and what is allowed."""

import subprocess
import sys

import pytest

from apothic import App, Cron, InvalidRequestError, Period
from apothic.schedules import schedule_of_spec
from apothic.wire.schedules import ScheduleSpec


def nightly():
    return 1


def given(schedule, function=nightly):
    app = App("reports")
    app._module = function.__module__
    return app.function(schedule=schedule)(function)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("* * * *", "five fields (minute, hour, day of month, month, day of week), this one has 4"),
        ("", "this one has 0"),
        ("0 0 * * * *", "seconds are not part of it"),
        ("@hourly", "for @hourly write `0 * * * *`"),
        ("61 * * * *", "minute '61': '61' is not allowed; allowed are numbers from 0 to 59"),
        ("* 25 * * *", "hour '25'"),
        ("* * 32 * *", "day of month '32'"),
        ("* * * 0 *", "month '0'"),
        ("* * * * 8", "day of week '8'"),
        ("* * * FOO *", "JAN to DEC"),
        ("5-1 * * * *", "the range '5-1' runs backwards"),
        ("*/0 * * * *", "step '0'"),
        ("*/99 * * * *", "step '99'"),
        ("1,,3 * * * *", "an entry is empty"),
        ("-5 * * * *", "an entry is empty"),
        ("１ * * * *", "not allowed"),  # noqa: RUF001 - a digit of another script
        ("* " * 300, "at most 512 characters"),
        ("0 0 31 2 *", "never comes due: the months it names have at most 29 days"),
        ("0 0 31,31 APR-JUN/2,9,11 *", "at most 30 days"),
    ],
)
def test_a_wrong_line_is_told_with_its_field_and_what_is_allowed(line, says):
    with pytest.raises(InvalidRequestError) as wrong:
        Cron(line)

    assert says in str(wrong.value)
    assert wrong.value.code == "cron_invalid"
    assert len(str(wrong.value)) < 500


@pytest.mark.parametrize("line", ["0 0 29 2 *", "0 0 31 2 MON", "0 0 L 2 *", "0 0 31 1-4/2,12 *", "0 0 1-31/30 2 *"])
def test_a_line_that_comes_due_at_least_once_is_taken(line):
    assert Cron(line).spec().cron == line


@pytest.mark.parametrize("line", [None, 5, ["* * * * *"], b"* * * * *"])
def test_a_line_is_text(line):
    with pytest.raises(InvalidRequestError, match="a cron line such as"):
        Cron(line)


@pytest.mark.parametrize(
    ("zone", "says"),
    [
        ("Europe/Berln", "Did you mean Europe/Berlin"),
        ("BERLIN", "Did you mean"),
        ("Mars/Crater", "no zone 'Mars/"),
        ("localtime", "no zone 'localtime'"),
    ],
)
def test_a_zone_that_does_not_exist_is_told_with_near_ones(zone, says):
    with pytest.raises(InvalidRequestError, match=says) as wrong:
        Cron("* * * * *", timezone=zone)

    assert wrong.value.code == "timezone_unknown"


def test_what_the_cloud_has_taken_is_not_refused_where_it_runs():
    code = "from apothic import Cron, _loading; _loading.enter_runner(); print(Cron('0 7 * * *', timezone='New/Zone'))"

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert "timezone='New/Zone'" in ran.stdout, ran.stderr


@pytest.mark.parametrize("zone", [None, "", 1, "E" * 65])
def test_a_zone_is_a_name(zone):
    with pytest.raises(InvalidRequestError, match="IANA name"):
        Cron("* * * * *", timezone=zone)


@pytest.mark.parametrize(
    "units",
    [
        {}, {"seconds": 0}, {"seconds": 0.5}, {"hours": -1}, {"seconds": -3600.0}, {"weeks": 53}, {"days": 10**30},
        {"seconds": float("nan")}, {"seconds": float("inf")}, {"minutes": 1.5}, {"hours": "1"}, {"seconds": True},
        {"seconds": 1.00001},
    ],
)  # fmt: skip
def test_a_period_out_of_range_is_refused(units):
    with pytest.raises(InvalidRequestError):
        Period(**units)


@pytest.mark.parametrize("kind", [lambda **more: Cron("* * * * *", **more), lambda **more: Period(hours=1, **more)])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"catch_up": "some"}, "latest or skip or all"),
        ({"overlap": None}, "skip or queue_one or allow or cancel_previous"),
        ({"catch_up": "all"}, 'needs overlap="allow"'),
        ({"jitter_s": -1}, "jitter_s"),
        ({"jitter_s": 3_601}, "jitter_s"),
        ({"jitter_s": "10"}, "jitter_s"),
    ],
)
def test_wrong_policies_are_refused(kind, options, says):
    with pytest.raises(InvalidRequestError, match=says):
        kind(**options)


def test_jitter_is_less_than_the_period():
    with pytest.raises(InvalidRequestError, match="less than the period"):
        Period(minutes=1, jitter_s=60)


@pytest.mark.parametrize("schedule", ["* * * * *", 60, Cron, [Period(hours=1)]])
def test_what_is_no_schedule_is_refused_by_the_decorator(schedule):
    with pytest.raises(InvalidRequestError, match=r'^schedule.*Cron\("0 7 \* \* \*"\)'):
        given(schedule)


def one_argument(day):
    return day


def with_defaults(day="today", *days, limit=5, **more):
    return day, days, limit, more


def named_only(*, day):
    return day


@pytest.mark.parametrize("function", [one_argument, named_only])
def test_a_function_that_needs_arguments_cannot_be_scheduled(function):
    with pytest.raises(InvalidRequestError, match="nobody passes its parameter day") as wrong:
        given(Period(hours=1), function)

    assert wrong.value.code == "schedule_needs_arguments"
    assert given(None, function).schedule is None


@pytest.mark.parametrize(
    ("schedule", "spec"),
    [
        (Cron("30  2 * * *", timezone="Europe/Berlin"), ScheduleSpec("30 2 * * *", "Europe/Berlin")),
        (Period(weeks=1, days=1, hours=1, minutes=1, seconds=1.5), ScheduleSpec(period_s=694_861.5)),
        (
            Cron("* * * * *", catch_up="all", overlap="allow", jitter_s=5),
            ScheduleSpec("* * * * *", catch_up="all", overlap="allow", jitter_s=5.0),
        ),
    ],
)
def test_a_schedule_is_in_the_manifest_and_comes_back(schedule, spec):
    function = given(schedule, with_defaults)

    assert function.schedule == schedule
    assert function.spec.schedule == spec
    assert schedule_of_spec(spec) == schedule
    assert schedule_of_spec(None) is None
