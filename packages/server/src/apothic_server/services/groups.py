"""Groups for clients: make one, add its items, close it, look, cancel, read outcomes.

The store is first: every change is one transaction on the group's row, and the dispatcher is told after the commit. On
a process that does not dispatch the telling goes through the store, as for jobs (D4).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from apothic.wire.ids import FunctionId, GroupId
from apothic_server.domain.access import Actor
from apothic_server.domain.apps import Function
from apothic_server.domain.errors import Conflict, TooMany
from apothic_server.domain.group_views import GroupFilter, GroupView, Inputs, NewGroup, OutcomeBatch
from apothic_server.domain.groups import Counts, Group, GroupStatus
from apothic_server.domain.idempotency import Keep, KeptAnswer
from apothic_server.domain.jobs import StreamEvent
from apothic_server.domain.streams import StreamKind, StreamRef
from apothic_server.ports.blobs import Blobs
from apothic_server.services.apps import Apps
from apothic_server.services.deployed import DeployedFunctions
from apothic_server.services.dispatch.board import Board
from apothic_server.services.dispatch.calls import Calls
from apothic_server.services.dispatch.group_waits import GroupWaits
from apothic_server.services.dispatch.live_groups import live_group
from apothic_server.services.dispatch.maps import Maps
from apothic_server.services.dispatch.nesting import caller, check_depth
from apothic_server.services.group_inputs import GroupInputs, seen, takes_no_more
from apothic_server.services.group_outcomes import GroupOutcomes, Reader
from apothic_server.services.item_cancels import ItemCancels
from apothic_server.services.repeats import held, keep_result
from apothic_server.store import groups as rows
from apothic_server.store import streams
from apothic_server.store.connection import Connection
from apothic_server.store.database import Database
from apothic_server.store.disk import Disk


class Groups:
    """Groups of all orgs.

    Attributes:
        readers: Who reads outcomes in this process.
    """

    def __init__(
        self,
        database: Database,
        deployed: DeployedFunctions,
        board: Board,
        maps: Maps,
        waits: GroupWaits,
        calls: Calls,
        apps: Apps,
        blobs: Blobs,
        outcomes: GroupOutcomes,
        disk: Disk,
        cancels: ItemCancels,
        *,
        new_key: Callable[[], str],
    ) -> None:
        self._database = database
        self._deployed = deployed
        self._board = board
        self._clock = board.clock
        self._maps = maps
        self._waits = waits
        self._calls = calls
        self._apps = apps
        self._inputs = GroupInputs(database, deployed, board, maps, waits, blobs, disk)
        self.readers = outcomes
        self._disk = disk
        self._cancels = cancels
        self._new_key = new_key

    async def create(
        self,
        actor: Actor,
        function: FunctionId | tuple[str, str],
        new: NewGroup,
        keep: Keep[GroupView] | None = None,
    ) -> GroupView | KeptAnswer:
        """Begin a group of a function, given by id or by (app, name), or find the one that has the key of `new`.

        Raises:
            NotFound: No such function.
            Conflict: The group with this key is another one (`group_differs`), or the app was stopped (`app_stopped`).
            TooMany: Too many groups of the function have not ended.
            DiskLow: The disk is nearly full.
            Invalid: User code calls and stands too deep already (`call_depth_exceeded`).
            Fenced: User code calls, and its attempt ended meanwhile.
        """
        self._disk.require_room()
        check_depth(actor.attempt)
        found = await self._function(actor, function)
        if actor.attempt is not None:
            caller(self._board, actor.attempt)
        group = self._new(actor, found, new)
        async with self._database.request_unit(actor.org) as unit:
            kept = await held(unit, actor, keep)
            if kept is not None:
                return kept
            earlier = await self._earlier(unit, group)
            if earlier is None:
                await self._check_room(unit, found)
                is_new = await rows.add_group(unit, group)
                earlier = None if is_new else await self._earlier(unit, group)
            if earlier is None:
                created = StreamEvent("group.created", group.created_at, {"status": group.status.value})
                await streams.append(unit, group.org, StreamRef(StreamKind.GROUP, group.id), [created])
                view = GroupView(group, found.app_name, found.spec.name, Counts().as_json(), is_new=True)
            else:
                await rows.hear(unit, actor.org, earlier.id, now=self._clock.now())
                view = await self._view(unit, earlier)
            await keep_result(unit, actor, keep, view, self._clock)
        if view.is_new:
            self._made(group, found)
        return view

    async def add_inputs(
        self, actor: Actor, key: GroupId, inputs: Inputs, keep: Keep[int] | None = None
    ) -> int | KeptAnswer:
        """Add the next items to a group; see `GroupInputs.add`."""
        return await self._inputs.add(actor, key, inputs, keep)

    async def close(
        self, actor: Actor, key: GroupId, total: int, keep: Keep[GroupView] | None = None
    ) -> GroupView | KeptAnswer:
        """Say that a group has all its items.

        Raises:
            NotFound: No such group.
            Conflict: It has another number of items (`group_gap`), was closed with another one, or has ended
                (`group_closed`).
        """
        async with self._database.request_unit(actor.org) as unit:
            kept = await held(unit, actor, keep)
            if kept is not None:
                return kept
            group = await self._held(unit, actor, key)
            if group.total is None:
                if group.status is not GroupStatus.RUNNING:
                    raise takes_no_more(group)
                if group.uploaded != total:
                    detail = f"the group has {group.uploaded} items, not {total}"
                    raise Conflict(detail, code="group_gap")
                await rows.close_group(unit, actor.org, key)
            elif group.total != total:
                raise Conflict(f"the group was closed with {group.total} items, not {total}", code="group_closed")
            view = await self._view(unit, replace(group, total=total))
            await keep_result(unit, actor, keep, view, self._clock)
        if self._board.dispatches:
            self._maps.close(key, total)
        else:
            self._board.hints.changed(key)
        return view

    async def cancel(
        self, actor: Actor, key: GroupId, items: Sequence[int] | None, keep: Keep[GroupView] | None = None
    ) -> GroupView | KeptAnswer:
        """Cancel a group, or some of its items; what has ended stays as it is.

        Raises:
            NotFound: No such group.
            Unavailable: Single items, and no process that dispatches answers; they will be cancelled.
        """
        async with self._database.request_unit(actor.org) as unit:
            kept = await held(unit, actor, keep)
            if kept is not None:
                return kept
            group = await self._held(unit, actor, key)
            if items is None and group.status is GroupStatus.RUNNING:
                await rows.cancel_group(unit, actor.org, key)
                group = replace(group, status=GroupStatus.CANCELLING)
            if items is not None:
                await self._cancels.write(unit, group, items)
            view = await self._view(unit, group)
            await keep_result(unit, actor, keep, view, self._clock)
        if items is not None:
            await self._cancels.carry_out(actor.org, key, items)
        elif self._board.dispatches:
            await asyncio.gather(*map(asyncio.shield, self._maps.cancel(key)))
        self._board.hints.changed(key)
        return view

    async def list_groups(
        self, actor: Actor, wanted: GroupFilter, *, limit: int
    ) -> tuple[list[GroupView], GroupId | None]:
        """Return up to `limit` groups, newest first, and the group after which to read on, None at the end."""
        async with self._database.request_unit(actor.org) as unit:
            found = await rows.list_groups(unit, actor.org, wanted, limit=limit)
            views = [
                await self._shown(unit, group, app_name, function_name) for group, app_name, function_name in found
            ]
            if len(found) == limit:
                return views, views[-1].group.id
            return views, await rows.looked_to(unit, actor.org, wanted)

    async def check(self, actor: Actor, key: GroupId) -> None:
        """Raise NotFound unless a group exists for the actor: user code sees those of its app and those it made."""
        if actor.attempt is not None:  # everybody else learns of it by reading
            async with self._database.request_unit(actor.org) as unit:
                await self._found(unit, actor, key)

    async def found(self, unit: Connection, actor: Actor, key: GroupId) -> GroupView | None:
        """Return a group in the transaction of `unit`; None when the org has no such one."""
        group = await rows.get_group(unit, actor.org, key)
        return None if group is None else await self._view(unit, group)

    async def get(self, actor: Actor, key: GroupId) -> GroupView:
        """Raises: NotFound."""
        async with self._database.request_unit(actor.org) as unit:
            return await self._view(unit, await self._found(unit, actor, key))

    async def outcomes(self, actor: Actor, key: GroupId, first: int) -> OutcomeReader:
        """Return a reader of the outcomes of items from `first` on; close it when done.

        Raises:
            NotFound: No such group.
            TooMany: The org has too many readers.
            Conflict: User code would wait for ever (`call_cycle_deadlock`).
            Fenced: Its attempt ended meanwhile.
        """
        async with self._database.request_unit(actor.org) as unit:
            group = await self._found(unit, actor, key)
            function = await self._deployed.get(unit, group.org, group.deployment, group.function)
        retries = 0 if function is None else function.spec.max_retries
        leave = _stay
        if actor.attempt is not None and not group.status.is_final:
            leave = self._waits.follow(caller(self._board, actor.attempt), key)
        try:
            reader = self.readers.open(actor, group, first, retries=retries, leave=leave)
        except TooMany:
            leave()
            raise
        return OutcomeReader(self, actor, reader)

    def _new(self, actor: Actor, function: Function, new: NewGroup) -> Group:
        attempt, now = actor.attempt, self._clock.now()
        return Group(
            id=GroupId(self._new_key()),
            org=actor.org,
            app=function.app,
            deployment=function.deployment,
            function=function.id,
            status=GroupStatus.RUNNING,
            spread=new.spread,
            key=new.key,
            stop_after=new.stop_after,
            uploaded=0,
            uploaded_bytes=0,
            total=None,
            counts=None,
            error=None,
            created_by=actor.key,
            parent=None if attempt is None else attempt.parent,
            depth=0 if attempt is None else attempt.depth + 1,
            created_at=now,
            finished_at=None,
            heard_at=now,
        )

    def _made(self, group: Group, function: Function) -> None:
        if self._board.dispatches:
            self._maps.open(live_group(group, function, self._clock.monotonic()))
        self._board.hints.changed(group.id)

    async def _function(self, actor: Actor, function: FunctionId | tuple[str, str]) -> Function:
        if isinstance(function, str):
            return await self._apps.function_by_id(actor, function)
        return await self._apps.get_function(actor, *function)

    async def _earlier(self, unit: Connection, new: Group) -> Group | None:
        """Return the group that has the key already."""
        if new.key is None:
            return None
        key = await rows.find_group(unit, new.org, new.function, new.key)
        found = None if key is None else await rows.get_group(unit, new.org, key)
        if found is not None and (found.spread, found.stop_after) != (new.spread, new.stop_after):
            detail = "the group with this key was made with another spread or stop_after; use another key"
            raise Conflict(detail, code="group_differs")
        return found

    async def _check_room(self, unit: Connection, function: Function) -> None:
        bound = function.spec.max_pending_tasks
        count = await rows.count_unfinished(unit, function.org, function.deployment, function.id, limit=bound)
        if count >= bound:
            detail = f"{bound} groups of {function.spec.name} have not ended (max_pending_tasks={bound})"
            raise TooMany(detail, retry_after_s=1)

    async def _held(self, unit: Connection, actor: Actor, key: GroupId) -> Group:
        return seen(actor, await rows.hold_group(unit, actor.org, key))

    async def _found(self, unit: Connection, actor: Actor, key: GroupId) -> Group:
        return seen(actor, await rows.get_group(unit, actor.org, key))

    async def _view(self, unit: Connection, group: Group) -> GroupView:
        app_name, function_name = await rows.get_names(unit, group.org, group.app, group.function)
        return await self._shown(unit, group, app_name, function_name)

    async def _shown(self, unit: Connection, group: Group, app_name: str, function_name: str) -> GroupView:
        live = self._maps.groups.get(group.id)
        waiting = None if live is None else live.waiting
        reason = None if waiting is None else self._calls.waiting_reasons([waiting]).get(waiting)
        return GroupView(group, app_name, function_name, await self._counts(unit, group), reason)

    async def _counts(self, unit: Connection, group: Group) -> dict[str, int]:
        if group.counts is not None:
            return group.counts
        live = self._maps.counts(group.id) if self._board.dispatches else None
        return await rows.count_items(unit, group) if live is None else live.as_json()


def _stay() -> None:
    """Nobody waits, so nobody leaves."""


class OutcomeReader:
    """A reader of outcomes; close it when done."""

    def __init__(self, groups: Groups, actor: Actor, reader: Reader) -> None:
        self._groups = groups
        self._actor = actor
        self._reader = reader

    async def next(self, *, timeout_s: float) -> OutcomeBatch:
        """Return what comes next; an empty batch when nothing came within `timeout_s`."""
        runs, ended = await self._reader.next(timeout_s=timeout_s)
        end = None if ended is None else await self._groups.get(self._actor, ended.id)
        return OutcomeBatch(runs, end)

    def wake(self) -> None:
        """Let a `next` that waits return now."""
        self._reader.wake()

    def close(self) -> None:
        """Give the place back; twice is fine."""
        self._reader.close()
