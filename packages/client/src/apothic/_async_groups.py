"""The methods of the client for asyncio about groups; `_groups.py` says what they are."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, TypeVar

from apothic import _groups
from apothic._core import Core
from apothic._groups import GroupInfo
from apothic._steps import Steps

if TYPE_CHECKING:
    from apothic.streams import JobStreamCursor, StreamEvent

T = TypeVar("T")


class AsyncGroupMethods:
    """`GroupMethods`, awaited."""

    @property
    def core(self) -> Core:
        """What all operations share."""
        raise NotImplementedError

    async def run(self, steps: Steps[T]) -> T:
        """Perform an operation."""
        raise NotImplementedError

    async def create_group(
        self, function_id: str, *, spread: bool = False, key: str | None = None, stop_after: int | None = None
    ) -> GroupInfo:
        """Make a group of calls that has no items yet, or find the one with this key."""
        return await self.run(_groups.create(self.core, function_id, spread, key, stop_after))

    async def add_inputs(self, group_id: str, first: int, count: int, data: bytes, *, python: str | None = None) -> int:
        """Add packed items to a group and return how many it has then; adding the same ones again changes nothing."""
        return await self.run(_groups.add_inputs(self.core, group_id, first, count, data, python))

    async def close_group(self, group_id: str, total: int) -> GroupInfo:
        """Say that a group has all its `total` items; saying it twice is fine."""
        return await self.run(_groups.close(self.core, group_id, total))

    async def get_group(self, group_id: str) -> GroupInfo:
        """Return one group; NotFoundError when there is none."""
        return await self.run(_groups.get_group(self.core, group_id))

    async def list_groups(
        self, *, app: str | None = None, function: str | None = None, status: str | None = None, limit: int = 50
    ) -> tuple[GroupInfo, ...]:
        """Return up to `limit` groups, newest first."""
        return await self.run(_groups.list_groups(self.core, app, function, status, limit))

    async def cancel_group(self, group_id: str, items: list[int] | None = None) -> GroupInfo:
        """Ask for the end of a group, or of some of its items only, by number. Asking twice is fine."""
        return await self.run(_groups.cancel(self.core, group_id, items))

    def watch_group(
        self,
        group_id: str,
        *,
        snapshot: bool = False,
        cursor: JobStreamCursor | None = None,
        last_index: int | None = None,
        event_types: list[str] | tuple[str, ...] | None = None,
    ) -> AsyncGenerator[StreamEvent]:
        """Yield the events of a group until it has ended; otherwise as `watch_app`."""
        from apothic import _events, _watching

        reader = _watching.group_reader(
            self.core, group_id, snapshot=snapshot, cursor=cursor, last_index=last_index, event_types=event_types
        )
        return _events.follow_async(self.run, reader)
