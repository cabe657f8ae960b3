"""What a deploy says about the schedule of a function, and the one check of cron lines that both sides make.

The check needs no library, so that a wrong line is told where it is written, with its field and what is allowed there.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass

CATCH_UPS = ("latest", "skip", "all")
OVERLAPS = ("skip", "queue_one", "allow", "cancel_previous")
PERIOD_S_MIN = 1
PERIOD_S_MAX = 366 * 86_400
JITTER_S_MAX = 3_600
CRON_LENGTH_MAX = 512
ZONE_LENGTH_MAX = 64

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_DAYS_OF_MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_DIGITS = re.compile(r"[0-9]{1,4}")


@dataclass(frozen=True)
class ScheduleSpec:
    """When a function runs by itself: either `cron` or `period_s` is set.

    Attributes:
        cron: Five fields: minute, hour, day of month, month, day of week.
        timezone: IANA zone of the cron line.
        period_s: Seconds from one run to the next, 1 to 31,622,400, whole milliseconds.
        catch_up: Which of the runs that were missed are made up for: one of `CATCH_UPS`.
        overlap: What happens while an earlier run has not ended: one of `OVERLAPS`.
        jitter_s: Each run starts up to so many seconds late, 0 to 3,600; always the same for the same run.
    """

    cron: str | None = None
    timezone: str = "UTC"
    period_s: float | None = None
    catch_up: str = "latest"
    overlap: str = "skip"
    jitter_s: float = 0.0


@dataclass(frozen=True)
class CronFault:
    """What is wrong with a cron line: `place` is the field's number from 0, None for the line as a whole."""

    place: int | None
    text: str


@dataclass(frozen=True)
class _Field:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    special: re.Pattern[str] | None = None
    also: str = ""

    @property
    def rule(self) -> str:
        named = f" or {self.names[0]} to {self.names[-1]}" if self.names else ""
        return f"numbers from {self.low} to {self.high}{named}, `*`, ranges like 1-5, steps like */5, lists{self.also}"

    def number(self, text: str) -> int | None:
        if text in self.names:
            return self.names.index(text) + (1 if self.low == 1 else 0)
        value = int(text) if _DIGITS.fullmatch(text) else -1
        return value if self.low <= value <= self.high else None


FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31, (), re.compile("L|LW"), ", L for the last day, LW for the last weekday"),
    _Field("month", 1, 12, _MONTHS),
    _Field(
        "day of week", 0, 7, _DAYS, re.compile(r"[0-7](?:L|#[1-5])|[A-Z]{3}#[1-5]"),
        ", 5L for the last Friday, 1#2 for the second Monday",
    ),
)  # fmt: skip


def cron_fault(line: str) -> CronFault | None:
    """Return the first fault of a cron line, None when it is good.

    A line whose days are in none of its months has one; whether every other line comes due is not looked at.
    """
    if len(line) > CRON_LENGTH_MAX:
        return CronFault(None, f"a cron line has at most {CRON_LENGTH_MAX} characters")
    if line.strip().startswith("@"):
        return CronFault(None, "a cron line has five fields; for @hourly write `0 * * * *`, for @daily `0 0 * * *`")
    parts = line.upper().split()
    if len(parts) != len(FIELDS):
        names = ", ".join(field.name for field in FIELDS)
        more = "; seconds are not part of it" if len(parts) == len(FIELDS) + 1 else ""
        return CronFault(None, f"a cron line has five fields ({names}), this one has {len(parts)}{more}")
    for place, (field, part) in enumerate(zip(FIELDS, parts)):  # noqa: B905 - their number was compared above
        for entry in part.split(","):
            why = _entry_fault(field, entry)
            if why:
                return CronFault(place, f"{field.name} {part!r}: {why}; allowed are {field.rule}")
    longest = max(_DAYS_OF_MONTHS[month - 1] for month in _numbers(FIELDS[3], parts[3]))
    if parts[4] == "*" and "L" not in parts[2] and min(_numbers(FIELDS[2], parts[2])) > longest:
        return CronFault(2, f"never comes due: the months it names have at most {longest} days")
    return None


def _numbers(field: _Field, part: str) -> Iterator[int]:
    """Yield the numbers that a good part without special entries stands for."""
    for entry in part.split(","):
        base, slash, step = entry.partition("/")
        low, dash, high = base.partition("-")
        first = field.low if base == "*" else field.number(low)
        last = field.number(high) if dash else field.high if slash or base == "*" else first
        assert first is not None, "entries were checked"
        assert last is not None, "entries were checked"
        yield from range(first, last + 1, int(step or 1))


@functools.cache
def zones() -> frozenset[str]:
    """Return the zones that a schedule may name; none when this machine has no data about them.

    `localtime` is not among them: it is another zone on another machine.
    """
    from zoneinfo import available_timezones

    return frozenset(available_timezones() - {"localtime"})


def _entry_fault(field: _Field, entry: str) -> str:
    """Return what is wrong with one entry of a list; an empty text when nothing is."""
    if field.special is not None and field.special.fullmatch(entry):
        return "" if "#" not in entry or field.number(entry.split("#")[0]) is not None else f"{entry!r} is no day"
    base, slash, step = entry.partition("/")
    if slash and (not _DIGITS.fullmatch(step) or not 1 <= int(step) <= field.high):
        return f"the step {step!r} is no number from 1 to {field.high}"
    if base == "*":
        return ""
    low, dash, high = base.partition("-")
    first, last = field.number(low), field.number(high) if dash else None
    if first is None:
        return f"{low!r} is not allowed" if low else "an entry is empty"
    if dash and last is None:
        return f"{high!r} is not allowed"
    if last is not None and last < first:
        return f"the range {base!r} runs backwards; write it as two"
    return ""
