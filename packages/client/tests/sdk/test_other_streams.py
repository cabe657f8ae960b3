"""Streams of apps and deployments: read, resumed and left as those of jobs."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import pytest

from apothic import (
    ControlPlaneClient,
    InvalidRequestError,
    JobStreamCursor,
    JobStreamEvent,
    NotFoundError,
    StreamEvent,
    StreamResetEvent,
)
from apothic_server.testing.guarantees import guarantee

from .conftest import DEPLOYMENT, TIME, Received, ScriptedServer, Wire, check, deployment_json

DEPLOYED = {"deployment_id": DEPLOYMENT, "version": 1, "previous_deployment_id": None, "time": TIME}
APP_EVENTS = "/v1/apps/hello-world/events"
DEPLOYMENT_EVENTS = f"/v1/deployments/{DEPLOYMENT}/events"


def stream(*events: Any, ends: bool = False) -> Callable[[Wire, Received], bool]:
    """Send events; then end the answer, or break the connection."""

    def script(wire: Wire, _: Received) -> bool:
        wire.begin_events()
        for event in events:
            wire.event(*event)
        if ends:
            wire.end_stream()
        return ends

    return script


def asked(server: ScriptedServer) -> list[tuple[str, dict[str, str]]]:
    parts = [request.path.partition("?") for request in server.received]
    return [(path, {name: values[0] for name, values in parse_qs(query).items()}) for path, _, query in parts]


def page(last_index: int, *, is_final: bool) -> Callable[[Wire, Received], None]:
    body = check("EventPage", {"events": [], "last_index": last_index, "is_final": is_final})
    return lambda wire, _: wire.answer(200, body)


def first(events: Any, count: int) -> list[StreamEvent]:
    found = list(itertools.islice(events, count))
    events.close()
    return found


@guarantee("G5.2", "watch_model_check")
def test_an_apps_stream_resumes_and_does_not_end_by_itself(server: ScriptedServer, client: ControlPlaneClient) -> None:
    server.scripts += [
        stream((0, "app.deployed", DEPLOYED)),
        stream((1, "app.alive", {"last_index": 1}), ends=True),
        page(1, is_final=False),
        stream((2, "app.stopped", {"deployment_id": DEPLOYMENT, "version": 1, "time": TIME})),
    ]

    events = first(client.watch_app("hello-world"), 2)

    assert [(event.index, event.event) for event in events] == [(0, "app.deployed"), (2, "app.stopped")]
    assert not isinstance(events[0], JobStreamEvent)
    assert events[0].data == DEPLOYED
    assert asked(server) == [(APP_EVENTS, {"after": after}) for after in ("-1", "0", "1", "1")]


def test_a_deployments_stream_ends_with_it(server: ScriptedServer, client: ControlPlaneClient) -> None:
    told = [(4, "deployment.deleted", {"status": "deleted"}), (5, "deployment.end", {"status": "deleted"})]
    server.scripts += [stream(*told, ends=True)] * 2

    async def read() -> list[StreamEvent]:
        return [event async for event in client.aio.watch_deployment(DEPLOYMENT, last_index=3)]

    whole = list(client.watch_deployment(DEPLOYMENT, cursor=JobStreamCursor(3)))

    assert [(event.index, event.event) for event in whole] == [(index, kind) for index, kind, _ in told]
    assert asyncio.run(read()) == whole
    assert asked(server) == [(DEPLOYMENT_EVENTS, {"after": "3"})] * 2


def test_the_end_is_asked_for_and_hidden_by_a_filter(server: ScriptedServer, client: ControlPlaneClient) -> None:
    server.scripts.append(stream((2, "deployment.stopped", {}), (4, "deployment.end", {}), ends=True))

    events = list(client.watch_deployment(DEPLOYMENT, event_types=["deployment.stopped"]))

    assert [event.event for event in events] == ["deployment.stopped"]
    assert asked(server)[0][1] == {"after": "-1", "types": "deployment.end,deployment.stopped"}


@guarantee("G5.5", "reset_not_silence")
def test_a_reset_is_told_and_the_stream_goes_on_behind_it(server: ScriptedServer, client: ControlPlaneClient) -> None:
    snapshot = {"deployment": deployment_json(), "index": 6}
    data = {"requested_index": 9, "oldest_index": 2, "latest_index": 6, "snapshot": snapshot}
    server.scripts += [stream((6, "deployment.reset", data)), stream((7, "deployment.end", {}), ends=True)]

    reset, end = client.watch_deployment(DEPLOYMENT, last_index=9)

    assert isinstance(reset, StreamResetEvent)
    assert (reset.requested_index, reset.oldest_index, reset.latest_index) == (9, 2, 6)
    assert reset.snapshot["deployment"]["app"] == "hello-world"
    assert end.event == "deployment.end"
    assert [query["after"] for _, query in asked(server)] == ["9", "6"]


def test_a_snapshot_is_asked_for_once(server: ScriptedServer, client: ControlPlaneClient) -> None:
    app = {"app_id": "apps:x", "name": "hello-world", "deployment_id": None, "version": None, "functions": []}
    server.scripts += [
        stream((3, "app.snapshot", {"app": app, "index": 3})),
        stream((4, "app.deployed", DEPLOYED)),
    ]

    events = first(client.watch_app("hello-world", snapshot=True), 2)

    assert [event.event for event in events] == ["app.snapshot", "app.deployed"]
    assert [query for _, query in asked(server)] == [{"snapshot": "true"}, {"after": "3"}]


def test_what_does_not_exist_is_told(server: ScriptedServer, client: ControlPlaneClient) -> None:
    server.scripts.append(lambda wire, _: wire.refuse(404, "not_found"))

    with pytest.raises(NotFoundError):
        next(client.watch_app("hello-world"))


@pytest.mark.parametrize(
    "where",
    [{"event_types": ["job.log"]}, {"last_index": -2}, {"cursor": 3}, {"cursor": JobStreamCursor(1), "last_index": 1}],
)
def test_wrong_places_are_refused_at_once(server: ScriptedServer, client: ControlPlaneClient, where: Any) -> None:
    for watch in (client.watch_app, client.watch_deployment, client.aio.watch_app, client.aio.watch_deployment):
        with pytest.raises(InvalidRequestError):
            watch("deployments:1", **where)
    assert server.received == []
