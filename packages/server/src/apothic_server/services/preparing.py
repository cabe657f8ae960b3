"""Environments made ready before anybody calls: asked of a worker that could run the functions, without an attempt."""

from __future__ import annotations

from apothic.wire.functions import FunctionSpec
from apothic.wire.ids import DeploymentId
from apothic_server.domain.access import Actor
from apothic_server.domain.apps import Deployment, python_under
from apothic_server.domain.decide.placement import Need
from apothic_server.domain.decide.readiness import Readiness, readiness
from apothic_server.domain.errors import Conflict
from apothic_server.domain.views import EnvironmentView, PreparationView
from apothic_server.services.apps import Apps
from apothic_server.services.dispatch.board import Board
from apothic_server.services.dispatch.grants import Grants


class Preparing:
    """Has the environments of deployments made ready, and says how far they are.

    Only memory knows that, so asking again is how one follows it: also after another server took over.
    """

    def __init__(self, apps: Apps, board: Board, grants: Grants) -> None:
        self._apps = apps
        self._board = board
        self._grants = grants

    async def prepare(self, actor: Actor, key: DeploymentId) -> PreparationView:
        """Ask for what is not ready yet and return how far all of it is; asking again changes nothing.

        Raises:
            NotFound: No such deployment.
            Conflict: It was stopped or deleted (`deployment_stopped`).
        """
        deployment = await self._apps.get_deployment(actor, key)
        if deployment.status in ("stopped", "deleted"):
            detail = f"the deployment is {deployment.status}, so nothing of it runs any more; deploy the app again"
            raise Conflict(detail, code="deployment_stopped")
        found: dict[tuple[str | None, Readiness], list[str]] = {}
        for spec in deployment.manifest.functions:
            need = _need(deployment, spec)
            environment = None if need.environment is None else need.environment[1]
            found.setdefault((environment, self._prepare(need)), []).append(spec.name)
        return PreparationView(deployment.id, tuple(_view(*what, names) for what, names in found.items()))

    def _prepare(self, need: Need) -> Readiness:
        if not self._board.takes_work:
            return Readiness("waiting", reason="another server dispatches and has it made ready; this one does not")
        state = readiness(need, self._board.fleet, self._board.clock.monotonic())
        if state.is_new and state.worker is not None:
            self._grants.prepare(need, state.worker)
            return Readiness("building", state.worker)
        return state


def _need(deployment: Deployment, spec: FunctionSpec) -> Need:
    group = (deployment.id, deployment.functions[spec.name])
    return Need(deployment.org, group, python_under(deployment.manifest.python, spec), spec)


def _view(environment: str | None, state: Readiness, functions: list[str]) -> EnvironmentView:
    worker = None if state.worker is None else state.worker.name
    return EnvironmentView(environment, tuple(functions), state.status, worker, state.reason, state.error)
