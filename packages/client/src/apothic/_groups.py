"""Groups, which call one function for many items: what the server says of them, and the operations, without I/O."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from apothic._core import Core
from apothic._exchange import perform
from apothic._http import Request
from apothic._job_lists import wanted
from apothic._operations import ACCEPT_JSON, JSON_TYPE, get, once, page, part, read, target
from apothic._parse import build
from apothic._ranges import whole, wrong
from apothic._steps import Steps
from apothic.wire.limits import GROUP_ITEMS_MAX, GROUP_KEY_LENGTH_MAX, LIST_PAGE_MAX

if TYPE_CHECKING:
    from apothic.streams import JobStreamCursor, StreamEvent

T = TypeVar("T")

FINAL = frozenset({"succeeded", "failed", "cancelled"})
BYTES_TYPE = ("Content-Type", "application/octet-stream")


@dataclass(frozen=True)
class GroupCounts:
    """How many items have each status; `running` includes those that start and those that are being cancelled."""

    queued: int
    running: int
    retrying: int
    succeeded: int
    failed: int
    cancelled: int
    timed_out: int

    @property
    def final(self) -> int:
        """Items that have ended."""
        return self.succeeded + self.failed + self.cancelled + self.timed_out


@dataclass(frozen=True)
class GroupInfo:
    """One group; item n is the job `jobs:KEY.n` of the group `groups:KEY`.

    Attributes:
        app, function_name: Names; `function` and `deployment` are ids.
        status: `running`, `cancelling`, or a final one: `succeeded` (all items did), `failed` or `cancelled`.
        spread: Each item holds all positional arguments of its call.
        items: How many were sent so far.
        total: How many there are; None until all were sent.
        error: Why the group ended before its items did, as JSON; else None.
        waiting_reason: Why its next items do not run yet.
    """

    id: str
    app: str
    function: str
    function_name: str
    deployment: str
    status: str
    spread: bool
    key: str | None
    stop_after: int | None
    items: int
    total: int | None
    counts: GroupCounts
    created_at: str
    finished_at: str | None
    error: dict[str, Any] | None
    waiting_reason: str | None = None


@dataclass(frozen=True)
class _Inputs:
    items: int


def create_request(core: Core, function_id: str, spread: bool, key: str | None, stop_after: int | None) -> Request:
    """Return the request that makes a group, or finds the one with this key."""
    body = json.dumps({"spread": spread, "key": checked_key(key), "stop_after": checked_stop(stop_after)}).encode()
    path = target(core, f"/v1/functions/{part(function_id)}/groups")
    return once(core, Request("POST", path, (JSON_TYPE, ACCEPT_JSON), body))


def create(core: Core, function_id: str, spread: bool, key: str | None, stop_after: int | None) -> Steps[GroupInfo]:
    """Make a group without items; with a key, find the one that was made with it."""
    response = yield from perform(core, create_request(core, function_id, spread, key, stop_after))
    return read(core, response, GroupInfo, 201, 200)


def inputs_request(core: Core, group_id: str, first: int, count: int, data: bytes, python: str | None) -> Request:
    """Return the request that adds packed inputs; sending it again changes nothing."""
    query = {"first": str(first), "count": str(count)} | ({"python": python} if python else {})
    path = target(core, f"/v1/groups/{part(group_id)}/inputs", query)
    return Request("POST", path, (BYTES_TYPE, ACCEPT_JSON), data, is_repeatable=True)


def add_inputs(core: Core, group_id: str, first: int, count: int, data: bytes, python: str | None) -> Steps[int]:
    """Add packed inputs and return how many items the group has then."""
    response = yield from perform(core, inputs_request(core, group_id, first, count, data, python))
    return read(core, response, _Inputs, 200).items


def close_request(core: Core, group_id: str, total: int) -> Request:
    """Return the request that says how many items there are; the same again is fine."""
    return _order(core, group_id, "close", {"total": whole("total", total, 0, GROUP_ITEMS_MAX)})


def close(core: Core, group_id: str, total: int) -> Steps[GroupInfo]:
    """Say that all items were sent."""
    response = yield from perform(core, close_request(core, group_id, total))
    return read(core, response, GroupInfo, 200)


def cancel(core: Core, group_id: str, items: list[int] | None = None) -> Steps[GroupInfo]:
    """Ask for the end of a group, or of some of its items; asking twice is fine."""
    response = yield from perform(core, _order(core, group_id, "cancel", {"items": items}))
    return read(core, response, GroupInfo, 200)


def _order(core: Core, group_id: str, verb: str, document: dict[str, Any]) -> Request:
    path = target(core, f"/v1/groups/{part(group_id)}/{verb}")
    return Request("POST", path, (JSON_TYPE, ACCEPT_JSON), json.dumps(document).encode(), is_repeatable=True)


def get_group(core: Core, group_id: str) -> Steps[GroupInfo]:
    """Return one group."""
    return get(core, GroupInfo, f"/v1/groups/{part(group_id)}")


def list_groups(
    core: Core, app: str | None, function: str | None, status: str | None, limit: int
) -> Steps[tuple[GroupInfo, ...]]:
    """Return up to `limit` groups, newest first, that the filters let pass."""
    filters = wanted({"app": app, "function": function, "status": status}, unfinished=False)
    most = whole("limit", limit, 1, 100_000)
    found: list[GroupInfo] = []
    cursor: str | None = None
    while True:
        size = min(most - len(found), LIST_PAGE_MAX)
        items, cursor = yield from page(core, "/v1/groups", filters, size, cursor)
        found.extend(build(GroupInfo, item) for item in items[:size])
        if cursor is None or len(found) >= most:
            return tuple(found)


def checked_key(key: Any) -> str | None:
    """Return `key`; InvalidRequestError when it is no text of 1 to 128 characters."""
    if key is not None and (not isinstance(key, str) or not 1 <= len(key) <= GROUP_KEY_LENGTH_MAX):
        raise wrong("key", key, f"a text of 1 to {GROUP_KEY_LENGTH_MAX} characters, or None")
    return key


def checked_stop(stop_after: Any) -> int | None:
    """Return `stop_after`; InvalidRequestError when it is no number of items."""
    return None if stop_after is None else whole("stop_after", stop_after, 1, GROUP_ITEMS_MAX)


class GroupMethods:
    """The methods of the blocking client about groups."""

    @property
    def core(self) -> Core:
        """What all operations share."""
        raise NotImplementedError

    def run(self, steps: Steps[T]) -> T:
        """Perform an operation."""
        raise NotImplementedError

    def create_group(
        self, function_id: str, *, spread: bool = False, key: str | None = None, stop_after: int | None = None
    ) -> GroupInfo:
        """Make a group of calls that has no items yet; `map` and its like do this, `add_inputs` and `close_group`.

        Args:
            spread: Each item is a list or tuple of positional arguments, not the one argument.
            key: 1 to 128 characters; finds the group again that was made with it for this function.
            stop_after: Cancel the group after so many failed items.

        Raises:
            ConflictError: The group with this key has other options (`group_differs`), or the app is stopped.
        """
        return self.run(create(self.core, function_id, spread, key, stop_after))

    def add_inputs(self, group_id: str, first: int, count: int, data: bytes, *, python: str | None = None) -> int:
        """Add items to a group and return how many it has then; adding the same ones again changes nothing.

        Args:
            first: Number of the first of them; exactly how many the group has.
            count: How many, 1 to 500.
            data: Their packed arguments (`apothic.wire.chunks`), at most 64 KiB, or one item of at most 1 MiB.
            python: `major.minor` that pickles with code by value need; None when there are none.

        Raises:
            CapacityError: Too many bytes waited for all of the client's `timeout_s` (`group_full`).
            ConflictError: Items between are missing (`group_gap`), or the group is closed (`group_closed`).
        """
        return self.run(add_inputs(self.core, group_id, first, count, data, python))

    def close_group(self, group_id: str, total: int) -> GroupInfo:
        """Say that a group has all its `total` items; saying it twice is fine."""
        return self.run(close(self.core, group_id, total))

    def get_group(self, group_id: str) -> GroupInfo:
        """Return one group; NotFoundError when there is none."""
        return self.run(get_group(self.core, group_id))

    def list_groups(
        self, *, app: str | None = None, function: str | None = None, status: str | None = None, limit: int = 50
    ) -> tuple[GroupInfo, ...]:
        """Return groups, newest first.

        Args:
            app, function: Names.
            limit: Most groups to return, 1 to 100,000.
        """
        return self.run(list_groups(self.core, app, function, status, limit))

    def cancel_group(self, group_id: str, items: list[int] | None = None) -> GroupInfo:
        """Ask for the end of a group, or of some of its items only, by number. Asking twice is fine."""
        return self.run(cancel(self.core, group_id, items))

    def watch_group(
        self,
        group_id: str,
        *,
        snapshot: bool = False,
        cursor: JobStreamCursor | None = None,
        last_index: int | None = None,
        event_types: list[str] | tuple[str, ...] | None = None,
    ) -> Generator[StreamEvent, None, None]:
        """Yield the events of a group until it has ended; otherwise as `watch_app`."""
        from apothic import _events, _watching

        reader = _watching.group_reader(
            self.core, group_id, snapshot=snapshot, cursor=cursor, last_index=last_index, event_types=event_types
        )
        return _events.follow(self.run, reader)
