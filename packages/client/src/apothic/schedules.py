"""`Cron` and `Period`: when a function runs by itself. Checked where they are written."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from apothic._loading import is_in_runner
from apothic._ranges import number, whole, wrong
from apothic.errors import InvalidRequestError
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

_UNITS = {"weeks": 604_800, "days": 86_400, "hours": 3_600, "minutes": 60}


@dataclass(frozen=True, init=False)
class Cron:
    """Runs at the times of a cron line, as clocks in its zone show them.

    A local time that a clock change leaves out runs at the first instant after it; one that comes twice runs the first
    time. A line with every hour, as `0 * * * *`, follows real time.

    Attributes:
        expression: Minute, hour, day of month, month, day of week: numbers, `*`, lists, ranges, steps, English names.
        timezone: IANA name, as `Europe/Berlin`.
        catch_up: Of the runs missed in the last hour while no server ran: `latest` makes up for the newest, `skip` for
            none, `all` for up to 100 (needs `overlap="allow"`).
        overlap: While an earlier run has not ended: `skip` leaves the new one out, `queue_one` lets one wait, `allow`
            runs it too, `cancel_previous` cancels the earlier one.
        jitter_s: Each run starts up to so many seconds late, 0 to 3,600, so that not all start at once.

    Raises:
        InvalidRequestError: The line, the zone or an option is wrong.
    """

    expression: str
    timezone: str
    catch_up: str
    overlap: str
    jitter_s: float

    def __init__(
        self,
        expression: str,
        *,
        timezone: str = "UTC",
        catch_up: str = "latest",
        overlap: str = "skip",
        jitter_s: float = 0.0,
    ) -> None:
        _set(self, expression=_line(expression), timezone=_zone(timezone))
        _set(self, **_policies(catch_up, overlap, jitter_s))

    def spec(self) -> ScheduleSpec:
        """Return what a deploy says about it."""
        return ScheduleSpec(self.expression, self.timezone, None, self.catch_up, self.overlap, self.jitter_s)


@dataclass(frozen=True, init=False)
class Period:
    """Runs again and again after the same time, counted from the first deploy; later deploys keep the beat.

    Attributes:
        seconds: Of the units together; from 1 s to 366 days, whole milliseconds.
        catch_up, overlap, jitter_s: As for `Cron`; `jitter_s` is less than the period.

    Raises:
        InvalidRequestError: A unit or an option is wrong, or the sum is out of range.
    """

    seconds: float
    catch_up: str
    overlap: str
    jitter_s: float

    def __init__(
        self,
        *,
        weeks: int = 0,
        days: int = 0,
        hours: int = 0,
        minutes: int = 0,
        seconds: float = 0,
        catch_up: str = "latest",
        overlap: str = "skip",
        jitter_s: float = 0.0,
    ) -> None:
        given = {"weeks": weeks, "days": days, "hours": hours, "minutes": minutes}
        total = number("seconds", seconds, 0, PERIOD_S_MAX)
        for unit, value in given.items():
            total += whole(unit, value, 0, PERIOD_S_MAX) * _UNITS[unit]
        if not PERIOD_S_MIN <= total <= PERIOD_S_MAX:
            raise InvalidRequestError(f"Period: {total:,g} s in all is not allowed; it must be from 1 s to 366 days")
        if round(total, 3) != total:
            raise InvalidRequestError(f"Period: {total!r} s is not allowed; it must be whole milliseconds")
        _set(self, seconds=total, **_policies(catch_up, overlap, jitter_s))
        if self.jitter_s >= total:
            raise InvalidRequestError("jitter_s must be less than the period")

    def spec(self) -> ScheduleSpec:
        """Return what a deploy says about it."""
        return ScheduleSpec(None, "UTC", self.seconds, self.catch_up, self.overlap, self.jitter_s)


def schedule_of(schedule: Any, python_function: Callable[..., Any]) -> Cron | Period | None:
    """Return the schedule of a decorator for the function under it.

    Raises:
        InvalidRequestError: It is no schedule, or the function has a parameter without a default.
    """
    if schedule is None:
        return None
    if not isinstance(schedule, Cron | Period):
        raise wrong("schedule", schedule, 'Cron("0 7 * * *") or Period(hours=1), from apothic')
    for parameter in inspect.signature(python_function).parameters.values():
        is_needed = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if is_needed and parameter.default is parameter.empty:
            raise InvalidRequestError(
                f"{python_function.__name__} cannot be scheduled: nobody passes its parameter {parameter.name}. "
                "Give it a default, or schedule a function without parameters that calls this one.",
                code="schedule_needs_arguments",
            )
    return schedule


def schedule_of_spec(spec: ScheduleSpec | None) -> Cron | Period | None:
    """Return the schedule of a deployed function; units of a period come back as seconds."""
    if spec is None:
        return None
    policies: dict[str, Any] = {"catch_up": spec.catch_up, "overlap": spec.overlap, "jitter_s": spec.jitter_s}
    made: Cron | Period = object.__new__(Period if spec.cron is None else Cron)
    timing = {"seconds": spec.period_s} if spec.cron is None else {"expression": spec.cron, "timezone": spec.timezone}
    _set(made, **timing, **policies)  # the server has checked it, perhaps by younger rules
    return made


def _set(target: Any, **values: Any) -> None:
    for name, value in values.items():
        object.__setattr__(target, name, value)


def _line(expression: Any) -> str:
    if not isinstance(expression, str):
        raise wrong("Cron", expression, 'a cron line such as "30 2 * * *"')
    fault = cron_fault(expression)
    if fault is not None:
        raise InvalidRequestError(f"Cron({expression[:80]!r}): {fault.text}", code="cron_invalid")
    return " ".join(expression.split())


def _zone(name: Any) -> str:
    if not isinstance(name, str) or not name or len(name) > ZONE_LENGTH_MAX:
        raise wrong("timezone", name, "the IANA name of a zone, such as Europe/Berlin")
    known = zones()
    if not known or name in known or is_in_runner():  # without data, or once deployed, the server's check counts
        return name
    near = near_matches(name, known) or near_matches(name, [zone.rpartition("/")[2] for zone in known])
    advice = f" Did you mean {' or '.join(near)}?" if near else ""
    raise InvalidRequestError(
        f"timezone: there is no zone {name!r}; names look like Europe/Berlin.{advice}", code="timezone_unknown"
    )


def _policies(catch_up: Any, overlap: Any, jitter_s: Any) -> dict[str, Any]:
    if catch_up not in CATCH_UPS:
        raise wrong("catch_up", catch_up, " or ".join(CATCH_UPS))
    if overlap not in OVERLAPS:
        raise wrong("overlap", overlap, " or ".join(OVERLAPS))
    if catch_up == "all" and overlap != "allow":
        raise InvalidRequestError(
            'catch_up="all" needs overlap="allow": the runs made up for would leave each other out.'
        )
    jitter = number("jitter_s", jitter_s, 0, JITTER_S_MAX)
    return {"catch_up": catch_up, "overlap": overlap, "jitter_s": jitter}
