"""Chunks of ended groups that were read last, kept in memory: nothing of an ended group changes any more."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from apothic.wire import chunks
from apothic.wire.ids import GroupId, OrgId
from apothic_server.store.groups import KEPT_RESULT_MAX, StoredItem

KEPT_MAX = 64
"""Chunks in memory, each with at most `KEPT_RESULT_MAX` bytes of outcomes."""

Place = tuple[OrgId, GroupId, int]
"""The int: first item of the chunk."""


class EndedChunks:
    """Chunks of all orgs; who asks for one says which org asks."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Place, StoredItem] = OrderedDict()

    def find(self, org: OrgId, group: GroupId, number: int) -> StoredItem | None:
        """Return an item of an ended group whose chunk is here; None when the store is to be asked."""
        for place, found in self._kept.items():
            chunk = found.chunk
            if place[1] == group and place[0] == org and chunk is not None and 0 <= number - chunk.first < chunk.count:
                self._kept.move_to_end(place)
                return replace(found, has_row=number in chunk.own)
        return None

    def keep(self, org: OrgId, found: StoredItem) -> StoredItem:
        """Keep the chunk of an item that was read, if it may be kept; return the item with its outcomes unpacked."""
        chunk = found.chunk
        if not found.group.status.is_final or chunk is None or chunk.result is None:
            return found
        if chunk.result.blob is not None or not 0 < len(chunk.result.value.data) <= KEPT_RESULT_MAX:
            return found
        unpacked = replace(found, chunk=replace(chunk, entries=chunks.unpack(chunk.result.value.data)))
        self._kept[org, found.group.id, chunk.first] = unpacked
        if len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
        return unpacked
