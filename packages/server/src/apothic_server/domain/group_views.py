"""Groups as requests ask for them and as services answer them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from apothic.wire.ids import GroupId
from apothic_server.domain.groups import Group, GroupStatus


@dataclass(frozen=True, slots=True)
class NewGroup:
    """What a new group is to be like; the attributes are those of `Group`."""

    spread: bool = False
    key: str | None = None
    stop_after: int | None = None


@dataclass(frozen=True, slots=True)
class Inputs:
    """Items to be added to a group, packed as `apothic.wire.chunks` says, and not looked at yet."""

    first: int
    count: int
    python: str | None
    data: bytes


@dataclass(frozen=True, slots=True)
class GroupFilter:
    """Which groups a list shows; None lets all pass. `before`: only older ones, by their ids."""

    app_name: str | None = None
    function_name: str | None = None
    status: GroupStatus | None = None
    before: GroupId | None = None


@dataclass(frozen=True, slots=True)
class GroupView:
    """A group as it is now, with the names of its app and function.

    Attributes:
        counts: Items by status; those that were not added yet are no items.
        waiting_reason: Why its next items do not run yet; None when none waits or nothing is in the way.
        is_new: The request that is answered made it.
    """

    group: Group
    app_name: str
    function_name: str
    counts: dict[str, int]
    waiting_reason: str | None = None
    is_new: bool = False


@dataclass(frozen=True, slots=True)
class OutcomeRun:
    """Outcomes of items, packed; of neighbours from `first` on unless `indexes` names each.

    Attributes:
        python: As `Value.python`, for all of them.
    """

    first: int
    count: int
    python: str | None
    data: bytes
    indexes: list[int] | None = None


@dataclass(frozen=True, slots=True)
class OutcomeBatch:
    """What a reader of outcomes gets next; `end` is the group once nothing follows."""

    runs: Sequence[OutcomeRun]
    end: GroupView | None = None
