"""User code that waits for groups: its processors are lent meanwhile, and what only it wanted ends with it (G2.7).

An attempt waits for a group while it reads outcomes of it. When an attempt is over, the groups that it still reads are
cancelled, and unless it succeeded all that it ever read: only it wanted them. A group that was only made goes on.
"""

from __future__ import annotations

from apothic.wire.ids import GroupId, JobId
from apothic_server.domain.decide.cycles import Knot, is_stuck
from apothic_server.domain.errors import Conflict
from apothic_server.domain.jobs import JobStatus
from apothic_server.services.dispatch.board import Board
from apothic_server.services.dispatch.grants import Grants
from apothic_server.services.dispatch.live import LiveJob
from apothic_server.services.dispatch.maps import Maps
from apothic_server.services.dispatch.nesting import Leave, holders

Attempt = tuple[JobId, int]
"""Job and fence."""


class GroupWaits:
    """Which attempts wait for which groups, on the process that dispatches."""

    def __init__(self, board: Board, grants: Grants, maps: Maps) -> None:
        self._board = board
        self._grants = grants
        self._maps = maps
        self._waits: dict[Attempt, dict[GroupId, int]] = {}

    def follow(self, parent: LiveJob, group_id: GroupId) -> Leave:
        """Note that `parent` reads outcomes of a group until the returned function is called, once or more.

        Raises:
            Conflict: It would wait for ever (`call_cycle_deadlock`).
        """
        attempt = (parent.id, parent.fence)
        groups = self._waits.get(attempt)
        if groups is None:
            groups = self._waits[attempt] = {}
            self._board.over(*attempt).add_done_callback(lambda _: self._over(parent, attempt))
        groups[group_id] = groups.get(group_id, 0) + 1
        parent.awaited.append(_knot_key(group_id))
        try:
            self.check(parent, group_id)
        except Conflict:
            self._leave(parent, attempt, group_id)
            raise
        self._board.parked(parent)
        self._grants.grant_ready()
        is_done = False

        def leave() -> None:
            nonlocal is_done
            if not is_done:
                is_done = True
                self._leave(parent, attempt, group_id)

        return leave

    def check(self, parent: LiveJob, group_id: GroupId, *, is_growing: bool = False) -> None:
        """Refuse what `parent` would wait for for ever; nothing when it does not wait for the group.

        Args:
            is_growing: The group is about to get items.

        Raises:
            Conflict: With code `call_cycle_deadlock`.
        """
        group = self._maps.groups.get(group_id)
        if group is None or not self._waits.get((parent.id, parent.fence), {}).get(group_id):
            return
        key, board = _knot_key(group_id), self._board

        def look(other: JobId) -> Knot | None:
            return Knot(group.need, ()) if is_growing and other == key else self._look(other)

        if is_stuck(key, look, lambda need: holders(board, need)):
            spec = group.need.spec
            detail = (
                f"{spec.name} is full (max_containers={spec.max_containers}), and all that executes there waits for "
                f"this group, whose items could never start. Raise max_containers of {spec.name}, or call "
                f"{spec.name}(...) in this process"
            )
            raise Conflict(detail, code="call_cycle_deadlock")

    def _leave(self, parent: LiveJob, attempt: Attempt, group_id: GroupId) -> None:
        groups = self._waits.get(attempt)
        if groups is not None:
            groups[group_id] -= 1
        live = self._board.jobs.get(parent.id)
        if live is not None and live.fence == attempt[1] and _knot_key(group_id) in live.awaited:
            live.awaited.remove(_knot_key(group_id))
            self._board.parked(live)

    def _over(self, parent: LiveJob, attempt: Attempt) -> None:
        succeeded = parent.status is JobStatus.SUCCEEDED
        for group_id, count in self._waits.pop(attempt, {}).items():
            if count or not succeeded:
                self._maps.abandon(group_id)

    def _look(self, key: JobId) -> Knot | None:
        job = self._board.jobs.get(key)
        if job is None or job.status.is_final:
            return self.knot(key)
        return Knot(job.need if job.waits else None, job.awaited)

    def knot(self, key: JobId) -> Knot | None:
        """Return a group as a search for circles sees it: while items wait, one place is enough for it to go on."""
        group = self._maps.groups.get(GroupId(key))
        if group is None:
            return None
        if group.to_cut or group.waiting is not None:
            return Knot(group.need, ())
        return Knot(None, list(group.live)) if group.live else None


def _knot_key(group_id: GroupId) -> JobId:
    """Return a group's key among those of jobs, none of which is the same."""
    return JobId(group_id)
