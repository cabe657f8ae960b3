"""A scripted server of one group: takes inputs, makes outcomes of them, and fails where a test says so."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from apothic.wire import chunks
from apothic.wire.frames import encode_frame
from apothic.wire.limits import CHUNK_ITEMS_MAX

from .conftest import DEPLOYMENT, FUNCTION, KEY, TIME, Received, ScriptedServer, Wire, check, remote_error

GROUP = f"groups:{KEY}"
COUNTS = ("queued", "running", "retrying", "succeeded", "failed", "cancelled", "timed_out")

Script = Callable[[Wire], Any]
"""Answers one request instead of the group; None lets the group answer after all."""


def job_of(number: int) -> str:
    return f"jobs:{KEY}.{number}"


def value(result: Any) -> bytes:
    return b"j" + json.dumps(result).encode()


def failed(**more: Any) -> bytes:
    return b"e" + json.dumps(remote_error(**more)).encode()


def doubled(_number: int, item: Any) -> bytes:
    return value(item * 2)


class ScriptedGroup:
    """One group behind the scripted server.

    Attributes:
        execute: Makes the outcome of an item from its number and its argument; None for an item that never ends.
        segments: Number of the first item and number of items of each segment that was taken.
        on_inputs, on_outcomes, on_close: Scripts for the next requests of a kind.
        run_size: Outcomes in one record.
        keeps_items: Whether `items` has the arguments; else only their number.
        reverses: Outcomes come in the opposite order, all of them once the group is closed.
        froms: Where each reading of outcomes began.
    """

    def __init__(self, server: ScriptedServer) -> None:
        self.execute: Callable[[int, Any], bytes | None] = doubled
        self.created: list[dict[str, Any]] = []
        self.segments: list[tuple[int, int]] = []
        self.sizes: list[int] = []
        self.on_create: list[Script] = []
        self.on_inputs: list[Script] = []
        self.on_outcomes: list[Script] = []
        self.on_close: list[Script] = []
        self.run_size = 100
        self.keeps_items = True
        self.reverses = False
        self.froms: list[int] = []
        self.cancelled: list[Any] = []
        self.key: str | None = None
        self.changed = threading.Condition()
        self._begin()
        for path, handle in {
            f"POST /v1/functions/{FUNCTION}/groups": self._create,
            f"POST /v1/groups/{GROUP}/inputs": self._inputs,
            f"POST /v1/groups/{GROUP}/close": self._close,
            f"POST /v1/groups/{GROUP}/cancel": self._cancel,
            f"GET /v1/groups/{GROUP}": lambda wire, _: wire.answer(200, self.document()),
            f"GET /v1/groups/{GROUP}/outcomes": self._outcomes,
        }.items():
            server.routes[path] = handle

    def _begin(self) -> None:
        self.items: list[Any] = []
        self.outcomes: dict[int, bytes] = {}
        self.order: list[int] = []
        self.total: int | None = None
        self.status = "running"
        self.error: dict[str, Any] | None = None

    def document(self, **more: Any) -> dict[str, Any]:
        ends = [entry[:1] for entry in self.outcomes.values()]
        counts = dict.fromkeys(COUNTS, 0) | {"failed": ends.count(b"e"), "succeeded": len(ends) - ends.count(b"e")}
        return check(
            "Group",
            {
                "id": GROUP, "app": "hello-world", "function": FUNCTION, "function_name": "greet",
                "deployment": DEPLOYMENT, "status": self.status, "spread": False, "key": self.key, "stop_after": None,
                "items": len(self.items), "total": self.total, "counts": counts, "created_at": TIME,
                "finished_at": None, "error": self.error, "waiting_reason": None,
            } | more,
        )  # fmt: skip

    def end(self, status: str, error: dict[str, Any] | None = None) -> None:
        """End the group before its items."""
        with self.changed:
            self.status, self.error = status, error
            self.changed.notify_all()

    def hold(self, items: list[Any], *, total: int | None = None) -> None:
        """Begin with items that were sent before."""
        for item in items:
            self._add(item)
        self.total = total
        self._settle()

    def _create(self, wire: Wire, request: Received) -> Any:
        if self.on_create and (answer := self.on_create.pop(0)(wire)) is not None:
            return answer
        body = check("NewGroup", json.loads(request.body))
        self.created.append(body)
        if self.total is not None and body["key"] is None:
            self._begin()
        self.key = body["key"]
        return wire.answer(201, self.document(spread=body["spread"], stop_after=body["stop_after"]))

    def _inputs(self, wire: Wire, request: Received) -> Any:
        if self.on_inputs and (answer := self.on_inputs.pop(0)(wire)) is not None:
            return answer
        query = parse_qs(request.path.partition("?")[2])
        first, count = int(query["first"][0]), int(query["count"][0])
        entries = chunks.unpack(request.body)
        assert request.headers["content-type"] == "application/octet-stream"
        assert len(entries) == count <= CHUNK_ITEMS_MAX
        assert len(request.body) <= 65_536 or count == 1
        with self.changed:
            if first > len(self.items):
                return wire.refuse(409, "group_gap")
            if self.total is not None or self.status != "running":
                return wire.refuse(409, "group_closed")
            if first == len(self.items):
                self.segments.append((first, count))
                self.sizes.append(len(request.body))
                for entry in entries:
                    assert entry[:1] == b"j"
                    self._add(json.loads(entry[1:]))
            self.changed.notify_all()
        return wire.answer(200, {"items": len(self.items)})

    def _add(self, item: Any) -> None:
        number = len(self.items)
        self.items.append(item if self.keeps_items else None)
        outcome = self.execute(number, item)
        if outcome is not None:
            self.outcomes[number] = outcome
            self.order.append(number)

    def _close(self, wire: Wire, request: Received) -> Any:
        if self.on_close and (answer := self.on_close.pop(0)(wire)) is not None:
            return answer
        total = check("GroupTotal", json.loads(request.body))["total"]
        with self.changed:
            if total != len(self.items):
                return wire.refuse(409, "group_gap")
            self.total = total
            self._settle()
            self.changed.notify_all()
        return wire.answer(200, self.document())

    def _settle(self) -> None:
        if self.total is not None and len(self.outcomes) == self.total and self.status == "running":
            is_good = all(entry[:1] != b"e" for entry in self.outcomes.values())
            self.status = "succeeded" if is_good else "failed"

    def _cancel(self, wire: Wire, request: Received) -> Any:
        self.cancelled.append(check("GroupItems", json.loads(request.body))["items"])
        self.end("cancelled")
        return wire.answer(200, self.document())

    def _outcomes(self, wire: Wire, request: Received) -> Any:
        query = parse_qs(request.path.partition("?")[2])
        begin = int(query["from"][0])
        self.froms.append(begin)
        wire.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.apothic.outcomes\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        if self.on_outcomes and (answer := self.on_outcomes.pop(0)(wire)) is not None:
            return answer
        sent = 0
        while True:
            with self.changed:
                self.changed.wait_for(lambda at=sent: self.status != "running" or self._ready(at), 20)
                numbers = [number for number in self._ready(sent) if number >= begin]
                sent += len(self._ready(sent))
                is_over = self.status != "running"
            for place in range(0, len(numbers), self.run_size):
                wire.frame(*self.record(numbers[place : place + self.run_size]))
            if is_over:
                wire.frame({"kind": "end", "group": self.document()})
                wire.end_stream()
                return None

    def _ready(self, sent: int) -> list[int]:
        if self.reverses:
            return [] if self.total is None else self.order[::-1][sent:]
        return self.order[sent:]

    def record(self, numbers: list[int]) -> tuple[dict[str, Any], bytes]:
        """Return one record of outcomes, of neighbours where they are."""
        data = chunks.pack([self.outcomes[number] for number in numbers])
        head: dict[str, Any] = {"kind": "outcomes", "python": None}
        if numbers == list(range(numbers[0], numbers[0] + len(numbers))):
            return head | {"first": numbers[0], "count": len(numbers)}, data
        return head | {"indexes": numbers}, data


def hang_up(wire: Wire) -> bool:
    """Close the connection without an answer."""
    return False


def refuse(status: int, code: str, **more: Any) -> Script:
    def script(wire: Wire) -> bool:
        wire.refuse(status, code, retryable=True, **more)
        return True

    return script


def cut_after(group: ScriptedGroup, *numbers: int) -> Script:
    """Send some outcomes and then break the stream."""

    def script(wire: Wire) -> bool:
        with group.changed:
            group.changed.wait_for(lambda: set(numbers) <= group.outcomes.keys(), 20)
        wire.chunk(encode_frame(*group.record(list(numbers))))
        return False

    return script
