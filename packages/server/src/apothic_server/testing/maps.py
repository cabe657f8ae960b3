"""Groups through the services, executed by a scripted worker, and what the store says of their items."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from apothic.wire import chunks
from apothic.wire.ids import GroupId
from apothic.wire.link import Assign, Finished
from apothic.wire.maps import ChunkResult, ItemOutput
from apothic.wire.values import RemoteError, Value
from apothic_server.domain.group_views import GroupView, Inputs, NewGroup
from apothic_server.testing.cloud import CloudUnderTest, ScriptedWorker

__all__ = ["Map", "finish", "numbers_of", "start_map"]

ROWS = """
SELECT id, status, first_item, chunk_items, chunk_done, failed_items, overlays, result, result_encoding, error
FROM jobs WHERE group_id = $1 ORDER BY first_item, id
"""


class Map:
    """A group whose item n has the argument n."""

    def __init__(self, cloud: CloudUnderTest, view: GroupView) -> None:
        self.cloud = cloud
        self.id: GroupId = view.group.id

    async def add(self, first: int, count: int) -> None:
        data = chunks.pack([b"j%d" % item for item in range(first, first + count)])
        await self.cloud.services.groups.add_inputs(self.cloud.actor, self.id, Inputs(first, count, None, data))

    async def close(self, total: int) -> None:
        await self.cloud.services.groups.close(self.cloud.actor, self.id, total)

    async def cancel(self, *items: int) -> None:
        await self.cloud.services.groups.cancel(self.cloud.actor, self.id, list(items) or None)

    async def view(self) -> GroupView:
        return await self.cloud.services.groups.get(self.cloud.actor, self.id)

    async def status(self) -> str:
        return (await self.view()).group.status.value

    async def counts(self) -> dict[str, int]:
        """Items by status, those with none left out."""
        return {name: count for name, count in (await self.view()).counts.items() if count}

    async def rows(self) -> list[dict[str, Any]]:
        async with self.cloud.inner.database.system_unit() as unit:
            return [dict(row.items()) for row in await unit.fetch(ROWS, self.id)]

    async def outcomes(self) -> dict[int, str]:
        """What became of each item, as the rule of `domain.groups` reads it; items without an end are left out.

        Fails when two rows of one kind cover an item.
        """
        found: dict[int, str] = {}
        rows = await self.rows()
        for row in [row for row in rows if row["chunk_items"] is not None]:
            first, done = row["first_item"], row["chunk_done"] or 0
            failed: list[int] = row["failed_items"] or []
            for offset in range(row["chunk_items"]):
                assert first + offset not in found, f"two chunks cover item {first + offset}"
                if offset < done:
                    found[first + offset] = "failed" if offset in failed else "succeeded"
                elif row["status"] in ("failed", "cancelled", "timed_out"):
                    found[first + offset] = row["status"]
                else:
                    found[first + offset] = "live"
        own: set[int] = set()
        for row in [row for row in rows if row["chunk_items"] is None]:
            item = row["first_item"]
            letter = {"succeeded": "S", "failed": "F"}.get(found.get(item, ""))
            assert row["overlays"] == letter, f"item {item} has an entry and a row that says otherwise"
            assert item not in own, f"item {item} has two rows"
            own.add(item)
            is_final = row["status"] in ("succeeded", "failed", "cancelled", "timed_out")
            found[item] = row["status"] if is_final else "live"
        return {item: status for item, status in found.items() if status != "live"}


async def start_map(
    cloud: CloudUnderTest, items: int, *, close: bool = True, function: str = "work", **new: Any
) -> Map:
    """Make a group with so many items, in segments of 500."""
    made = await cloud.services.groups.create(cloud.actor, ("shop", function), NewGroup(**new))
    assert isinstance(made, GroupView)
    group = Map(cloud, made)
    for first in range(0, items, 500):
        await group.add(first, min(500, items - first))
    if close:
        await group.close(items)
    return group


def numbers_of(assign: Assign) -> list[int]:
    """Return the numbers of the items of an attempt, after a look at their inputs."""
    order = assign.items
    assert order is not None and assign.arguments.encoding == "items"
    numbers = [json.loads(entry[1:]) for entry in chunks.unpack(assign.arguments.data)]
    assert numbers == list(range(order.first, order.first + order.count)), "inputs of other items"
    return numbers


def finish(
    worker: ScriptedWorker,
    assign: Assign,
    *,
    done: int | None = None,
    failed: Sequence[int] = (),
    outcome: str = "succeeded",
    ms: int | None = None,
    output: Sequence[ItemOutput] = (),
) -> None:
    """Report the end of an attempt of items; each outcome is the item's number, doubled.

    Args:
        done: Items that ended; all when None.
        failed: Numbers of items that failed.
        ms: Milliseconds that it took; one for each item when None.
    """
    numbers = numbers_of(assign)
    done = len(numbers) if done is None else done
    error = None if outcome in ("succeeded", "cancelled") else RemoteError("x.Died", "died", code="exited")
    took = len(numbers) if ms is None else ms
    if len(numbers) == 1:
        if outcome == "succeeded" and numbers[0] in failed:
            outcome, error = "failed", RemoteError("builtins.ValueError", "no")
        value = Value("json", b"%d" % (2 * numbers[0])) if outcome == "succeeded" else None
        worker.report({"finished": [Finished(assign.job, assign.fence, outcome, value, error, took)]})
        return
    wrong = json.dumps({"type": "builtins.ValueError", "message": "no", "code": "exception", "causes": []}).encode()
    entries = [b"e" + wrong if item in failed else b"j%d" % (2 * item) for item in numbers[:done]]
    offsets = [offset for offset, item in enumerate(numbers[:done]) if item in failed]
    result = ChunkResult(done, offsets, chunks.pack(entries), list(output))
    worker.report({"finished": [Finished(assign.job, assign.fence, outcome, None, error, took, items=result)]})
