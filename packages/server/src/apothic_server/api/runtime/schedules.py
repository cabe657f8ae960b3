"""Schedules: list, look, pause, resume, run now; handlers that translate and nothing else."""

from __future__ import annotations

from apothic.wire.ids import ScheduleId, parse_record_id
from apothic.wire.limits import LIST_PAGE_DEFAULT, LIST_PAGE_MAX
from apothic.wire.names import is_app_name
from apothic_server.api.runtime import records
from apothic_server.api.shared.idempotency import answer_once
from apothic_server.api.shared.query import refusal, whole_number
from apothic_server.api.shared.request import Request
from apothic_server.api.shared.response import Response, json_response
from apothic_server.api.shared.services import Services
from apothic_server.domain.errors import no_such
from apothic_server.domain.schedules import ScheduleView


class ScheduleHandlers:
    """Handlers of schedules."""

    def __init__(self, services: Services) -> None:
        self._schedules = services.schedules

    async def list_schedules(self, request: Request) -> Response:
        """Answer one page; asks for one item more to know whether another page follows."""
        limit = whole_number(request.query, "limit", 1, LIST_PAGE_MAX, LIST_PAGE_DEFAULT)
        app_name = request.query.get("app")
        if app_name is not None and not is_app_name(app_name):
            raise no_such("app")
        after = None
        if "cursor" in request.query:
            after = parse_record_id(request.query["cursor"], "schedules")
            if after is None:
                raise refusal("cursor", "is no cursor that a list answered", "cursor_invalid")
        found = await self._schedules.list_schedules(
            request.actor, app_name=app_name, after=None if after is None else ScheduleId(after), limit=limit + 1
        )
        items = [records.schedule_record(view) for view in found[:limit]]
        following = items[-1]["schedule_id"] if len(found) > limit else None
        return json_response({"items": items, "next_cursor": following})

    async def get_schedule(self, request: Request) -> Response:
        """Answer one schedule by id."""
        return _shown(await self._schedules.get(request.actor, _key(request)))

    async def pause_schedule(self, request: Request) -> Response:
        """Let a schedule make no jobs."""
        return await answer_once(
            request.key(), lambda keep: self._schedules.pause(request.actor, _key(request), keep), _shown
        )

    async def resume_schedule(self, request: Request) -> Response:
        """Let a paused schedule go on."""
        return await answer_once(
            request.key(), lambda keep: self._schedules.resume(request.actor, _key(request), keep), _shown
        )

    async def run_schedule(self, request: Request) -> Response:
        """Make a job of a schedule at once."""
        return await answer_once(
            request.key(),
            lambda keep: self._schedules.run_now(request.actor, _key(request), keep),
            lambda job: json_response({"job_id": records.job_id(job)}, status=202),
        )


def _key(request: Request) -> ScheduleId:
    return records.schedule_key(request.params["schedule_id"])


def _shown(view: ScheduleView) -> Response:
    return json_response(records.schedule_record(view))
