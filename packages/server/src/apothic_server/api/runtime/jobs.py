"""Jobs as records: status, logs, cancel."""

from __future__ import annotations

from apothic.wire.limits import LOG_PAGE_LINES_MAX
from apothic_server.api.runtime import records
from apothic_server.api.shared.idempotency import answer_once
from apothic_server.api.shared.query import whole_number
from apothic_server.api.shared.request import Request
from apothic_server.api.shared.response import Response, json_response
from apothic_server.api.shared.services import Services

INDEX_MAX = 2**63 - 1


class JobHandlers:
    """Handlers of jobs that exist."""

    def __init__(self, services: Services) -> None:
        self._jobs = services.jobs

    async def get_job(self, request: Request) -> Response:
        """Answer one job."""
        key = records.job_key(request.params["job_id"])
        return json_response(records.job_record(await self._jobs.get(request.actor, key)))

    async def get_logs(self, request: Request) -> Response:
        """Answer the lines after an index."""
        key = records.job_key(request.params["job_id"])
        after = whole_number(request.query, "after", -1, INDEX_MAX, -1)
        limit = whole_number(request.query, "limit", 1, LOG_PAGE_LINES_MAX, LOG_PAGE_LINES_MAX)
        return json_response(records.log_record(await self._jobs.logs(request.actor, key, after, limit)))

    async def cancel_job(self, request: Request) -> Response:
        """Stop a job; answer its status after that."""
        key = records.job_key(request.params["job_id"])
        return await answer_once(
            request.key(),
            lambda keep: self._jobs.cancel(request.actor, key, keep),
            lambda status: json_response({"job_id": records.job_id(key), "status": status.value}),
        )
