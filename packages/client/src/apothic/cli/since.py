"""How long ago, or when: `10m`, `1h`, or a time."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

import click

_AGO = re.compile(r"([0-9]{1,9})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def moment(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Return the option's value as UTC text with milliseconds."""
    if value is None:
        return None
    try:
        ago = _AGO.fullmatch(value)
        now = datetime.now(timezone.utc)  # noqa: UP017 - the client also runs on 3.10
        at = now - timedelta(**{_UNITS[ago[2]]: int(ago[1])}) if ago else datetime.fromisoformat(_zoned(value))
        if at.tzinfo is None:
            raise ValueError
        text = at.astimezone(timezone.utc).isoformat(timespec="milliseconds")  # noqa: UP017
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{value!r} is neither like 30s, 10m, 1h, 2d nor like 2026-01-31T12:00:00Z") from None
    return text.replace("+00:00", "Z")


def age(time: str, now: datetime) -> str:
    """Return how long ago a time of the server was, in its largest unit: `12s`, `5m`, `3h`, `2d`."""
    passed_s = max(0, int((now - datetime.fromisoformat(_zoned(time))).total_seconds()))
    for unit, length_s in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if passed_s >= length_s:
            return f"{passed_s // length_s}{unit}"
    return f"{passed_s}s"


def _zoned(value: str) -> str:
    return f"{value[:-1]}+00:00" if value.endswith("Z") else value  # 3.10 does not read the Z
