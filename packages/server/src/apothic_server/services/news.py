"""What other processes committed, passed on to whoever waits for it here."""

from __future__ import annotations

from collections.abc import Callable

from apothic.wire.ids import GroupId, JobId
from apothic_server.services.dispatch.board import Board
from apothic_server.services.dispatch.maps import Maps
from apothic_server.services.outcomes import Outcomes
from apothic_server.services.streams import Streams


class News:
    """Wakes watchers, waiters and the dispatcher. Every one of them reads the store; a hint that is lost costs seconds.

    Attributes:
        missed: Called when anything may have been missed: the dispatcher is to look at its rows.
    """

    def __init__(self, board: Board, streams: Streams, outcomes: Outcomes, maps: Maps) -> None:
        self._maps = maps
        self._board = board
        self._streams = streams
        self._outcomes = outcomes
        self.missed: Callable[[], None] = lambda: None

    def heard(self, keys: list[str] | None) -> None:
        """Something of these keys was committed elsewhere; None stands for everything."""
        if keys is None:
            self._streams.hint_all()
            self._outcomes.hint_all()
            self.missed()
            return
        for key in keys:
            self._streams.hint(key)
            self._outcomes.hint(JobId(key))
            self._board.look_at(JobId(key))
            self._maps.look_at(GroupId(key))
