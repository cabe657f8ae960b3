"""Apps, deployments and functions: deploy, look up, list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from apothic.wire.functions import Manifest
from apothic.wire.ids import AppId, DeploymentId, FunctionId, OrgId
from apothic.wire.lease import HEARTBEATS, heartbeat_of
from apothic.wire.names import APP_NAME_RULE, is_app_name, near_matches
from apothic_server.domain.access import Actor
from apothic_server.domain.apps import Deployment, Function, Switch
from apothic_server.domain.errors import Conflict, Invalid, NotFound, no_such
from apothic_server.domain.idempotency import Keep, KeptAnswer
from apothic_server.domain.views import AppView
from apothic_server.failpoints import fp
from apothic_server.ports.clock import Clock
from apothic_server.services.deployment_events import tell_deployed
from apothic_server.services.repeats import held, keep_result
from apothic_server.services.schedule_changes import schedules_deployed
from apothic_server.store import apps as rows
from apothic_server.store import archives
from apothic_server.store.connection import Connection
from apothic_server.store.database import Database
from apothic_server.store.disk import Disk

REMEMBERED_MAX = 10_000
FunctionRef = tuple[OrgId, str, str]


class Apps:
    """Apps of all orgs. Functions that are called stay in memory until their app is deployed again.

    Args:
        changed: Told the key of a stream that something was committed to.
        grace_s: `disconnect_grace_s` of this cloud.
        is_alone: Whether certainly no other process deploys. While others may, every use of a remembered function asks
            the store whether its deployment is still the active one, so a deploy that was answered is what the next
            call runs on every process (G11.1).
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        disk: Disk,
        *,
        new_key: Callable[[], str],
        changed: Callable[[str], None],
        is_alone: Callable[[], bool],
        grace_s: float,
    ) -> None:
        self._grace_s_min = HEARTBEATS * heartbeat_of(grace_s)
        self._database = database
        self._changed = changed
        self._clock = clock
        self._disk = disk
        self._new_key = new_key
        self._is_alone = is_alone
        self._by_id: dict[tuple[OrgId, str], Function] = {}
        self._by_name: dict[FunctionRef, Function] = {}
        self._loads = 0

    async def list_apps(self, actor: Actor, *, after: AppId | None, limit: int) -> list[AppView]:
        """Return up to `limit` apps with an id above `after`, in the order of their ids."""
        async with self._database.request_unit(actor.org) as unit:
            found = await rows.list_apps(unit, actor.org, after=after or "", limit=limit)
        return [app_view(app) for app in found]

    async def get_app(self, actor: Actor, name: str) -> AppView:
        """Raises: NotFound, naming near matches."""
        async with self._database.request_unit(actor.org) as unit:
            found = await rows.get_app(unit, actor.org, name)
            if found is None:
                raise await no_app(unit, actor.org, name)
        return app_view(found)

    async def app_key(self, actor: Actor, name: str) -> AppId:
        """Return the id of an app; raises NotFound, naming near matches."""
        return (await self.get_app(actor, name)).app.id

    async def deploy(
        self,
        actor: Actor,
        app_name: str,
        manifest: Manifest,
        archive_sha256: str,
        keep: Keep[Switch] | None = None,
        *,
        if_changed: bool = False,
    ) -> Switch | KeptAnswer:
        """Make a deployment and switch the app to it, in one commit (G11.1), in which the answer is kept with `keep`.

        Args:
            if_changed: Make none when the active deployment has the same manifest and archive; return that one.

        Raises:
            KeyInProgress: The key of `keep` is at work.
            KeyReused: It was used for another deployment.
            Invalid: The app's name breaks the rule, or a function's `disconnect_grace_s` is below three heartbeats.
            Conflict: The archive was not uploaded (`archive_missing`).
            DiskLow: The disk is nearly full.
        """
        if not is_app_name(app_name):
            raise Invalid(f"an app name is {APP_NAME_RULE}", code="invalid_name")
        self._check_graces(manifest)
        async with self._database.request_unit(actor.org) as unit:
            kept = await held(unit, actor, keep)
            if kept is not None:
                return kept
            self._disk.require_room()
            if await archives.archive_size(unit, actor.org, archive_sha256) is None:
                raise Conflict("upload the archive before the deployment", code="archive_missing")
            new = self._new_deployment(actor, app_name, manifest, archive_sha256)
            active = await _made_and_locked(unit, new) if if_changed else None
            if active is not None and (active.archive, active.manifest) == (archive_sha256, manifest):
                switch = Switch(active, is_new=False)
            else:
                switch = await self._switch(unit, new)
            await keep_result(unit, actor, keep, switch, self._clock)
            await fp("deploy.before")
        await fp("deploy.after")
        self._tell(switch)
        return switch

    async def rollback(
        self, actor: Actor, app_name: str, *, version: int | None, keep: Keep[Switch] | None = None
    ) -> Switch | KeptAnswer:
        """Make a deployment with the content of an earlier one and switch the app to it, in one commit (G11.4).

        Nothing is uploaded and nothing is built. When the active deployment has that content, nothing changes.

        Args:
            version: The one whose content the app shall run; None takes the newest that is older than what it runs
                now, so that a second rollback goes back one further.

        Raises:
            KeyInProgress: The key of `keep` is at work.
            KeyReused: It was used for another rollback.
            NotFound: No such app, or it has no such version or that was deleted.
            Conflict: Without `version`: there is none before (`no_earlier_version`), or the app is stopped
                (`app_stopped`).
            DiskLow: The disk is nearly full.
        """
        async with self._database.request_unit(actor.org) as unit:
            kept = await held(unit, actor, keep)
            if kept is not None:
                return kept
            self._disk.require_room()
            locked = await rows.lock_active(unit, actor.org, app_name)
            if locked is None:
                raise await no_app(unit, actor.org, app_name)
            app, active_key = locked
            active = None if active_key is None else await rows.get_deployment(unit, actor.org, active_key)
            wanted = await _wanted(unit, actor.org, app, app_name, active, version)
            if active is not None and active.content_version == wanted.content_version:
                switch = Switch(active, is_new=False)
            else:
                new = self._new_deployment(actor, app_name, wanted.manifest, wanted.archive)
                switch = await self._switch(unit, replace(new, restored_from=wanted.content_version))
            await keep_result(unit, actor, keep, switch, self._clock)
            await fp("deploy.before")
        await fp("deploy.after")
        self._tell(switch)
        return switch

    async def _switch(self, unit: Connection, new: rows.NewDeployment) -> Switch:
        deployment, superseded = await rows.create_deployment(unit, new)
        await tell_deployed(unit, deployment, superseded)
        await schedules_deployed(unit, deployment, self._new_key)
        return Switch(deployment, is_new=True, superseded=superseded)

    def _tell(self, switch: Switch) -> None:
        if not switch.is_new:
            return
        self.forget(switch.deployment.org, switch.deployment.app)
        for key in (switch.deployment.app, switch.superseded, switch.deployment.id):
            if key is not None:
                self._changed(key)

    def _check_graces(self, manifest: Manifest) -> None:
        """A shorter grace than this would end with the first heartbeat that is late (G3.1)."""
        shortest = self._grace_s_min
        for spec in manifest.functions:
            if 0 < spec.disconnect_grace_s < shortest:
                raise Invalid(
                    f"disconnect_grace_s of {spec.name} is {spec.disconnect_grace_s}; in this cloud it must be 0 or at "
                    f"least {shortest:g}, three heartbeats of a worker"
                )

    async def get_deployment(self, actor: Actor, key: DeploymentId) -> Deployment:
        """Raises: NotFound."""
        async with self._database.request_unit(actor.org) as unit:
            found = await rows.get_deployment(unit, actor.org, key)
        if found is None:
            raise no_such("deployment")
        return found

    async def get_function(self, actor: Actor, app_name: str, function_name: str) -> Function:
        """Return the function as the app's active deployment has it.

        Raises:
            NotFound: No such app or function; the detail names near matches.
            Conflict: The app's active deployment was stopped (`app_stopped`).
        """
        known = self._by_name.get((actor.org, app_name, function_name))
        if known is not None and await self._is_active(known):
            return known
        loads = self._loads
        async with self._database.request_unit(actor.org) as unit:
            found = await rows.find_function(unit, actor.org, app_name, function_name)
            if found is None:
                raise await _no_function(unit, actor.org, app_name, function_name)
        self._remember(found, loads)
        return found

    async def function_by_id(self, actor: Actor, key: FunctionId) -> Function:
        """Raises: NotFound, also when the active deployment has the function no longer; Conflict as `get_function`."""
        known = self._by_id.get((actor.org, key))
        if known is not None and await self._is_active(known):
            return known
        loads = self._loads
        async with self._database.request_unit(actor.org) as unit:
            found = await rows.get_function(unit, actor.org, key)
            if found is None and (stopped := await rows.stopped_app_of(unit, actor.org, key)) is not None:
                raise _app_stopped(stopped)
        if found is None:
            raise no_such("function")
        self._remember(found, loads)
        return found

    def known_by_id(self, actor: Actor, key: FunctionId) -> Function | None:
        """As `function_by_id`, if memory certainly knows."""
        return self._by_id.get((actor.org, key)) if self._is_alone() else None

    def forget(self, org: OrgId, app: AppId) -> None:
        """Read functions of an app from the store again: its active deployment changed."""
        self._loads += 1
        for key, function in list(self._by_id.items()):
            if function.app == app:
                del self._by_id[key]
                self._by_name.pop((org, function.app_name, function.spec.name), None)

    def forget_all(self) -> None:
        """Others may have deployed unseen: remember nothing."""
        self._loads += 1
        self._by_id.clear()
        self._by_name.clear()

    async def _is_active(self, known: Function) -> bool:
        if self._is_alone():
            return True
        async with self._database.system_read() as connection:
            return await rows.is_active(connection, known.org, known.app, known.deployment)

    def _new_deployment(self, actor: Actor, app_name: str, manifest: Manifest, archive: str) -> rows.NewDeployment:
        return rows.NewDeployment(
            id=DeploymentId(self._new_key()),
            org=actor.org,
            app_name=app_name,
            app_id=AppId(self._new_key()),
            archive=archive,
            manifest=manifest,
            function_ids={spec.name: FunctionId(self._new_key()) for spec in manifest.functions},
            created_by=actor.key,
            created_at=self._clock.now(),
        )

    def _remember(self, function: Function, loads: int) -> None:
        if loads != self._loads:
            return
        if len(self._by_id) >= REMEMBERED_MAX:
            self._by_id.clear()
            self._by_name.clear()
        self._by_id[function.org, function.id] = function
        self._by_name[function.org, function.app_name, function.spec.name] = function


def app_view(found: rows.ActiveApp) -> AppView:
    """Return a row as services answer it."""
    return AppView(found.app, found.version, found.functions)


async def _made_and_locked(unit: Connection, new: rows.NewDeployment) -> Deployment | None:
    """Return what the app runs now, after the deploys that are under way; of two first ones the second finds that."""
    org = new.org
    await rows.add_app(unit, new)
    locked = await rows.lock_active(unit, org, new.app_name)
    if locked is None or locked[1] is None:
        return None
    return await rows.get_deployment(unit, org, locked[1])


async def _wanted(
    unit: Connection, org: OrgId, app: AppId, app_name: str, active: Deployment | None, version: int | None
) -> Deployment:
    """Return the deployment whose content a rollback asks for."""
    if version is not None:
        found = await rows.get_version(unit, org, app, version)
        if found is None:
            raise NotFound(f"app {app_name} has no version {version}, or it was deleted")
        return found
    if active is None:
        raise _app_stopped(app_name)
    found = await rows.get_version_before(unit, org, app, active.content_version)
    if found is None:
        detail = f"app {app_name} has no version before {active.content_version} that is not deleted"
        raise Conflict(detail, code="no_earlier_version")
    return found


async def no_app(unit: Connection, org: OrgId, name: str) -> NotFound:
    """Return the error that there is no app of a name; it names near matches."""
    return NotFound(no_such_name("app", name, near_matches(name, await rows.app_names(unit, org))))


async def _no_function(unit: Connection, org: OrgId, app_name: str, name: str) -> NotFound | Conflict:
    names = await rows.function_names(unit, org, app_name)
    if not names:
        is_known = await rows.get_app(unit, org, app_name) is not None
        return _app_stopped(app_name) if is_known else await no_app(unit, org, app_name)
    return NotFound(no_such_name(f"function in app {app_name}", name, near_matches(name, names)))


def _app_stopped(app_name: str) -> Conflict:
    detail = (
        f"app {app_name} is stopped: no deployment of it takes calls. Deploy it again, for example by `apothic deploy`"
    )
    return Conflict(detail, code="app_stopped")


def no_such_name(kind: str, name: str, near: list[str]) -> str:
    """Return the sentence that there is no `kind` of a name, and which names are near."""
    shown = name if len(name) <= 80 else f"{name[:77]}…"
    advice = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"no {kind} named {shown!r}{advice}"
