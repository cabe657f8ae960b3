"""Items of a generator where no event stream gets through: pages instead, each item once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import pytest

from apothic import ControlPlaneClient, InvalidRequestError, Job, JobStreamResetError, RemoteExecutionError
from apothic._blocking import Interrupts, perform
from apothic._items import FIRST_S_MAX, ItemEvents
from apothic._steps import Receive
from apothic_server.testing.guarantees import guarantee

from .conftest import JOB, Received, ScriptedServer, Wire, check, job_json, make_core, remote_error

Read = Callable[..., list[Any]]
Event = tuple[int, str, dict[str, Any]]


@pytest.fixture
def got() -> list[Any]:
    """What came before an error, too."""
    return []


@pytest.fixture(params=["blocking", "asyncio"])
def read(request: pytest.FixtureRequest, client: ControlPlaneClient, got: list[Any]) -> Read:
    """Read the items of the job to their end, with `wait_gen` of either kind."""

    def keep(found: Any) -> None:
        got.append(found)

    async def gather(options: dict[str, Any]) -> None:
        async for found in Job(JOB, client).aio.wait_gen(**options):
            keep(found)

    def finish(**options: Any) -> list[Any]:
        if request.param == "asyncio":
            asyncio.run(gather(options))
        else:
            for found in Job(JOB, client).wait_gen(**options):
                keep(found)
        return got

    return finish


def item(index: int, ordinal: int, value: Any, attempt: int = 1) -> Event:
    data = {"attempt": attempt, "ordinal": ordinal, "encoding": "json", "python": None, "item": value}
    return index, "job.stream_item", data


def end(index: int, status: str = "succeeded") -> Event:
    return index, "job.end", {"status": status}


class Pages:
    """Behind it no event stream gets through: it answers those as it is told, and pages from `events`.

    Attributes:
        kept_from: Events with smaller indexes are gone.
        seen: How many of the events are there yet; one more after every page that had nothing new.
        yields: The job's function is a generator.
    """

    def __init__(self, server: ScriptedServer, no_stream: Callable[[Wire], Any], *events: Event) -> None:
        self.events = events
        self.no_stream = no_stream
        self.kept_from = 0
        self.seen = len(events)
        self.limit = 100
        self.yields = True
        self.afters: list[int] = []
        self.streams = 0
        server.routes[f"GET /v1/jobs/{JOB}/events"] = self._answer
        server.routes[f"GET /v1/jobs/{JOB}/outcome"] = lambda wire, _: wire.outcome(result=None)

    def _answer(self, wire: Wire, request: Received) -> Any:
        if request.headers.get("accept") == "text/event-stream":
            self.streams += 1
            return self.no_stream(wire)
        query = parse_qs(request.path.partition("?")[2])
        after = int(query["after"][0])
        self.afters.append(after)
        assert set(query["types"][0].split(",")) == {"job.stream_item", "job.end"}
        there = self.events[: self.seen]
        latest = there[-1][0] if there else -1
        if after + 1 < self.kept_from:
            gap = {"requested_index": after, "oldest_index": self.kept_from, "latest_index": latest}
            snapshot = {"job": job_json(), "index": latest}
            return page(wire, [(latest, "job.reset", {**gap, "snapshot": snapshot})], is_final=False)
        found = [event for event in there if event[0] > after][: self.limit]
        is_final = bool(there) and there[-1][1] == "job.end" and (found[-1:] or [there[-1]])[0] == there[-1]
        if not found:
            self.seen += 1
        before = [data["ordinal"] + 1 for index, kind, data in there if index <= after and kind == "job.stream_item"]
        next_ordinal = max(before, default=0) if self.yields else None
        return page(wire, found, after, is_final=is_final, next_ordinal=next_ordinal)


def page(wire: Wire, events: list[Event], after: int = -1, *, is_final: bool, next_ordinal: int | None = 0) -> None:
    made = [{"index": index, "event": kind, "data": data} for index, kind, data in events]
    last = events[-1][0] if events else after
    told = {"events": made, "last_index": last, "is_final": is_final, "next_ordinal": next_ordinal}
    wire.answer(200, check("EventPage", told))


def a_page_of_a_portal(wire: Wire) -> None:
    body = b"<html>Please log in</html>"
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def json_instead(wire: Wire) -> None:
    wire.answer(200, {"events": [], "last_index": -1, "is_final": False})


NO_STREAM = pytest.mark.parametrize("no_stream", [a_page_of_a_portal, json_instead], ids=["portal", "json"])
THREE = [item(2, 0, "a"), item(3, 1, {"b": 1}), item(4, 2, None), end(6)]


@guarantee("G5.2", "watch_model_check")
@NO_STREAM
@pytest.mark.parametrize("limit", [1, 2, 100])
def test_items_come_by_pages_where_no_stream_gets_through(
    read: Read, server: ScriptedServer, no_stream: Any, limit: int
) -> None:
    pages = Pages(server, no_stream, *THREE)
    pages.limit = limit

    assert read() == ["a", {"b": 1}, None]
    assert pages.streams == 1, "what did not get through once is not tried again"
    assert pages.afters[0] == -1
    assert pages.afters == sorted(set(pages.afters))


@NO_STREAM
def test_pages_of_a_function_that_yields_none_are_the_same_error_as_its_stream(
    read: Read, server: ScriptedServer, no_stream: Any
) -> None:
    pages = Pages(server, no_stream, (3, "job.result", {"value": 1}), end(4))
    pages.yields = False

    with pytest.raises(InvalidRequestError, match="yields no items") as caught:
        read()

    assert caught.value.code == "not_a_generator"


def test_items_that_come_later_are_looked_for_again(read: Read, server: ScriptedServer) -> None:
    pages = Pages(server, json_instead, *THREE)
    pages.seen = 0

    assert read(poll_interval_s=0.001) == ["a", {"b": 1}, None]
    assert pages.afters.count(2) == 2, "one look that finds nothing, one that finds the next"


def test_reading_by_pages_goes_on_after_a_place(read: Read, server: ScriptedServer) -> None:
    pages = Pages(server, json_instead, *THREE)

    assert read(last_index=3) == [None]
    assert pages.afters == [3]


@guarantee("G2.8", "generator_retry_items")
@pytest.mark.parametrize("limit", [1, 3, 100])
def test_pages_of_a_later_attempt_repeat_no_ordinal(read: Read, server: ScriptedServer, limit: int) -> None:
    first = [item(2, 0, "a"), item(3, 1, "b")]
    second = [item(6, 0, "again", 2), item(7, 1, "again", 2), item(8, 2, "c", 2), item(9, 3, "d", 2)]
    third = [item(12, 0, "again", 3), item(13, 1, "again", 3)]
    Pages(server, json_instead, *first, *second, *third, end(15)).limit = limit

    assert read() == ["a", "b", "c", "d"]


@guarantee("G2.8", "generator_retry_items")
@pytest.mark.parametrize("limit", [1, 100])
def test_pages_that_are_read_on_from_a_place_repeat_no_ordinal_that_came_before_it(
    read: Read, server: ScriptedServer, limit: int
) -> None:
    first = [item(2, 0, "a"), item(3, 1, "b")]
    second = [item(6, 0, "again", 2), item(7, 1, "again", 2), item(8, 2, "c", 2)]
    Pages(server, json_instead, *first, *second, end(15)).limit = limit

    assert read(last_index=3) == ["c"]


@guarantee("G5.5", "reset_not_silence")
def test_items_that_are_gone_are_told_of_by_pages_too(read: Read, server: ScriptedServer, got: list[Any]) -> None:
    Pages(server, json_instead, *THREE).kept_from = 4

    with pytest.raises(JobStreamResetError) as caught:
        read()

    assert (caught.value.requested_index, caught.value.oldest_index, caught.value.latest_index) == (-1, 4, 6)
    assert got == []
    assert read(on_reset="continue") == [None]


def test_a_failure_comes_after_the_items_of_the_last_page(read: Read, server: ScriptedServer, got: list[Any]) -> None:
    Pages(server, json_instead, *THREE[:3], end(6, "failed"))
    failed = lambda wire, _: wire.outcome("failed", error=remote_error(message="broke"))  # noqa: E731
    server.routes[f"GET /v1/jobs/{JOB}/outcome"] = failed

    with pytest.raises(RemoteExecutionError, match="broke"):
        read()

    assert got == ["a", {"b": 1}, None]


def test_a_stream_that_is_kept_back_is_given_up_for_pages(server: ScriptedServer) -> None:
    core = make_core(server.url, clock=lambda: 0.0, timeout_s=2 * FIRST_S_MAX)  # the head is waited for longer
    pages = Pages(server, Wire.begin_events, *THREE)
    events = ItemEvents(core, JOB, -1, timeout_s=600)
    steps = events.more()
    effect = next(steps)
    while not (isinstance(effect, Receive) and effect.timeout_s == FIRST_S_MAX):
        effect = steps.send(perform(effect, Interrupts()))
    effect = steps.throw(TimeoutError())
    with pytest.raises(StopIteration) as ended:
        while True:
            effect = steps.send(perform(effect, Interrupts()))
    events.close()
    core.idle.close()

    assert [(event.event, event.index) for event in ended.value.value if event.event != "job.alive"] == [
        ("job.stream_item", 2),
        ("job.stream_item", 3),
        ("job.stream_item", 4),
    ]
    assert (pages.streams, pages.afters) == (1, [-1])
