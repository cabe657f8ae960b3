"""Cancelling single items of groups (G4.1): on disk first, then in the memory of the process that dispatches.

An item that is executed in a chunk has no row of its own that a cancel could move, so the wish is written down; whoever
dispatches gives the item a row that says `cancelled` when its chunk ends. On another process the answer waits until the
one that dispatches has the wish in memory: no end that comes later is a success.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from apothic.wire.ids import GroupId, OrgId
from apothic_server.domain.errors import Unavailable
from apothic_server.domain.groups import Group
from apothic_server.services.dispatch.board import Board
from apothic_server.services.dispatch.maps import Maps
from apothic_server.store import groups as rows
from apothic_server.store.connection import Connection
from apothic_server.store.database import Database

LOOK_S, LOOKS = 0.02, 250
"""Whether the process that dispatches has a wish is looked at so often, 5 s in all."""


class ItemCancels:
    """Wishes of all orgs."""

    def __init__(self, database: Database, board: Board, maps: Maps) -> None:
        self._database = database
        self._board = board
        self._maps = maps

    async def write(self, unit: Connection, group: Group, items: Sequence[int]) -> None:
        """Write down, in the transaction that holds a group, that items of it are to be cancelled."""
        if not group.status.is_final:
            known = [item for item in items if item < group.uploaded]
            await rows.ask_to_cancel(unit, group.org, group.id, known)

    async def carry_out(self, org: OrgId, key: GroupId, items: Sequence[int]) -> None:
        """Return when no end of these items that comes later is a success; after the commit of `write`.

        Raises:
            Unavailable: No process that dispatches answers; the wish is kept.
        """
        if self._board.dispatches:
            await asyncio.gather(*map(asyncio.shield, self._maps.cancel(key, items)))
            self._maps.look_at(key)  # so that its rows are marked
            return
        self._board.hints.changed(key)
        for _ in range(LOOKS):
            async with self._database.request_unit(org) as unit:
                if not await rows.count_new_cancels(unit, org, key, items):
                    return
            await asyncio.sleep(LOOK_S)
        raise Unavailable(
            "the server that dispatches does not answer; the cancellation will be obeyed", retry_after_s=1
        )
