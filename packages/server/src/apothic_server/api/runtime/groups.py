"""Groups: calls of one function for many items. Inputs and outcomes pass through packed, as they are (D13)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

import msgspec

from apothic.wire.frames import encode_frame, join_frame
from apothic.wire.ids import FunctionId, GroupId, parse_record_id
from apothic.wire.limits import CHUNK_ITEMS_MAX, GROUP_ITEMS_MAX, KEEP_ALIVE_S, LIST_PAGE_DEFAULT, LIST_PAGE_MAX
from apothic.wire.values import OUTCOMES_TYPE
from apothic_server.api.runtime import records
from apothic_server.api.runtime.apps import app_and_function
from apothic_server.api.runtime.arguments import PYTHON
from apothic_server.api.runtime.group_bodies import read_items, read_new_group, read_total
from apothic_server.api.shared.groups import OutcomeReader
from apothic_server.api.shared.idempotency import answer_once
from apothic_server.api.shared.query import refusal, whole_number
from apothic_server.api.shared.request import Request
from apothic_server.api.shared.response import Response, json_response, stream_response
from apothic_server.api.shared.services import Services
from apothic_server.domain.group_views import GroupFilter, GroupView, Inputs, OutcomeRun
from apothic_server.domain.groups import GroupStatus

KEEP_ALIVE_FRAME = encode_frame({"kind": "keep_alive"})
_STATUSES = frozenset(status.value for status in GroupStatus)
_encode = msgspec.json.Encoder().encode


class GroupHandlers:
    """Handlers of groups."""

    def __init__(self, services: Services) -> None:
        self._groups = services.groups

    async def create_group(self, request: Request) -> Response:
        """Begin a group of a function by id."""
        return await self._create(request, records.function_key(request.params["function_id"]))

    async def create_app_group(self, request: Request) -> Response:
        """Begin a group of a function by app and name."""
        return await self._create(request, app_and_function(request))

    async def _create(self, request: Request, function: FunctionId | tuple[str, str]) -> Response:
        body = await request.body()
        new = read_new_group(body)
        return await answer_once(
            request.key(body),
            lambda keep: self._groups.create(request.actor, function, new, keep),
            lambda made: _shown(made, status=201 if made.is_new else 200),
        )

    async def add_inputs(self, request: Request) -> Response:
        """Take the next items of a group."""
        key = _key(request)
        first, count = _required(request.query, "first", GROUP_ITEMS_MAX - 1), _count(request.query)
        python = request.query.get("python")
        if python is not None and not PYTHON.fullmatch(python):
            raise refusal("python", "must be a version like 3.11", "pattern")
        body = await request.body()
        inputs = Inputs(first, count, python, body)
        return await answer_once(
            request.key(body),
            lambda keep: self._groups.add_inputs(request.actor, key, inputs, keep),
            lambda items: json_response({"items": items}),
        )

    async def close_group(self, request: Request) -> Response:
        """Take no more items into a group."""
        key, body = _key(request), await request.body()
        total = read_total(body)
        return await answer_once(
            request.key(body), lambda keep: self._groups.close(request.actor, key, total, keep), _shown
        )

    async def cancel_group(self, request: Request) -> Response:
        """Stop a group or some of its items."""
        key, body = _key(request), await request.body()
        items = read_items(body)
        return await answer_once(
            request.key(body), lambda keep: self._groups.cancel(request.actor, key, items, keep), _shown
        )

    async def get_group(self, request: Request) -> Response:
        """Answer one group."""
        return _shown(await self._groups.get(request.actor, _key(request)))

    async def list_groups(self, request: Request) -> Response:
        """Answer one page of groups, newest first."""
        limit = whole_number(request.query, "limit", 1, LIST_PAGE_MAX, LIST_PAGE_DEFAULT)
        found, following = await self._groups.list_groups(request.actor, _filter(request.query), limit=limit)
        cursor = None if following is None else records.group_id(following)
        return json_response({"items": [records.group_record(view) for view in found], "next_cursor": cursor})

    async def get_group_outcomes(self, request: Request) -> Response:
        """Answer the outcomes of a group's items, as they come."""
        key, first = _key(request), whole_number(request.query, "from", 0, GROUP_ITEMS_MAX, 0)
        await request.body()
        reader = await self._groups.outcomes(request.actor, key, first)
        return stream_response(Frames(request, reader), OUTCOMES_TYPE)


class Frames:
    """The pieces of one answer with outcomes; gives the reader's place back however it ends."""

    def __init__(self, request: Request, reader: OutcomeReader) -> None:
        self._reader = reader
        self._gone = asyncio.ensure_future(request.gone())
        self._gone.add_done_callback(lambda _: reader.wake())

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._frames()

    async def aclose(self) -> None:
        """Wait for nothing more."""
        self._reader.close()
        self._gone.cancel()
        await asyncio.gather(self._gone, return_exceptions=True)

    async def _frames(self) -> AsyncGenerator[bytes]:
        while not self._gone.done():
            batch = await self._reader.next(timeout_s=KEEP_ALIVE_S)
            if batch.runs:
                yield b"".join([_frame(run) for run in batch.runs])
            if batch.end is not None:
                yield join_frame(_encode({"kind": "end", "group": records.group_record(batch.end)}))
                return
            if not batch.runs and not self._gone.done():
                yield KEEP_ALIVE_FRAME


def _frame(run: OutcomeRun) -> bytes:
    head: dict[str, Any] = {"kind": "outcomes", "python": run.python}
    if run.indexes is None:
        head |= {"first": run.first, "count": run.count}
    else:
        head["indexes"] = run.indexes
    return join_frame(_encode(head), run.data)


def _shown(view: GroupView, *, status: int = 200) -> Response:
    return json_response(records.group_record(view), status=status)


def _key(request: Request) -> GroupId:
    return records.group_key(request.params["group_id"])


def _required(query: Mapping[str, str], name: str, high: int) -> int:
    if name not in query:
        raise refusal(name, "is required", "missing")
    return whole_number(query, name, 0, high, 0)


def _count(query: Mapping[str, str]) -> int:
    if "count" not in query:
        raise refusal("count", "is required", "missing")
    return whole_number(query, "count", 1, CHUNK_ITEMS_MAX, 1)


def _filter(query: Mapping[str, str]) -> GroupFilter:
    status, cursor = query.get("status"), query.get("cursor")
    if status is not None and status not in _STATUSES:
        raise refusal("status", f"must be one of {', '.join(sorted(_STATUSES))}", "unknown_status")
    before = None if cursor is None else parse_record_id(cursor, "groups")
    if cursor is not None and before is None:
        raise refusal("cursor", "is no cursor that a list answered", "cursor_invalid")
    return GroupFilter(
        app_name=query.get("app"),
        function_name=query.get("function"),
        status=None if status is None else GroupStatus(status),
        before=None if before is None else GroupId(before),
    )
