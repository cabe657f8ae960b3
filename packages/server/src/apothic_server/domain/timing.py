"""When a schedule is due: instants in UTC, from a cron line in a zone or from a period.

Rules (G10.3):

- A cron line names local times. A local time that a clock change leaves out is due at the first instant after the gap;
  several such are one tick. One that comes twice is due the first time.
- A line with every hour follows real time instead: it is due whenever a clock in its zone shows a matching minute, so
  twice in an hour that comes twice, and not at all in one that is left out.
- A period counts from its anchor; the n-th tick is `anchor + n * period`, computed and never added up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

from apothic.wire.schedules import ScheduleSpec

HOURS = frozenset(range(24))
MINUTE = timedelta(minutes=1)
GAP_MAX = timedelta(hours=25)
"""Longer than any time that clocks were ever set forward by: some zones left out a whole day."""

LOOK_AHEAD_DAYS = 400
"""Changes of a zone's clock are looked for this far; then the search goes on from there."""

NEVER_AFTER = timedelta(days=366 * 50)
"""A cron line that does not match for so long never does: `0 0 30 2 *`."""


def dues(spec: ScheduleSpec, anchor: datetime, after: datetime) -> Iterator[datetime]:
    """Yield the instants later than `after` at which a schedule is due, in order, in UTC; ends when none follows.

    Args:
        anchor: What a period counts from; its first tick is one period later.
    """
    if spec.period_s is not None:
        return _periods(timedelta(milliseconds=round(spec.period_s * 1000)), anchor, after)
    assert spec.cron is not None, "a schedule has a cron line or a period"
    zone = ZoneInfo(spec.timezone)
    is_hourly = CronSim(spec.cron, datetime(2000, 1, 1)).hours >= HOURS  # noqa: DTZ001 - no time is read from it
    return _real_times(spec.cron, zone, after) if is_hourly else _local_times(spec.cron, zone, after)


def next_due(spec: ScheduleSpec, anchor: datetime, after: datetime) -> datetime | None:
    """Return the first instant later than `after` at which a schedule is due; None when it never is again."""
    return next(dues(spec, anchor, after), None)


def jitter_of(spec: ScheduleSpec, schedule: str, due: datetime) -> timedelta:
    """Return how late a tick starts: from 0 to `jitter_s`, spread evenly, always the same for the same tick."""
    if not spec.jitter_s:
        return timedelta()
    digest = hashlib.sha256(f"{schedule} {due.timestamp():.3f}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return timedelta(milliseconds=int(share * spec.jitter_s * 1000))


def _periods(period: timedelta, anchor: datetime, after: datetime) -> Iterator[datetime]:
    number = max((after - anchor) // period + 1, 1)
    while True:
        yield anchor + number * period
        number += 1


def _local_times(line: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    latest = after.astimezone(UTC)
    for local in _matches(line, _wall(after, zone) - GAP_MAX):
        due = _instant(local, zone)
        if due > latest:
            latest = due
            yield due


def _real_times(line: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    """Go from one change of the zone's clock to the next: between two, local and real time differ by a constant."""
    start, is_open = after.astimezone(UTC), True
    limit = start + NEVER_AFTER
    while start < limit:
        offset, end = _offset(start, zone), _next_change(start, zone)
        wall, wall_end = _wall(start, zone), end.replace(tzinfo=None) + offset
        for local in _matches(line, wall if is_open else wall - MINUTE):
            if local >= wall_end:
                break
            due = (local - offset).replace(tzinfo=UTC)
            if due > start or not is_open:
                limit = due + NEVER_AFTER
                yield due
        start, is_open = end, False


def _matches(line: str, after: datetime) -> Iterator[datetime]:
    """Yield local times later than `after`, to the minute; both without a zone."""
    source = CronSim(line, after.replace(second=0))
    try:
        yield from source
    except (OverflowError, ValueError):
        return  # the year 9999 is over


def _instant(local: datetime, zone: ZoneInfo) -> datetime:
    """Return the first instant at which a clock of the zone shows `local`, or the end of the gap that it lies in."""
    instant = local.replace(tzinfo=zone).astimezone(UTC)
    if _wall(instant, zone) == local:
        return instant
    # In a gap the standard library takes the offset before it, which leads past the gap by as much as `local` lies in.
    before = local.replace(tzinfo=zone, fold=1).astimezone(UTC)
    low, high = sorted((before, instant))
    return _change_between(low - MINUTE, high, zone)


def _next_change(start: datetime, zone: ZoneInfo) -> datetime:
    """Return when the offset of the zone changes next, or a time until which it certainly does not."""
    offset, low = _offset(start, zone), start
    for _ in range(LOOK_AHEAD_DAYS):
        high = low + timedelta(days=1)
        if _offset(high, zone) != offset:
            return _change_between(low, high, zone)
        low = high
    return low


def _change_between(low: datetime, high: datetime, zone: ZoneInfo) -> datetime:
    """Return the first second at which the offset differs from that at `low`; at `high` it does."""
    offset = _offset(low, zone)
    first, last = int(low.timestamp()), int(high.timestamp())
    while last - first > 1:
        middle = (first + last) // 2
        if _offset(datetime.fromtimestamp(middle, UTC), zone) == offset:
            first = middle
        else:
            last = middle
    return datetime.fromtimestamp(last, UTC)


def _offset(instant: datetime, zone: ZoneInfo) -> timedelta:
    offset = instant.astimezone(zone).utcoffset()
    assert offset is not None, "the zone is a real one"
    return offset


def _wall(instant: datetime, zone: ZoneInfo) -> datetime:
    """Return what a clock of the zone shows, without the zone."""
    return instant.astimezone(zone).replace(tzinfo=None)
