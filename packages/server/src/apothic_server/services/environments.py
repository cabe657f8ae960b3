"""Environments as their users see them: made ready before anybody calls, listed, and removed when nobody needs them."""

from __future__ import annotations

from dataclasses import replace

from apothic.wire.functions import FunctionSpec
from apothic.wire.ids import DeploymentId
from apothic.wire.images import environment_id
from apothic_server.domain.access import Actor
from apothic_server.domain.apps import Deployment, python_under
from apothic_server.domain.decide.placement import Need
from apothic_server.domain.decide.readiness import Readiness, readiness
from apothic_server.domain.errors import Conflict, Unavailable
from apothic_server.domain.views import EnvironmentView, HeldOn, HeldView, PreparationView
from apothic_server.services.apps import Apps
from apothic_server.services.dispatch.board import Board
from apothic_server.services.dispatch.grants import Grants
from apothic_server.services.dispatch.shelves import Shelves
from apothic_server.store import deployments as rows
from apothic_server.store.database import Database

LIST_S, PRUNE_S = 5.0, 45.0
"""How long workers may take to say what they have, and to remove it."""


class Environments:
    """Has the environments of deployments made ready, says how far they are, and removes those that none needs.

    Only memory knows what is ready, so asking again is how one follows it: also after another server took over.
    """

    def __init__(self, database: Database, apps: Apps, board: Board, grants: Grants, shelves: Shelves) -> None:
        self._database = database
        self._apps = apps
        self._board = board
        self._grants = grants
        self._shelves = shelves

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

    async def list_held(self, actor: Actor) -> HeldView:
        """Return the environments of the actor's org on the workers that are linked."""
        needed = await self._needed(actor)
        return await self._ask(actor, needed, keep=None, timeout_s=LIST_S)

    async def prune(self, actor: Actor) -> HeldView:
        """Remove the environments that no live deployment of the actor's org needs and nobody uses; return those.

        Needed are those of active deployments, and of all that have unfinished jobs.

        Raises:
            Unavailable: Another server dispatches.
        """
        if not self._board.takes_work:
            raise Unavailable("another server dispatches, and workers are linked to that; ask it", retry_after_s=1)
        needed = await self._needed(actor)
        found = await self._ask(actor, needed, keep=sorted(needed), timeout_s=PRUNE_S)
        return replace(found, items=tuple(one for one in found.items if one.held.is_removed))

    async def _ask(self, actor: Actor, needed: set[str], *, keep: list[str] | None, timeout_s: float) -> HeldView:
        told, silent = await self._shelves.ask(actor.org, keep=keep, timeout_s=timeout_s)
        items = (HeldOn(name, one, one.environment in needed) for name, answer in told for one in answer.items)
        freed = sum(answer.freed_bytes for _, answer in told)
        return HeldView(tuple(items), tuple(silent), freed, is_known=self._board.dispatches)

    async def _needed(self, actor: Actor) -> set[str]:
        async with self._database.request_unit(actor.org) as unit:
            images = await rows.needed_images(unit, actor.org)
        return {environment_id(image) for image in images} - {""}

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
