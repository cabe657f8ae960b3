"""What a schedule may say, and what it says in English."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from cronsim import CronSimError

from apothic.wire.names import near_matches
from apothic.wire.schedules import (
    CATCH_UPS,
    JITTER_S_MAX,
    OVERLAPS,
    PERIOD_S_MAX,
    PERIOD_S_MIN,
    ZONE_LENGTH_MAX,
    ScheduleSpec,
    cron_fault,
    zones,
)
from apothic_server.domain.timing import next_due

_DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_SHORT_MONTHS = {name[:3].upper(): name for name in _MONTHS}
_SHORT_DAYS = {name[:3].upper(): name for name in _DAYS}
_UNITS = ((604_800, "week"), (86_400, "day"), (3_600, "hour"), (60, "minute"))


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a schedule: in which field, for people, and for programs.

    Attributes:
        place: Number of the field of the cron line, from 0; None outside of it.
    """

    field: str
    text: str
    kind: str
    place: int | None = None


def fault_of(spec: ScheduleSpec) -> Fault | None:
    """Return the first thing that is wrong with a schedule; None when it can be deployed."""
    if (spec.cron is None) == (spec.period_s is None):
        return Fault("cron", "set either cron or period_s", "excluded")
    if spec.catch_up not in CATCH_UPS:
        return Fault("catch_up", f"must be {' or '.join(CATCH_UPS)}", "unknown_kind")
    if spec.overlap not in OVERLAPS:
        return Fault("overlap", f"must be {' or '.join(OVERLAPS)}", "unknown_kind")
    if spec.catch_up == "all" and spec.overlap != "allow":
        return Fault("catch_up", "all needs overlap allow", "excluded")
    is_short = spec.period_s is None or not spec.jitter_s or spec.jitter_s < spec.period_s
    if not (0 <= spec.jitter_s <= JITTER_S_MAX and is_short):
        return Fault("jitter_s", f"must be from 0 to {JITTER_S_MAX}, and less than the period", "out_of_range")
    return _period_fault(spec.period_s) if spec.period_s is not None else _cron_fault(spec)


def _period_fault(period_s: float) -> Fault | None:
    if not PERIOD_S_MIN <= period_s <= PERIOD_S_MAX:
        return Fault("period_s", f"must be from {PERIOD_S_MIN} to {PERIOD_S_MAX}", "out_of_range")
    if round(period_s, 3) != period_s:
        return Fault("period_s", "must be whole milliseconds", "out_of_range")
    return None


def _cron_fault(spec: ScheduleSpec) -> Fault | None:
    assert spec.cron is not None, "the caller looked"
    if spec.timezone not in zones():
        near = near_matches(spec.timezone[:ZONE_LENGTH_MAX], zones())
        advice = f"; did you mean {' or '.join(near)}?" if near else ", as Europe/Berlin"
        return Fault("timezone", f"must be the IANA name of a zone{advice}", "timezone_unknown")
    wrong = cron_fault(spec.cron)
    if wrong is not None:
        return Fault("cron", wrong.text, "cron_invalid", wrong.place)
    try:
        is_ever = next_due(spec, _SOME_DAY, _SOME_DAY) is not None
    except CronSimError:
        is_ever = False
    return None if is_ever else Fault("cron", "never comes due: there is no such day", "cron_invalid", 2)


_SOME_DAY = datetime(2024, 1, 1, tzinfo=UTC)


def in_words(spec: ScheduleSpec) -> str:
    """Return when a schedule runs, in English: `at 02:30 every day (Europe/Berlin)`, `every 90 minutes`."""
    if spec.period_s is not None:
        return f"every {_span(spec.period_s)}"
    assert spec.cron is not None, "a schedule has a cron line or a period"
    minute, hour, day, month, weekday = spec.cron.upper().split()
    days = _days_in_words(day, weekday)
    when = _time_in_words(minute, hour)
    if not days:
        days = "every day" if when.startswith("at ") else ""
    months = "" if month == "*" else f"in {_listed(month, _month)}"
    return f"{' '.join(part for part in (when, days, months) if part)} ({spec.timezone})"


def _span(seconds: float) -> str:
    parts: list[str] = []
    left = seconds
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(_counted(int(count), unit))
    left = round(left, 3)
    if left:
        parts.append(f"{left:g} seconds" if left != 1 else "1 second")
    text = " ".join(parts)
    return text[2:] if len(parts) == 1 and text.startswith("1 ") else text


def _counted(count: int, unit: str) -> str:
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"


def _time_in_words(minute: str, hour: str) -> str:
    if minute.isdigit() and all(one.isdigit() for one in hour.split(",")):
        return "at " + _joined([f"{int(one):02}:{int(minute):02}" for one in hour.split(",")])
    every_minute = "every minute" if minute in ("*", "*/1") else ""
    if minute.startswith("*/") and not every_minute and "," not in minute:
        every_minute = f"every {minute[2:]} minutes"
    if hour in ("*", "*/1", "0-23"):
        named = "minute" if minute.isdigit() else "minutes"
        return every_minute or f"every hour at {named} {_listed(minute, str)}"
    hours = f"every {hour[2:]} hours" if hour.startswith("*/") and "," not in hour else f"in hours {_listed(hour, str)}"
    if every_minute:
        return f"{every_minute} {hours}"
    return f"at {'minute' if minute.isdigit() else 'minutes'} {_listed(minute, str)} {hours}"


def _days_in_words(day: str, weekday: str) -> str:
    of_month = {"L": "on the last day of the month", "LW": "on the last weekday of the month"}.get(
        day, f"on {'day' if day.isdigit() else 'days'} {_listed(day, str)} of the month"
    )
    of_week = f"on {_listed(weekday, _weekday)}"
    if day == "*":
        return "" if weekday == "*" else of_week
    if weekday == "*":
        return of_month
    joins = "if it is also" if day.startswith("*") or weekday.startswith("*") else "and"
    return f"{of_month} {joins} {of_week}"


def _weekday(text: str) -> str:
    base, hash_sign, number = text.partition("#")
    if hash_sign:
        return f"the {('first', 'second', 'third', 'fourth', 'fifth')[int(number) - 1]} {_weekday(base)} of the month"
    if text.endswith("L") and text[:-1].isdigit():
        return f"the last {_weekday(text[:-1])} of the month"
    return _DAYS[int(text)] if text.isdigit() else _SHORT_DAYS.get(text, text)


def _month(text: str) -> str:
    return _MONTHS[int(text) - 1] if text.isdigit() else _SHORT_MONTHS.get(text, text)


def _listed(entries: str, name: Callable[[str], str]) -> str:
    return _joined([_ranged(entry, name) for entry in entries.split(",")])


def _ranged(entry: str, name: Callable[[str], str]) -> str:
    base, slash, step = entry.partition("/")
    low, dash, high = base.partition("-")
    text = "any" if base == "*" else f"{name(low)} to {name(high)}" if dash else name(low)
    return f"{text}, every {step}" if slash else text


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
