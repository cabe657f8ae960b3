"""Operations for the people and programs that keep the server running."""

from __future__ import annotations

from apothic.wire.version import VERSION
from apothic_server.api.shared.operations import Operation
from apothic_server.api.shared.request import Request
from apothic_server.api.shared.response import Response, json_response, raw_response
from apothic_server.api.shared.services import Services
from apothic_server.domain.access import Audience, Policy

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PUBLIC = frozenset({200, 413, 422, 500, 503})


class OpsHandlers:
    """Handlers of the operations face."""

    def __init__(self, services: Services) -> None:
        self._health = services.health
        self._metrics = services.metrics

    async def get_health(self, request: Request) -> Response:
        """Answer as long as the process runs; looks at nothing else."""
        return json_response({"status": "ok", "version": VERSION})

    async def get_readiness(self, request: Request) -> Response:
        """Answer 503 as soon as one check fails."""
        checks = await self._health.checks()
        ready = all(check.ok for check in checks.values())
        shown = {name: {"ok": check.ok, "detail": check.detail} for name, check in checks.items()}
        record = {"ready": ready, "role": self._health.role, "checks": shown}
        response = json_response(record, status=200 if ready else 503)
        if not ready:
            response.headers.append((b"retry-after", b"1"))
        return response

    async def get_metrics(self, request: Request) -> Response:
        """Answer the metrics of the whole installation."""
        return raw_response(self._metrics.render(), METRICS_TYPE)


def ops_operations(services: Services) -> list[Operation]:
    """Return the operations face's rows."""
    handlers = OpsHandlers(services)
    return [
        Operation(
            id="get_health",
            method="GET",
            path="/healthz",
            policy=Policy(Audience.PUBLIC),
            statuses=_PUBLIC,
            handler=handlers.get_health,
        ),
        Operation(
            id="get_readiness",
            method="GET",
            path="/readyz",
            policy=Policy(Audience.PUBLIC),
            statuses=_PUBLIC,
            handler=handlers.get_readiness,
        ),
        Operation(
            id="get_metrics",
            method="GET",
            path="/metrics",
            policy=Policy(Audience.OPERATOR, "org:read"),
            statuses=_PUBLIC | {401, 403},
            handler=handlers.get_metrics,
            answers=("text/plain",),
        ),
    ]
