"""Inputs of groups: checked for their sizes only, stored as they came, told to the dispatcher."""

from __future__ import annotations

from apothic.wire import chunks
from apothic.wire.ids import GroupId
from apothic.wire.limits import (
    CHUNK_INPUTS_MAX,
    GROUP_ITEMS_MAX,
    GROUP_WAITING_BYTES_MAX,
    VALUE_INLINE_MAX,
    VALUE_MAX,
)
from apothic_server.domain.access import Actor
from apothic_server.domain.apps import check_python
from apothic_server.domain.errors import Conflict, Invalid, TooLarge, TooMany, no_such, problem
from apothic_server.domain.group_views import Inputs
from apothic_server.domain.groups import Group, GroupStatus, Segment
from apothic_server.domain.idempotency import Keep, KeptAnswer
from apothic_server.ports.blobs import Blobs
from apothic_server.services.blobs import digest_of, write_blob
from apothic_server.services.deployed import DeployedFunctions
from apothic_server.services.dispatch.board import Board
from apothic_server.services.dispatch.group_waits import GroupWaits
from apothic_server.services.dispatch.maps import Maps
from apothic_server.services.dispatch.nesting import caller
from apothic_server.services.repeats import held, keep_result
from apothic_server.store import groups as rows
from apothic_server.store.connection import Connection
from apothic_server.store.database import Database
from apothic_server.store.disk import Disk


class GroupInputs:
    """Takes inputs of groups of all orgs."""

    def __init__(
        self,
        database: Database,
        deployed: DeployedFunctions,
        board: Board,
        maps: Maps,
        waits: GroupWaits,
        blobs: Blobs,
        disk: Disk,
    ) -> None:
        self._database = database
        self._deployed = deployed
        self._board = board
        self._clock = board.clock
        self._maps = maps
        self._waits = waits
        self._blobs = blobs
        self._disk = disk

    async def add(self, actor: Actor, key: GroupId, inputs: Inputs, keep: Keep[int] | None = None) -> int | KeptAnswer:
        """Add the next items to a group and return how many it has; items that it has already change nothing.

        Raises:
            NotFound: No such group.
            Invalid: The data does not hold what is said, or needs another Python (`python_mismatch`).
            TooLarge: An item exceeds `VALUE_MAX` (`value_too_large`).
            Conflict: The items are not the next ones (`group_gap`), or the group takes no more (`group_closed`).
            TooMany: Too much of it waits already (`group_full`).
            Conflict: User code waits for the group, and would do so for ever (`call_cycle_deadlock`).
            Fenced: User code calls, and its attempt ended meanwhile.
            DiskLow: The disk is nearly full.
        """
        self._disk.require_room()
        _check(inputs)
        if actor.attempt is not None:
            self._waits.check(caller(self._board, actor.attempt), key, is_growing=True)
        blob = await self._stored(actor, key, inputs)
        try:
            return await self._add(actor, key, inputs, blob, keep)
        except TooMany:  # who waits for room is there
            async with self._database.request_unit(actor.org) as unit:
                await rows.hear(unit, actor.org, key, now=self._clock.now())
            raise

    async def _add(
        self, actor: Actor, key: GroupId, inputs: Inputs, blob: str | None, keep: Keep[int] | None
    ) -> int | KeptAnswer:
        async with self._database.request_unit(actor.org) as unit:
            kept = await held(unit, actor, keep)
            if kept is not None:
                return kept
            group = seen(actor, await rows.hold_group(unit, actor.org, key))
            uploaded, segment = inputs.first + inputs.count, None
            if uploaded <= group.uploaded:
                uploaded = group.uploaded
            else:
                await self._check_next(unit, group, inputs)
                await rows.add_inputs(unit, actor.org, key, inputs, blob, now=self._clock.now())
                data = inputs.data if blob is None else b""
                segment = Segment(inputs.first, inputs.count, inputs.python, data, blob)
            await keep_result(unit, actor, keep, uploaded, self._clock)
        if self._board.dispatches:
            self._maps.grew(key, uploaded, segment)
        else:
            self._board.hints.changed(key)
        return uploaded

    async def _stored(self, actor: Actor, key: GroupId, inputs: Inputs) -> str | None:
        """Put a large item where large values lie; return its name there."""
        if len(inputs.data) <= VALUE_INLINE_MAX:
            return None
        async with self._database.request_unit(actor.org) as unit:
            seen(actor, await rows.get_group(unit, actor.org, key))
        digest = digest_of(inputs.data)
        await write_blob(self._blobs, actor.org, digest, inputs.data)
        return digest

    async def _check_next(self, unit: Connection, group: Group, inputs: Inputs) -> None:
        if group.status is not GroupStatus.RUNNING or group.total is not None:
            raise takes_no_more(group)
        if inputs.first != group.uploaded:
            raise Conflict(f"the next item of this group is {group.uploaded}, not {inputs.first}", code="group_gap")
        if inputs.python is not None:
            function = await self._deployed.get(unit, group.org, group.deployment, group.function)
            if function is not None:
                check_python(function, inputs.python)
        if group.uploaded_bytes + len(inputs.data) > GROUP_WAITING_BYTES_MAX:
            waiting = await rows.waiting_bytes(unit, group)
            if waiting + len(inputs.data) > GROUP_WAITING_BYTES_MAX:
                detail = f"{waiting} bytes of inputs wait already; send more when some items are done"
                raise TooMany(detail, code="group_full", retry_after_s=1)


def seen(actor: Actor, group: Group | None) -> Group:
    """Return a group that was read, unless it does not exist for the actor; then raise NotFound."""
    if group is None or not actor.sees(group.app, group.parent):
        raise no_such("group")
    return group


def takes_no_more(group: Group) -> Conflict:
    """Return the error that a group takes no more items."""
    why = "was closed" if group.total is not None else f"is {group.status.value}"
    return Conflict(f"the group {why}; it takes no more items", code="group_closed")


def _check(inputs: Inputs) -> None:
    """Refuse data that does not hold what is said; what the entries mean is nobody's business here."""
    if inputs.first + inputs.count > GROUP_ITEMS_MAX:
        wrong = problem(["query", "count"], f"must leave the group at {GROUP_ITEMS_MAX} items at most", "out_of_range")
        raise Invalid("The inputs are not valid.", problems=[wrong])
    try:
        count = chunks.count(inputs.data)
    except ValueError as error:
        raise _bad(f"is not packed: {error}", "chunk_invalid") from None
    if count != inputs.count:
        raise _bad(f"holds {count} entries, not {inputs.count}", "chunk_invalid")
    size = len(inputs.data)
    if count > 1 and size > CHUNK_INPUTS_MAX:
        raise _bad(f"holds several items and exceeds {CHUNK_INPUTS_MAX} bytes", "too_long")
    if size - chunks.ENTRY_OVERHEAD - 1 > VALUE_MAX:
        raise TooLarge(f"The encoded item exceeds {VALUE_MAX} bytes.", code="value_too_large")


def _bad(msg: str, kind: str) -> Invalid:
    return Invalid(f"The body {msg}.", problems=[problem(["body"], msg, kind)])
