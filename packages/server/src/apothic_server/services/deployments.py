"""Deployments that exist: list, stop and delete them.

A stopped deployment takes no calls. Its waiting jobs end `failed` with the code `deployment_stopped`, its running ones
finish, or are cancelled if asked for. A deleted one is a stopped one that lists do not show; records of its jobs stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from apothic.wire.ids import DeploymentId
from apothic_server.domain.access import Actor
from apothic_server.domain.apps import Deployment
from apothic_server.domain.deployments import Closed, DeploymentEntry, DeploymentStatus, Drain
from apothic_server.domain.errors import Conflict, no_such
from apothic_server.domain.idempotency import Keep, KeptAnswer
from apothic_server.ports.clock import Clock
from apothic_server.services.apps import Apps
from apothic_server.services.deployment_events import tell_deleted, tell_stopped
from apothic_server.services.dispatch.closing import Closing
from apothic_server.services.repeats import held, keep_result
from apothic_server.services.schedule_changes import schedules_stopped
from apothic_server.store import apps
from apothic_server.store import deployments as rows
from apothic_server.store.connection import Connection
from apothic_server.store.database import Database

Ended = tuple[Deployment, int]
"""A deployment that was stopped or deleted, and how many of its jobs have not ended yet."""


class Deployments:
    """Deployments of all orgs.

    Args:
        forgets: Gets told apps whose functions changed.
        changed: Told the key of a stream that something was committed to.
    """

    def __init__(
        self, database: Database, clock: Clock, closing: Closing, forgets: Apps, *, changed: Callable[[str], None]
    ) -> None:
        self._database = database
        self._clock = clock
        self._closing = closing
        self._apps = forgets
        self._changed = changed

    async def list_deployments(
        self, actor: Actor, *, app_name: str | None, before: DeploymentId | None, limit: int
    ) -> list[DeploymentEntry]:
        """Return up to `limit` deployments that are not deleted, newest first, below `before`.

        Raises:
            NotFound: There is no such app.
        """
        if app_name is not None:
            await self._apps.get_app(actor, app_name)
        async with self._database.request_unit(actor.org) as unit:
            return await rows.list_deployments(unit, actor.org, app_name=app_name, before=before, limit=limit)

    async def stop(
        self, actor: Actor, key: DeploymentId, *, cancels: bool, keep: Keep[Ended] | None = None
    ) -> Ended | KeptAnswer:
        """Let a deployment take no more calls; one that takes none already stays as it is.

        Args:
            cancels: Its running jobs are cancelled too.

        Returns:
            The deployment after it, and how many of its jobs have not ended yet; with `keep`, had not in its commit.

        Raises:
            NotFound: No such deployment.
        """
        async with self._database.request_unit(actor.org) as unit:
            kept = await held(unit, actor, keep)
            if kept is not None:
                return kept
            found = await self._locked(unit, actor, key)
            if found.status in ("active", "superseded"):
                await rows.close(unit, actor.org, key, DeploymentStatus.STOPPED, self._clock.now())
                await tell_stopped(unit, found, self._clock.now())
                await self._end_schedules(unit, actor, found)
            await rows.drain(unit, actor.org, key, _drain(cancels=cancels))
            told = await _ended(unit, found)
            await keep_result(unit, actor, keep, told, self._clock)
        after = await self._carry_out(actor, found, DeploymentStatus(found.status), cancels=cancels)
        return after if keep is None else told

    async def delete(self, actor: Actor, key: DeploymentId, *, cancels: bool) -> tuple[Deployment, int]:
        """Delete a deployment; one that is deleted already stays so.

        Args:
            cancels: Delete it even if it is active or has unfinished jobs; those are ended or cancelled.

        Returns:
            As `stop`.

        Raises:
            NotFound: No such deployment.
            Conflict: It is active (`deployment_active`), or has unfinished jobs (`deployment_busy`).
        """
        async with self._database.request_unit(actor.org) as unit:
            found = await self._locked(unit, actor, key)
            if found.status != "deleted":
                if not cancels:
                    await self._check_unused(unit, found)
                await rows.close(unit, actor.org, key, DeploymentStatus.DELETED, self._clock.now())
                await tell_deleted(unit, found, self._clock.now())
                await self._end_schedules(unit, actor, found)
            await rows.drain(unit, actor.org, key, _drain(cancels=cancels))
        return await self._carry_out(actor, found, DeploymentStatus.DELETED, cancels=cancels)

    async def _end_schedules(self, unit: Connection, actor: Actor, before: Deployment) -> None:
        if before.status == "active":
            await schedules_stopped(unit, actor, before.app, self._clock.now())

    async def _locked(self, unit: Connection, actor: Actor, key: DeploymentId) -> Deployment:
        if not await rows.lock_app(unit, actor.org, key):
            raise no_such("deployment")
        found = await apps.get_deployment(unit, actor.org, key)
        if found is None:
            raise no_such("deployment")
        return found

    async def _check_unused(self, unit: Connection, found: Deployment) -> None:
        if found.status == "active":
            detail = f"calls of app {found.app_name} run this deployment; stop it first, or delete it with now=true"
            raise Conflict(detail, code="deployment_active")
        unfinished = await rows.count_unfinished(unit, found.org, found.id)
        if unfinished or self._closing.unfinished(found.id):
            detail = f"{unfinished or 'some'} jobs of this deployment have not ended; wait, or delete it with now=true"
            raise Conflict(detail, code="deployment_busy")

    async def _carry_out(
        self, actor: Actor, before: Deployment, status: DeploymentStatus, *, cancels: bool
    ) -> tuple[Deployment, int]:
        self._apps.forget(before.org, before.app)
        for stream in (before.app, before.id):
            self._changed(stream)
        now = status if status is DeploymentStatus.DELETED else DeploymentStatus.STOPPED
        cancelling = self._closing.apply(Closed(before.id, now, _drain(cancels=cancels)))
        await asyncio.gather(*cancelling)
        async with self._database.request_unit(actor.org) as unit:
            return await _ended(unit, before)


async def _ended(unit: Connection, before: Deployment) -> Ended:
    after = await apps.get_deployment(unit, before.org, before.id)
    return after or before, await rows.count_unfinished(unit, before.org, before.id)


def _drain(*, cancels: bool) -> Drain:
    return Drain.CANCEL if cancels else Drain.FINISH
