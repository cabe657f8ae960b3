"""Groups that their clients left without a word: those that do not have all their items, and that nobody cares for.

A client that dies cannot cancel its group, which would stay open for ever. So a group that takes items still is
cancelled when for long nobody added any, waited for room for some, or read outcomes. The store remembers when somebody
last did, to within `NOTED_S`; memory knows it later at most, so the store is asked before anything ends.
"""

from __future__ import annotations

import math
from datetime import timedelta

from apothic.wire.ids import GroupId
from apothic.wire.runner import error_to_json
from apothic.wire.values import RemoteError
from apothic_server.services.dispatch.board import Board
from apothic_server.services.dispatch.live_groups import LiveGroup
from apothic_server.services.dispatch.maps import Maps
from apothic_server.store import live_groups as rows
from apothic_server.store.database import Database

RETURN_S = 600.0
"""While this process was not there, or slept, nobody could be heard of; so long afterwards no group counts as left."""

SLEPT_S = 60.0
"""Between two looks, of which there is one a second."""


class Silence:
    """Cancels such groups."""

    def __init__(self, database: Database, board: Board, maps: Maps) -> None:
        self._database = database
        self._board = board
        self._maps = maps
        self._looked_at = -math.inf
        self._awake_since = 0.0

    async def end_silent(self) -> list[GroupId]:
        """Cancel groups that were left; return those of which the store knows more than memory does."""
        now = self._board.clock.monotonic()
        if now - self._looked_at > SLEPT_S:
            self._awake_since = now
        self._looked_at = now
        if now < self._awake_since + RETURN_S:
            return []
        silent = [
            one for one in self._maps.groups.values() if _takes_items(one) and now >= one.heard_at + one.patience_s
        ]
        return [group.id for group in silent if not await self._end(group)]

    async def _end(self, group: LiveGroup) -> bool:
        board, term = self._board, self._board.term
        if term is None or not board.dispatches:
            return True
        error = RemoteError("apothic.MapAbandoned", _text(group.patience_s), code="map_abandoned")
        before = board.clock.now() - timedelta(seconds=group.patience_s)
        async with self._database.system_unit() as unit:
            is_left = await rows.stop_silent(
                unit, group.need.org, group.id, error_to_json(error), heard_before=before, term=term
            )
        if is_left:
            group.error = error
            self._maps.cancel(group.id)
            board.hints.changed(group.id)
        return is_left


def _takes_items(group: LiveGroup) -> bool:
    return group.total is None and not group.is_stopping


def _text(patience_s: float) -> str:
    hours = f"{patience_s / 3600:.0f} hours" if patience_s > 3600 else "an hour"
    return f"not all items were sent, and for {hours} nobody sent one or read outcomes: the caller is taken to be gone"
