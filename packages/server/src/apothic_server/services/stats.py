"""How the calls of an app went: counts by status, and how long jobs waited and ran."""

from __future__ import annotations

from datetime import datetime

from apothic.wire.ids import make_key
from apothic.wire.names import near_matches
from apothic_server.domain.access import Actor
from apothic_server.domain.errors import NotFound
from apothic_server.domain.stats import AppStats
from apothic_server.ports.clock import Clock
from apothic_server.services.apps import no_app, no_such_name
from apothic_server.store import apps as app_rows
from apothic_server.store import stats as rows
from apothic_server.store.database import Database


class Stats:
    """Numbers from the store; nothing is kept in memory."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def of_app(
        self, actor: Actor, app_name: str, *, function_name: str | None, since: datetime | None
    ) -> AppStats:
        """Return the numbers of an app's jobs made at `since` or later, of one function or of each.

        Raises:
            NotFound: No such app, or it never had such a function; the detail names near matches.
        """
        oldest = "" if since is None else make_key(round(since.timestamp() * 1000), 0)
        async with self._database.request_unit(actor.org) as unit:
            app = await app_rows.get_app(unit, actor.org, app_name)
            if app is None:
                raise await no_app(unit, actor.org, app_name)
            if function_name is not None:
                names = await rows.function_names(unit, actor.org, app.app.id)
                if function_name not in names:
                    near = near_matches(function_name, names)
                    raise NotFound(no_such_name(f"function in app {app_name}", function_name, near))
            left_out = await rows.looked_since(unit, actor.org, oldest=oldest)
            found = await rows.function_stats(unit, actor.org, app.app.id, oldest=oldest, function_name=function_name)
        return AppStats(app_name, left_out or since, self._clock.now(), left_out is None, found)
