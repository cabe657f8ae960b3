"""A nightly report on a schedule: the local day that ended, which has 23 or 25 hours when clocks change."""

from datetime import UTC, date, datetime, time, timedelta
from random import Random
from zoneinfo import ZoneInfo

from apothic import App, Cron

app = App("nightly-report")

ZONE = ZoneInfo("Europe/Berlin")
HOUR = timedelta(hours=1)


@app.function(schedule=Cron("30 2 * * *", timezone="Europe/Berlin"), memory_mb=256, retries=2)
def report(day: str = "") -> dict[str, object]:
    """Sum up a day, `YYYY-MM-DD`; without one the day that ended last."""
    local = date.fromisoformat(day) if day else datetime.now(ZONE).date() - timedelta(days=1)
    readings = [reading(hour) for hour in hours_of(local)]
    return {"day": local.isoformat(), "hours": len(readings), "total": sum(readings)}


def hours_of(day: date) -> list[datetime]:
    """Return the hours of a local day, in UTC."""
    first, end = (datetime.combine(one, time(), ZONE).astimezone(UTC) for one in (day, day + timedelta(days=1)))
    return [first + HOUR * number for number in range(int((end - first) / HOUR))]


def reading(hour: datetime) -> int:
    """Stand in for a meter: what it counted in one hour, always the same for the same hour."""
    return Random(hour.timestamp()).randint(0, 100)


if __name__ == "__main__":
    app.deploy()
    for day in ("2030-03-30", "2030-03-31", "2030-10-27"):
        print(report.remote(day))
