"""How the calls of an app went, counted in the store. Every function works in the transaction it is given."""

from __future__ import annotations

from datetime import datetime

from apothic.wire.ids import AppId, OrgId
from apothic_server.domain.stats import FunctionStats, Spread
from apothic_server.store.connection import Connection
from apothic_server.store.statements import load

SQL = load("stats")

LOOKED_AT_MAX = 100_000
"""Jobs of the org that one question looks at."""


async def function_stats(
    connection: Connection, org: OrgId, app: AppId, *, oldest: str, function_name: str | None
) -> tuple[FunctionStats, ...]:
    """Return the numbers of each function of an app that has jobs among those looked at, by name.

    Args:
        oldest: No job with a smaller id is looked at.
    """
    wanted = (org, app, oldest, LOOKED_AT_MAX, function_name)
    counts: dict[str, dict[str, int]] = {}
    for row in await connection.fetch(SQL["count_statuses"], *wanted):
        counts.setdefault(row["function_name"], {})[row["status"]] = row["jobs"]
    times = {row["function_name"]: row for row in await connection.fetch(SQL["measure_times"], *wanted)}
    return tuple(
        FunctionStats(name, statuses, _spread(times[name]["queue_s"]), _spread(times[name]["run_s"]))
        for name, statuses in counts.items()
        if name in times
    )


async def looked_since(connection: Connection, org: OrgId, *, oldest: str) -> datetime | None:
    """Return when the oldest job that is looked at was made, or None when none is left out."""
    found: datetime | None = await connection.fetchval(SQL["looked_since"], org, oldest, LOOKED_AT_MAX)
    return found


async def function_names(connection: Connection, org: OrgId, app: AppId) -> list[str]:
    """Return the names of all functions that an app has or had."""
    return [row["name"] for row in await connection.fetch(SQL["function_names_ever"], org, app)]


def _spread(quantiles: list[float | None] | None) -> Spread | None:
    if quantiles is None:
        return None
    found = [max(0.0, value) for value in quantiles if value is not None]
    return Spread(*found) if len(found) == len(quantiles) else None
