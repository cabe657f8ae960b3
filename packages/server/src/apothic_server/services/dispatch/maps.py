"""Maps: the unfinished groups in the dispatcher's memory (D10).

A group is durable before it is opened here, and so are its inputs. What other processes did to its row is read again.
"""

from __future__ import annotations

from collections.abc import Sequence

from apothic.wire.ids import GroupId
from apothic_server.domain.groups import Counts, GroupStatus
from apothic_server.domain.jobs import JobStatus
from apothic_server.services.dispatch.board import Board
from apothic_server.services.dispatch.live_groups import Listener, LiveGroup


class Maps:
    """What clients ask of the dispatcher about groups."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._groups: dict[GroupId, LiveGroup] = {}

    def open(self, group: LiveGroup) -> None:
        """Take in a group whose row was just committed; nothing when it is here, or another process dispatches."""
        if self._board.term is not None:
            self._groups.setdefault(group.id, group)

    def grew(self, group_id: GroupId, uploaded: int) -> None:
        """The inputs of the items below `uploaded` are on disk."""
        group = self._groups.get(group_id)
        if group is not None and uploaded > group.uploaded:
            group.to_cut.add(group.uploaded, uploaded)
            group.uploaded = uploaded
            group.version += 1

    def close(self, group_id: GroupId, total: int) -> None:
        """The row says that no more than `total` items come."""
        group = self._groups.get(group_id)
        if group is not None:
            self.grew(group_id, total)
            group.total = total

    def cancel(self, group_id: GroupId, items: Sequence[int] | None = None) -> None:
        """Cancel a group whose row says `cancelling`, or some of its items; those that have ended stay as they are."""
        group = self._groups.get(group_id)
        if group is not None and items is None:
            group.status = GroupStatus.CANCELLING

    def counts(self, group_id: GroupId) -> Counts | None:
        """Return how many items of a group are in which status; None when it is not in memory: the row tells then."""
        group = self._groups.get(group_id)
        return None if group is None else self._count(group)

    def listen(self, group_id: GroupId) -> Listener | None:
        """Be told which items of a group become final from now on; None when it is not in memory."""
        group = self._groups.get(group_id)
        return None if group is None else Listener(group)

    def _count(self, group: LiveGroup) -> Counts:
        ended = group.ended
        found = Counts(
            queued=group.to_cut.items,
            succeeded=ended.succeeded,
            failed=ended.failed,
            cancelled=ended.cancelled,
            timed_out=ended.timed_out,
        )
        for key, part in group.live.items():
            job = self._board.jobs.get(key)
            status = JobStatus.QUEUED if job is None else job.status
            if status is JobStatus.RETRYING:
                found.retrying += part.count
            elif status is JobStatus.QUEUED:
                found.queued += part.count
            else:
                found.running += part.count
        return found
