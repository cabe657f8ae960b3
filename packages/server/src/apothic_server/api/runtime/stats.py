"""How the calls of an app went; translates and nothing else."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from apothic.wire.names import is_app_name
from apothic_server.api.runtime.records import time_text
from apothic_server.api.shared.query import moment
from apothic_server.api.shared.request import Request
from apothic_server.api.shared.response import Response, json_response
from apothic_server.api.shared.services import Services
from apothic_server.domain.errors import no_such
from apothic_server.domain.jobs import JobStatus
from apothic_server.domain.stats import AppStats, FunctionStats, Spread


class StatsHandlers:
    """Handlers of numbers."""

    def __init__(self, services: Services) -> None:
        self._stats = services.stats

    async def get_app_stats(self, request: Request) -> Response:
        """Answer the numbers of an app's jobs, by function."""
        app_name = request.params["app"]
        if not is_app_name(app_name):
            raise no_such("app")
        found = await self._stats.of_app(
            request.actor, app_name, function_name=request.query.get("function"), since=moment(request.query, "since")
        )
        return json_response(_record(found))


def _record(found: AppStats) -> dict[str, Any]:
    return {
        "app": found.app_name,
        "since": None if found.since is None else time_text(found.since),
        "until": time_text(found.until),
        "is_whole": found.is_whole,
        "functions": [_function(one) for one in found.functions],
    }


def _function(one: FunctionStats) -> dict[str, Any]:
    return {
        "function": one.function_name,
        "jobs": sum(one.statuses.values()),
        "statuses": {status.value: one.statuses.get(status.value, 0) for status in JobStatus},
        "queue_s": _seconds(one.queue_s),
        "run_s": _seconds(one.run_s),
    }


def _seconds(spread: Spread | None) -> dict[str, float] | None:
    return None if spread is None else {name: round(value, 6) for name, value in asdict(spread).items()}
