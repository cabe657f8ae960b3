"""Jobs as records: status, logs, cancel."""

from __future__ import annotations

from collections.abc import Mapping

from apothic.wire.ids import DeploymentId, GroupId, make_key, parse_job_id, parse_record_id
from apothic.wire.limits import LIST_PAGE_DEFAULT, LIST_PAGE_MAX, LOG_PAGE_LINES_MAX
from apothic_server.api.runtime import records
from apothic_server.api.shared.idempotency import answer_once
from apothic_server.api.shared.query import moment, refusal, truth, whole_number
from apothic_server.api.shared.request import Request
from apothic_server.api.shared.response import Response, json_response
from apothic_server.api.shared.services import Services
from apothic_server.domain.jobs import JobFilter, JobStatus

INDEX_MAX = 2**63 - 1
_STATUSES = frozenset(status.value for status in JobStatus)


class JobHandlers:
    """Handlers of jobs that exist."""

    def __init__(self, services: Services) -> None:
        self._jobs = services.jobs

    async def get_job(self, request: Request) -> Response:
        """Answer one job."""
        key = records.job_key(request.params["job_id"])
        return json_response(records.job_record(await self._jobs.get(request.actor, key)))

    async def list_jobs(self, request: Request) -> Response:
        """Answer one page of jobs, newest first."""
        limit = whole_number(request.query, "limit", 1, LIST_PAGE_MAX, LIST_PAGE_DEFAULT)
        found, following = await self._jobs.list_jobs(request.actor, _filter(request.query), limit=limit)
        cursor = None if following is None else records.job_id(following)
        return json_response({"items": [records.job_entry(entry) for entry in found], "next_cursor": cursor})

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


def _filter(query: Mapping[str, str]) -> JobFilter:
    status, cursor, since = query.get("status"), query.get("cursor"), moment(query, "since")
    if status is not None and status not in _STATUSES:
        raise refusal("status", f"must be one of {', '.join(sorted(_STATUSES))}", "unknown_status")
    before = None if cursor is None else parse_job_id(cursor)
    if cursor is not None and before is None:
        raise refusal("cursor", "is no cursor that a list answered", "cursor_invalid")
    deployment = None if (asked := query.get("deployment")) is None else parse_record_id(asked, "deployments")
    if asked is not None and deployment is None:
        raise refusal("deployment", "is no id of a deployment", "deployment_invalid")
    group = None if (asked := query.get("group")) is None else parse_record_id(asked, "groups")
    if asked is not None and group is None:
        raise refusal("group", "is no id of a group", "group_invalid")
    return JobFilter(
        app_name=query.get("app"),
        function_name=query.get("function"),
        status=None if status is None else JobStatus(status),
        deployment=None if deployment is None else DeploymentId(deployment),
        is_unfinished=truth(query, "unfinished"),
        before=before,
        group=None if group is None else GroupId(group),
        oldest=None if since is None else make_key(round(since.timestamp() * 1000), 0),
    )
