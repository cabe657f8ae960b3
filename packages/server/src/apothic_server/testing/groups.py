"""Groups over the face, and rows of their items put into the store as the dispatcher would write them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from apothic.wire import chunks
from apothic.wire.frames import FrameReader
from apothic.wire.limits import VALUE_MAX
from apothic_server.domain.groups import Counts
from apothic_server.testing.asgi import Answer, AsgiClient, Exchange
from apothic_server.testing.cloud import CloudUnderTest

OCTETS = {"content-type": "application/octet-stream"}
INSERT = """
INSERT INTO jobs (
    id, org, app, deployment, function, status, path, attempt, run_at, arguments_encoding, next_index, created_by,
    created_at, finished_at, group_id, first_item, chunk_items, chunk_done, failed_items, result, result_encoding,
    error, overlays
)
SELECT $2, org, app, deployment, function, $3, $4, 1, created_at, 'items', 0, created_by,
    created_at, CASE WHEN $11 THEN created_at END, id, $5, $6, $7, $8, $9, $10, $12::jsonb, $13
FROM groups WHERE id = $1
"""
PATHS = {
    "queued": "nq",
    "running": "nqsr",
    "retrying": "nqsry",
    "succeeded": "nqsrS",
    "failed": "nqsrF",
    "cancelled": "nqC",
}


def packed(*values: Any) -> bytes:
    """Return values, packed as inputs or outcomes; an exception stands for an error with its text as the code."""
    return chunks.pack([_entry(value) for value in values])


def _entry(value: Any) -> bytes:
    if isinstance(value, Exception):
        return (
            b"e" + json.dumps({"type": "", "message": "", "traceback": "", "code": str(value), "causes": []}).encode()
        )
    return b"j" + json.dumps(value).encode()


@dataclass
class GroupUnderTest:
    """A group that was made over the face."""

    cloud: CloudUnderTest
    client: AsgiClient
    id: str

    @property
    def key(self) -> str:
        return self.id.partition(":")[2]

    async def post(self, what: str, **body: Any) -> Answer:
        """Send a JSON body to one of its addresses."""
        return await self.client.request("POST", f"/v1/groups/{self.id}/{what}", json=body)

    async def add(self, first: int, *values: Any, data: bytes | None = None, query: str = "", count: int = 0) -> Answer:
        """Add items."""
        body = packed(*values) if data is None else data
        path = f"/v1/groups/{self.id}/inputs?first={first}&count={count or len(values)}{query}"
        return await self.client.request("POST", path, headers=OCTETS, body=body)

    async def get(self) -> dict[str, Any]:
        return (await self.client.request("GET", f"/v1/groups/{self.id}")).json

    async def row(
        self, first: int, status: str, *outcomes: Any, items: int | None = None, error: str = "", overlays: str = ""
    ) -> None:
        """Write the row of an item, or with `items` that of a chunk of so many, as it is in the store."""
        is_final = status in ("succeeded", "failed", "cancelled")
        data = None if not outcomes else packed(*outcomes) if items is not None else json.dumps(outcomes[0]).encode()
        failed = [place for place, value in enumerate(outcomes) if isinstance(value, Exception)]
        key = f"{self.key}.{first}" if items is None else f"{self.key}.{first}-{items}"
        told = None if not error else json.dumps(json.loads(_entry(Exception(error))[1:]))
        async with self.cloud.inner.database.system_unit() as unit:
            await unit.execute(
                INSERT, self.key, key, status, PATHS[status], first, items,
                None if items is None else len(outcomes), failed if items is not None else None,
                data, None if data is None else "json" if items is None else "items", is_final, told, overlays or None,
            )  # fmt: skip
        self.cloud.inner.board.hints.changed(key)

    async def end(self, status: str) -> None:
        """Write the end of the group."""
        async with self.cloud.inner.database.system_unit() as unit:
            await unit.execute(
                "UPDATE groups SET status = $2, counts = $3::jsonb, finished_at = created_at WHERE id = $1",
                self.key, status, json.dumps(Counts().as_json()),
            )  # fmt: skip
        self.cloud.inner.board.hints.changed(self.key)


async def make_group(
    cloud: CloudUnderTest, client: AsgiClient, *items: Any, app: str = "shop", function: str = "work", **new: Any
) -> GroupUnderTest:
    """Make a group of a deployed function, and add items; the test writes its rows, not the dispatcher."""
    cloud.inner.maps.is_open = False
    answer = await client.request("POST", f"/v1/apps/{app}/functions/{function}/groups", json=new)
    assert answer.status in (200, 201), answer.body
    group = GroupUnderTest(cloud, client, answer.json["id"])
    if items:
        assert (await group.add(0, *items)).status == 200
    return group


class Outcomes:
    """Reads one stream of outcomes."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._frames = FrameReader(size_max=4 * VALUE_MAX)
        self.heads: list[dict[str, Any]] = []

    async def take(self, count: int) -> dict[int, Any]:
        """Wait for so many outcomes; return them by item, a failed one as the code of its error."""
        found: dict[int, Any] = {}
        while len(found) < count:
            for head, data in await self._next():
                if head["kind"] == "outcomes":
                    found |= zip(_numbers(head), map(_value, chunks.unpack(data)), strict=True)
        return found

    async def end(self) -> dict[str, Any]:
        """Wait for the end; return the group."""
        while True:
            for head, _ in await self._next():
                if head["kind"] == "end":
                    assert await self._exchange.piece() is None
                    return head["group"]

    async def _next(self) -> list[tuple[dict[str, Any], bytes]]:
        async with asyncio.timeout(10):
            piece = await self._exchange.piece()
        assert piece is not None, "the stream has ended"
        frames = self._frames.feed(piece)
        self.heads += [head for head, _ in frames]
        return frames


def _numbers(head: dict[str, Any]) -> list[int]:
    return head.get("indexes") or list(range(head["first"], head["first"] + head["count"]))


def _value(entry: bytes) -> Any:
    value = json.loads(entry[1:])
    return Exception(value["code"]).args[0] if entry[:1] == b"e" else value
