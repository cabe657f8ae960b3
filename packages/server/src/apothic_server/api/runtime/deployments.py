"""Deployments that exist: list, stop, delete; handlers that translate and nothing else."""

from __future__ import annotations

from apothic.wire.limits import LIST_PAGE_DEFAULT, LIST_PAGE_MAX
from apothic.wire.names import is_app_name
from apothic_server.api.runtime import records
from apothic_server.api.shared.idempotency import answer_once
from apothic_server.api.shared.query import refusal, truth, whole_number
from apothic_server.api.shared.request import Request
from apothic_server.api.shared.response import Response, json_response
from apothic_server.api.shared.services import Services
from apothic_server.domain.apps import Deployment
from apothic_server.domain.errors import no_such


class DeploymentHandlers:
    """Handlers of deployments."""

    def __init__(self, services: Services) -> None:
        self._apps = services.apps
        self._deployments = services.deployments
        self._environments = services.environments

    async def get_deployment(self, request: Request) -> Response:
        """Answer one deployment by id."""
        key = records.deployment_key(request.params["deployment_id"])
        return json_response(records.deployment_record(await self._apps.get_deployment(request.actor, key)))

    async def list_deployments(self, request: Request) -> Response:
        """Answer one page; asks for one item more to know whether another page follows."""
        limit = whole_number(request.query, "limit", 1, LIST_PAGE_MAX, LIST_PAGE_DEFAULT)
        app_name = request.query.get("app")
        if app_name is not None and not is_app_name(app_name):
            raise no_such("app")
        before = None
        if "cursor" in request.query:
            before = records.deployment_cursor(request.query["cursor"])
            if before is None:
                raise refusal("cursor", "is no cursor that a list answered", "cursor_invalid")
        found = await self._deployments.list_deployments(
            request.actor, app_name=app_name, before=before, limit=limit + 1
        )
        items = [records.deployment_entry(entry) for entry in found[:limit]]
        following = items[-1]["deployment_id"] if len(found) > limit else None
        return json_response({"items": items, "next_cursor": following})

    async def prepare_deployment(self, request: Request) -> Response:
        """Have the environments of a deployment made ready."""
        key = records.deployment_key(request.params["deployment_id"])
        return json_response(records.preparation_record(await self._environments.prepare(request.actor, key)))

    async def list_environments(self, request: Request) -> Response:
        """Answer which environments workers have."""
        return json_response(records.held_record(await self._environments.list_held(request.actor)))

    async def prune_environments(self, request: Request) -> Response:
        """Remove the environments that no live deployment needs."""
        return json_response(records.held_record(await self._environments.prune(request.actor)))

    async def stop_deployment(self, request: Request) -> Response:
        """Let a deployment take no more calls."""
        key = records.deployment_key(request.params["deployment_id"])
        cancels = truth(request.query, "now")
        return await answer_once(
            request.key(),
            lambda keep: self._deployments.stop(request.actor, key, cancels=cancels, keep=keep),
            lambda ended: _after(*ended),
        )

    async def delete_deployment(self, request: Request) -> Response:
        """Delete a deployment that nothing uses, or any at once."""
        key = records.deployment_key(request.params["deployment_id"])
        cancels = truth(request.query, "now")
        return _after(*await self._deployments.delete(request.actor, key, cancels=cancels))


def _after(deployment: Deployment, unfinished: int) -> Response:
    return json_response({"deployment": records.deployment_record(deployment), "unfinished_jobs": unfinished})
