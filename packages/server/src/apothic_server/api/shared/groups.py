"""What the faces ask of the service of groups; see `services.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from apothic.wire.ids import FunctionId, GroupId
from apothic_server.domain.access import Actor
from apothic_server.domain.group_views import GroupFilter, GroupView, Inputs, NewGroup, OutcomeBatch
from apothic_server.domain.idempotency import Keep, KeptAnswer


class OutcomeReader(Protocol):
    """One reader of a group's outcomes; `close` gives its place back."""

    async def next(self, *, timeout_s: float) -> OutcomeBatch:
        """Return what comes next; an empty batch when nothing came within `timeout_s`."""
        ...

    def wake(self) -> None:
        """Let a `next` that waits return now."""
        ...

    def close(self) -> None: ...


class Groups(Protocol):
    """Groups of the actor's org."""

    async def create(
        self,
        actor: Actor,
        function: FunctionId | tuple[str, str],
        new: NewGroup,
        keep: Keep[GroupView] | None = None,
    ) -> GroupView | KeptAnswer:
        """Raises `Conflict` with code `group_differs` or `app_stopped`."""
        ...

    async def add_inputs(
        self, actor: Actor, key: GroupId, inputs: Inputs, keep: Keep[int] | None = None
    ) -> int | KeptAnswer:
        """Return how many items there are then; raises `Conflict` (`group_gap`, `group_closed`) and `TooMany`."""
        ...

    async def close(
        self, actor: Actor, key: GroupId, total: int, keep: Keep[GroupView] | None = None
    ) -> GroupView | KeptAnswer: ...

    async def cancel(
        self, actor: Actor, key: GroupId, items: Sequence[int] | None, keep: Keep[GroupView] | None = None
    ) -> GroupView | KeptAnswer: ...

    async def get(self, actor: Actor, key: GroupId) -> GroupView: ...

    async def list_groups(
        self, actor: Actor, wanted: GroupFilter, *, limit: int
    ) -> tuple[Sequence[GroupView], GroupId | None]:
        """Return a page, newest first, and the group after which the next one begins."""
        ...

    async def outcomes(self, actor: Actor, key: GroupId, first: int) -> OutcomeReader: ...
