"""What the client asks about groups, and Ctrl-C in a map: a real process, a real signal."""

from __future__ import annotations

import asyncio
import inspect
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs

import pytest

from apothic import ControlPlaneClient, InvalidRequestError, JobGroup, JobTimeoutError
from apothic.wire import chunks

from .conftest import FUNCTION, ScriptedServer, Wire, check, function_json
from .groups import GROUP, ScriptedGroup, value

Do = Callable[[Any], Any]


@pytest.fixture(params=["blocking", "asyncio"])
def asked(request: pytest.FixtureRequest, client: ControlPlaneClient) -> Any:
    """Calls a method of the client, blocking or not; of iterators it returns lists."""

    async def listed(result: Any) -> list[Any]:
        return [entry async for entry in result]

    def ask(name: str, *args: Any, **options: Any) -> Any:
        if request.param == "blocking":
            result = getattr(client, name)(*args, **options)
            return list(result) if hasattr(result, "__next__") else result
        result = getattr(client.aio, name)(*args, **options)
        return asyncio.run(listed(result) if not inspect.isawaitable(result) else result)

    return ask


@pytest.fixture
def group(server: ScriptedServer) -> Iterator[ScriptedGroup]:
    """The scripted group; nothing waits for its end after the test."""
    made = ScriptedGroup(server)
    yield made
    made.end("cancelled")


def test_a_group_can_be_fed_by_hand(asked: Any, group: ScriptedGroup) -> None:
    made = asked("create_group", FUNCTION, spread=True, key="night", stop_after=3)

    assert (made.id, made.status, made.items, made.total) == (GROUP, "running", 0, None)
    assert group.created == [{"spread": True, "key": "night", "stop_after": 3}]
    assert asked("add_inputs", GROUP, 0, 2, chunks.pack([b"j1", b"j2"]), python="3.12") == 2
    assert asked("close_group", GROUP, 2).status == "succeeded"
    assert asked("get_group", GROUP).counts.final == 2
    assert asked("cancel_group", GROUP, [1]).status == "cancelled"
    assert group.cancelled == [[1]]


def test_groups_are_listed_page_by_page(asked: Any, group: ScriptedGroup, server: ScriptedServer) -> None:
    queries: list[dict[str, list[str]]] = []

    def answer(wire: Wire, request: Any) -> None:
        queries.append(parse_qs(request.path.partition("?")[2]))
        cursor = None if "cursor" in queries[-1] else GROUP
        wire.answer(200, check("GroupList", {"items": [group.document()], "next_cursor": cursor}))

    server.routes["GET /v1/groups"] = answer

    assert [found.id for found in asked("list_groups", app="shop", status="running", limit=5)] == [GROUP, GROUP]
    assert queries == [
        {"app": ["shop"], "status": ["running"], "limit": ["5"]},
        {"app": ["shop"], "status": ["running"], "limit": ["4"], "cursor": [GROUP]},
    ]


def test_jobs_are_listed_by_group(asked: Any, server: ScriptedServer) -> None:
    server.routes["GET /v1/jobs"] = lambda wire, request: wire.answer(
        200, {"items": [], "next_cursor": None} if f"group={GROUP.replace(':', '%3A')}" in request.path else None
    )

    assert asked("list_jobs", group=GROUP) == ()


@pytest.mark.parametrize(
    ("name", "options"),
    [("close_group", {"total": -1}), ("create_group", {"key": ""}), ("create_group", {"stop_after": 0})],
)
def test_wrong_arguments_are_refused_here(asked: Any, name: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        asked(name, GROUP, **options)


def progress(index: int, done: int, group: ScriptedGroup) -> tuple[int, str, dict[str, Any]]:
    return index, "group.progress", {"counts": group.document()["counts"] | {"succeeded": done}, "items": 9, "total": 9}


def serve_events(server: ScriptedServer, group: ScriptedGroup) -> None:
    def answer(wire: Wire, request: Any) -> Any:
        after = int(parse_qs(request.path.partition("?")[2])["after"][0])
        events = [(0, "group.created", {"status": "running"}), progress(1, 4, group), progress(2, 9, group)]
        events.append((3, "group.end", {"status": "succeeded"}))
        wire.begin_events()
        for index, kind, data in events:
            if index > after:
                wire.chunk(f"id: {index}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode())
            if index == 1 and after < 1:
                return False
        return wire.end_stream()

    server.routes[f"GET /v1/groups/{GROUP}/events"] = answer


def test_events_of_a_group_come_each_once(asked: Any, group: ScriptedGroup, server: ScriptedServer) -> None:
    serve_events(server, group)

    found = asked("watch_group", GROUP)

    assert [(event.index, event.event) for event in found] == [
        (0, "group.created"), (1, "group.progress"), (2, "group.progress"), (3, "group.end"),
    ]  # fmt: skip
    with pytest.raises(InvalidRequestError, match=r"group\.progress"):
        asked("watch_group", GROUP, event_types=["group.progres"])


def test_a_handle_waits_for_the_end_and_watches(
    client: ControlPlaneClient, group: ScriptedGroup, server: ScriptedServer
) -> None:
    serve_events(server, group)
    known: JobGroup[Any] = JobGroup(GROUP, client)
    group.hold([1], total=1)

    assert known.wait().status == "succeeded"
    assert [event.index for event in known.events(last_index=1)] == [2, 3]


def test_waiting_for_a_group_is_bounded(client: ControlPlaneClient, server: ScriptedServer) -> None:
    over = threading.Event()

    def hang(wire: Wire, _: Any) -> None:
        wire.begin_events()
        over.wait(20)

    server.routes[f"GET /v1/groups/{GROUP}/events"] = hang

    with pytest.raises(JobTimeoutError, match=r"has not ended within 0\.1 s") as caught:
        JobGroup(GROUP, client).wait(timeout_s=0.1)
    over.set()
    assert caught.value.job_id == GROUP


PROGRAM = """
import sys
from apothic import RemoteFunction
RemoteFunction.from_name("hello-world", "greet").map(range(3), **eval(sys.argv[1]))
"""


@pytest.fixture
def program(server: ScriptedServer) -> Iterator[Callable[[str], Any]]:
    """Starts a program that maps, with these options."""
    server.scripts.append(lambda wire, _: wire.answer(200, function_json()))
    env = {"APOTHIC_BASE_URL": server.url, "APOTHIC_API_KEY": "lk_test", "HOME": "/nonexistent"}
    made: list[Any] = []

    def start(options: str = "{}") -> Any:
        made.append(
            subprocess.Popen([sys.executable, "-c", PROGRAM, options], env=env, stderr=subprocess.PIPE, text=True)
        )
        return made[0]

    yield start
    made[0].kill()
    made[0].communicate()


@pytest.fixture
def endless(group: ScriptedGroup) -> threading.Event:
    """The items never end; set when the program waits for them."""
    waits = threading.Event()
    group.execute = lambda *_: None
    group.on_outcomes = [lambda _: waits.set()]
    return waits


def test_ctrl_c_cancels_the_group_and_waits_for_that_answer(
    program: Any, group: ScriptedGroup, endless: threading.Event
) -> None:
    child = program()
    assert endless.wait(20)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=20)

    assert group.cancelled == [None]
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert child.returncode == -signal.SIGINT


def test_a_second_ctrl_c_leaves_at_once_and_names_the_group(
    program: Any, group: ScriptedGroup, endless: threading.Event, server: ScriptedServer
) -> None:
    in_cancel, over = threading.Event(), threading.Event()

    def cancel(wire: Wire, _: Any) -> None:
        in_cancel.set()
        over.wait(20)

    server.routes[f"POST /v1/groups/{GROUP}/cancel"] = cancel
    child = program()
    assert endless.wait(20)
    child.send_signal(signal.SIGINT)
    assert in_cancel.wait(20)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=20)
    over.set()
    group.end("cancelled")

    assert f"apothic: left {GROUP}; it may still run, `apothic group cancel {GROUP}` ends it" in err.splitlines()


def test_ctrl_c_leaves_a_group_with_a_key(program: Any, group: ScriptedGroup, endless: threading.Event) -> None:
    child = program("{'key': 'night'}")
    assert endless.wait(20)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=20)
    group.end("cancelled")

    assert group.cancelled == []
    assert f"apothic: left {GROUP}; the same call with its key goes on" in err.splitlines()
    assert err.rstrip().endswith("KeyboardInterrupt")


def test_ctrl_c_before_the_id_is_known_waits_for_the_id_and_then_cancels(program: Any, group: ScriptedGroup) -> None:
    in_create, interrupted = threading.Event(), threading.Event()

    def create(_: Wire) -> None:
        in_create.set()
        interrupted.wait(20)

    group.on_create = [create]
    child = program()
    assert in_create.wait(20)
    child.send_signal(signal.SIGINT)
    interrupted.set()
    _, err = child.communicate(timeout=20)

    assert group.cancelled == [None]
    assert group.segments == []
    assert err.rstrip().endswith("KeyboardInterrupt")


def test_an_outcome_may_be_any_json(client: ControlPlaneClient, group: ScriptedGroup) -> None:
    kinds: list[Any] = [None, 0, "", [], {"a": [1.5]}, True]
    group.execute = lambda _, item: value(item)
    group.hold(kinds, total=len(kinds))

    assert JobGroup(GROUP, client).results() == kinds
