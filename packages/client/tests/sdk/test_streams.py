"""Event streams over a real connection, blocking and asyncio: order, resuming, filters, resets, leaving."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import pickle
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Any
from urllib.parse import parse_qs

import pytest

from apothic import (
    CapacityError,
    ControlPlaneClient,
    InvalidRequestError,
    Job,
    JobEndEvent,
    JobErrorEvent,
    JobLogEvent,
    JobResetEvent,
    JobResultEvent,
    JobStatusEvent,
    JobStreamCheckpoint,
    JobStreamCursor,
    JobStreamEvent,
    JobStreamItemEvent,
    JobTimeoutError,
    NotFoundError,
    ProtocolError,
    RemoteFunction,
    SerializationError,
    UnavailableError,
)
from apothic._blocking import Interrupts, perform
from apothic._events import EventReader, follow
from apothic._position import Position
from apothic._steps import Pause, Receive, Say, Steps
from apothic_server.testing.guarantees import guarantee

from .conftest import (
    FUNCTION,
    JOB,
    TIME,
    Received,
    ScriptedServer,
    Wire,
    check,
    function_json,
    job_json,
    make_core,
    remote_error,
)

EVENTS = f"/v1/jobs/{JOB}/events"
Read = Callable[[Any], list[JobStreamEvent]]


@pytest.fixture(params=["blocking", "asyncio"])
def read(request: pytest.FixtureRequest) -> Read:
    """Read a blocking or an asyncio iterator to its end."""

    async def gather(events: Any) -> list[JobStreamEvent]:
        return [event async for event in events]

    def finish(events: Any) -> list[JobStreamEvent]:
        return asyncio.run(gather(events)) if request.param == "asyncio" else list(events)

    finish.is_async = request.param == "asyncio"  # type: ignore[attr-defined]
    return finish


@pytest.fixture
def job(client: ControlPlaneClient, read: Any) -> Any:
    made = Job(JOB, client)
    return made.aio if read.is_async else made


@pytest.fixture
def greet(server: ScriptedServer, client: ControlPlaneClient, read: Any) -> Any:
    server.scripts.append(lambda wire, _: wire.answer(200, function_json()))
    function = RemoteFunction.from_name("hello-world", "greet", client=client)
    return function.aio if read.is_async else function


def stream(*events: Any, ends: bool = True, goes_on: bool = True) -> Callable[[Wire, Received], bool]:
    """Send events, each an index and a kind and maybe data; end the answer, and keep or close the connection."""

    def script(wire: Wire, _: Received) -> bool:
        wire.begin_events()
        for event in events:
            wire.event(*event)
        if ends:
            wire.end_stream()
        return goes_on

    return script


def cut(*events: Any) -> Callable[[Wire, Received], bool]:
    return stream(*events, ends=False, goes_on=False)


def page(*events: Any, last_index: int, is_final: bool) -> Callable[[Wire, Received], None]:
    made = [{"index": index, "event": kind, "data": data} for index, kind, data in events]
    return lambda wire, _: wire.answer(
        200, check("EventPage", {"events": made, "last_index": last_index, "is_final": is_final})
    )


def queries(server: ScriptedServer) -> list[dict[str, str]]:
    found = [request.path.partition("?") for request in server.received if "/events" in request.path]
    assert all(path == EVENTS for path, _, _ in found)
    return [{name: values[0] for name, values in parse_qs(query).items()} for _, _, query in found]


def reset(requested: int, oldest: int, latest: int) -> tuple[int, str, dict[str, Any]]:
    data = {
        "requested_index": requested, "oldest_index": oldest, "latest_index": latest,
        "snapshot": {"job": job_json(), "index": latest},
    }  # fmt: skip
    return latest, "job.reset", data


WHOLE = [(0, "job.queued"), (1, "job.running"), (2, "job.log"), (3, "job.result"), (4, "job.end")]


def test_every_kind_comes_as_its_own_class(read: Read, job: Any, server: ScriptedServer) -> None:
    error = {**remote_error(message="bad", causes=[remote_error(type="builtins.KeyError")]), "attempt": 1}
    server.scripts.append(
        stream(
            (0, "job.queued"),
            (1, "job.running"),
            (2, "job.log", {"stream": "stderr", "line": "a", "time": TIME, "partial": True}),
            (3, "job.error", error),
            (4, "job.status", {"status": "retrying", "previous": "running", "attempt": 1}),
            (5, "job.stream_item", {"attempt": 1, "ordinal": 0, "encoding": "json", "python": None, "item": 1}),
            (6, "job.result"),
            (7, "job.end"),
        )
    )
    queued, running, log, failed, status, item, result, end = read(job.watch())

    assert [type(event) for event in (queued, running, status)] == [JobStatusEvent] * 3
    assert (queued.status, queued.attempt, running.attempt) == ("queued", None, 1)
    assert (status.status, status.previous, status.attempt) == ("retrying", "running", 1)
    assert isinstance(log, JobLogEvent)
    assert (log.event, log.index, log.line, log.stream, log.time, log.is_partial) == (
        "job.log", 2, "a", "stderr", TIME, True
    )  # fmt: skip
    assert isinstance(failed, JobErrorEvent)
    assert (failed.error.type_name, failed.error.message, failed.attempt) == ("builtins.ValueError", "bad", 1)
    assert failed.error.causes[0].type_name == "builtins.KeyError"
    assert isinstance(item, JobStreamItemEvent)
    assert isinstance(result, JobResultEvent)
    assert result.result == {"a": [1]}
    assert isinstance(end, JobEndEvent)
    assert (end.status, end.index) == ("succeeded", 7)
    assert all(isinstance(event, JobStreamEvent) for event in (queued, log, failed, item, result, end))


def test_a_stream_is_one_request_from_the_beginning_and_the_connection_is_used_again(
    read: Read, job: Any, server: ScriptedServer
) -> None:
    server.scripts += [stream(*WHOLE), stream(*WHOLE)]

    if read.is_async:  # type: ignore[attr-defined]

        async def twice() -> None:
            for _ in range(2):
                assert [event.index async for event in job.stream_events()] == [0, 1, 2, 3, 4]

        asyncio.run(twice())
    else:
        assert [[event.index for event in job.stream_events()] for _ in range(2)] == [[0, 1, 2, 3, 4]] * 2
    assert queries(server) == [{"after": "-1"}] * 2
    assert server.received[0].headers["accept"] == "text/event-stream"
    assert server.connections == 1


@guarantee("G5.2", "watch_model_check")
def test_a_lost_stream_resumes_after_the_last_index_without_gap_or_repeat(
    read: Read, job: Any, server: ScriptedServer
) -> None:
    server.scripts += [
        cut((0, "job.queued"), (1, "job.running")),
        lambda wire, _: False,
        lambda wire, _: wire.refuse(503, "unavailable", retryable=True, Retry_After="0"),
        cut((2, "job.log"), (3, "job.alive")),
        stream((1, "job.running"), (2, "job.log"), (3, "job.log"), (4, "job.log"), (5, "job.end")),
    ]

    assert [event.index for event in read(job.watch())] == [0, 1, 2, 4, 5]
    assert [query["after"] for query in queries(server)] == ["-1", "1", "1", "1", "3"]


def test_an_event_cut_in_the_middle_comes_whole_after_resuming(read: Read, job: Any, server: ScriptedServer) -> None:
    def half(wire: Wire, _: Received) -> bool:
        wire.begin_events()
        wire.event(0, "job.queued")
        wire.chunk(b"id: 1\nevent: job.run")
        return False

    server.scripts += [half, stream((1, "job.running"), (2, "job.end"))]

    assert [event.index for event in read(job.watch())] == [0, 1, 2]


def test_keep_alives_are_never_seen_and_advance_a_filtered_reader(read: Read, job: Any, server: ScriptedServer) -> None:
    server.scripts += [cut((3, "job.log"), (90, "job.alive")), stream((95, "job.log"), (99, "job.end"))]

    found = read(job.watch(event_types=["job.log"]))

    assert [(event.event, event.index) for event in found] == [("job.log", 3), ("job.log", 95)]
    assert queries(server) == [
        {"after": "-1", "types": "job.end,job.log"},
        {"after": "90", "types": "job.end,job.log"},
    ]


def test_the_filter_for_status_lets_both_older_names_pass(read: Read, job: Any, server: ScriptedServer) -> None:
    server.scripts.append(stream((0, "job.queued"), (1, "job.running"), (9, "job.end")))

    assert [event.event for event in read(job.watch(event_types=("job.status",)))] == ["job.queued", "job.running"]


@guarantee("G5.3", "snapshot_then_exactly_next")
def test_a_snapshot_comes_first_once_and_the_stream_goes_on_behind_it(
    read: Read, job: Any, server: ScriptedServer
) -> None:
    snapshot = {"job": job_json(), "index": 41}
    server.scripts += [
        lambda wire, _: False,
        cut((41, "job.snapshot", snapshot), (42, "job.log")),
        stream((43, "job.end")),
    ]

    found = read(job.watch(snapshot=True, last_index=7, event_types=["job.log", "job.end"]))

    assert [(event.event, event.index) for event in found] == [
        ("job.snapshot", 41), ("job.log", 42), ("job.end", 43)
    ]  # fmt: skip
    assert type(found[0]) is JobStreamEvent
    assert found[0].data == snapshot
    assert queries(server) == [
        {"snapshot": "true", "types": "job.end,job.log"},
        {"snapshot": "true", "types": "job.end,job.log"},
        {"after": "42", "types": "job.end,job.log"},
    ]


@guarantee("G5.5", "reset_not_silence")
@pytest.mark.parametrize(("requested", "oldest", "latest"), [(3, 500, 900), (5000, 0, 12)])
def test_a_reset_is_an_event_whatever_the_filter_and_sets_the_place(
    read: Read, job: Any, server: ScriptedServer, requested: int, oldest: int, latest: int
) -> None:
    server.scripts += [
        cut(reset(requested, oldest, latest)),
        stream((latest + 1, "job.log"), (latest + 2, "job.end")),
    ]

    first, second = read(job.watch(last_index=requested, event_types=["job.log"]))

    assert isinstance(first, JobResetEvent)
    assert (first.requested_index, first.oldest_index, first.latest_index, first.index) == (
        requested, oldest, latest, latest
    )  # fmt: skip
    assert first.snapshot["job"]["job_id"] == JOB
    assert second.index == latest + 1
    assert [query["after"] for query in queries(server)] == [str(requested), str(latest)]


def test_an_answer_that_ends_cleanly_before_the_job_is_looked_into_and_resumed(
    read: Read, job: Any, server: ScriptedServer
) -> None:
    server.scripts += [
        stream((0, "job.queued")),
        page((1, "job.running", {"status": "running", "attempt": 1}), last_index=1, is_final=False),
        stream(),
        page(last_index=1, is_final=False),
        stream((2, "job.end")),
    ]

    assert [event.index for event in read(job.watch())] == [0, 1, 2]
    assert [query["after"] for query in queries(server)] == ["-1", "0", "1", "1", "1"]


def test_a_reader_that_begins_behind_the_end_gets_nothing(read: Read, job: Any, server: ScriptedServer) -> None:
    server.scripts += [stream(), page(last_index=4, is_final=True)]

    assert read(job.watch(last_index=4)) == []


def test_the_end_may_come_by_a_page(read: Read, job: Any, server: ScriptedServer) -> None:
    server.scripts += [
        stream((0, "job.queued")),
        page((1, "job.end", {"status": "cancelled"}), last_index=1, is_final=True),
    ]

    assert [event.event for event in read(job.watch())] == ["job.queued", "job.end"]


def test_a_stream_that_breaks_off_again_and_again_says_where_to_go_on(
    read: Read, job: Any, server: ScriptedServer
) -> None:
    server.scripts += [cut((0, "job.queued"), (7, "job.log")), *[cut()] * 7]

    with pytest.raises(UnavailableError, match=f"{JOB} was read up to index 7"):
        read(job.watch())


def test_a_server_that_is_gone_says_where_to_go_on(read: Read, job: Any, server: ScriptedServer) -> None:
    def last(wire: Wire, _: Received) -> bool:
        server.stop_listening()
        wire.begin_events()
        wire.event(3, "job.log")
        return False

    server.scripts.append(last)

    with pytest.raises(UnavailableError, match=f"cannot be reached.*{JOB} was read up to index 3"):
        read(job.watch())


def test_silence_longer_than_three_keep_alives_is_a_lost_stream(server: ScriptedServer) -> None:
    now = [0.0]
    core = make_core(server.url, clock=lambda: now[0])
    reader = EventReader(core, JOB, Position())
    wires: list[Wire] = []

    def silent(wire: Wire, _: Received) -> None:
        wires.append(wire)
        wire.begin_events()

    server.scripts += [silent, stream((0, "job.end"))]
    steps = reader.more()
    effect = next(steps)
    while not (isinstance(effect, Receive) and effect.timeout_s > 40):
        effect = steps.send(perform(effect, Interrupts()))
    now[0] = 45.0
    effect = steps.throw(TimeoutError())
    with pytest.raises(StopIteration) as ended:
        while True:
            effect = steps.send(perform(effect, Interrupts()))
    reader.close()
    core.idle.close()

    assert [event.event for event in ended.value.value] == ["job.end"]
    assert len(wires) == 1


def test_a_bound_on_reading_ends_it_and_names_the_job(server: ScriptedServer, client: ControlPlaneClient) -> None:
    over = threading.Event()

    def endless(wire: Wire, _: Received) -> None:
        wire.begin_events()
        wire.event(0, "job.queued")
        over.wait(20)

    server.scripts.append(endless)
    events = follow(client.run, EventReader(client.core, JOB, Position(), timeout_s=0.2))

    assert next(events).index == 0
    with pytest.raises(JobTimeoutError, match="goes on") as caught:
        next(events)
    over.set()
    assert caught.value.job_id == JOB


def test_leaving_a_loop_closes_the_connection(read: Any, job: Any, server: ScriptedServer) -> None:
    left = threading.Event()

    def endless(wire: Wire, _: Received) -> None:
        wire.begin_events()
        wire.event(0, "job.queued")
        wire.event(1, "job.running")
        # Leaving unread events behind, the client's close may arrive as a reset.
        with contextlib.suppress(ConnectionResetError):
            assert wire.sock.recv(1) == b""
        left.set()

    server.scripts.append(endless)
    if read.is_async:

        async def scenario() -> None:
            async with contextlib.aclosing(job.watch()) as events:
                async for _ in events:
                    break
            assert await asyncio.to_thread(left.wait, 20)

        asyncio.run(scenario())
    else:
        for _ in job.watch():
            break

    assert left.wait(20)


def test_a_cancelled_task_closes_the_connection(server: ScriptedServer, client: ControlPlaneClient) -> None:
    async def scenario() -> None:
        begun, left = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def endless(wire: Wire, _: Received) -> None:
            wire.begin_events()
            wire.event(0, "job.queued")
            loop.call_soon_threadsafe(begun.set)
            with contextlib.suppress(ConnectionResetError):
                assert wire.sock.recv(1) == b""
            left.set()

        async def watch() -> None:
            async for _ in Job(JOB, client).aio.watch():
                pass

        server.scripts.append(endless)
        task = asyncio.create_task(watch())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(left.wait, 20)

    asyncio.run(scenario())


def test_refusals_are_raised_as_their_errors(read: Read, job: Any, server: ScriptedServer) -> None:
    server.scripts.append(lambda wire, _: wire.refuse(404, "not_found", "No such job."))
    with pytest.raises(NotFoundError, match="No such job"):
        read(job.watch())

    server.scripts.append(
        lambda wire, _: wire.refuse(429, "too_many_watchers", "Too many.", retryable=True, Retry_After="1000")
    )
    with pytest.raises(CapacityError) as caught:
        read(job.watch())
    assert caught.value.code == "too_many_watchers"


def test_a_pickled_result_is_decoded_only_when_it_is_asked_for(read: Read, job: Any, server: ScriptedServer) -> None:
    def result(data: bytes, encoding: str = "pickle", python: str | None = None) -> dict[str, Any]:
        return {"attempt": 1, "encoding": encoding, "python": python, "result": base64.b64encode(data).decode()}

    server.scripts.append(
        stream(
            (0, "job.result", result(pickle.dumps((1, {2}), 5))),
            (1, "job.result", result(b"broken")),
            (2, "job.result", result(b"{", "opaque")),
            (3, "job.result", result(b"", python="3.99")),
            (4, "job.result", {"attempt": 1}),
            (5, "job.end"),
        )
    )
    good, broken, opaque, other, empty, _ = read(job.watch())

    assert isinstance(good, JobResultEvent)
    assert good.result == (1, {2})
    assert good.result is good.result
    assert isinstance(empty, JobResultEvent)
    assert empty.result is None
    for event, code in ((broken, "result_unreadable"), (opaque, "result_unreadable"), (other, "python_mismatch")):
        assert isinstance(event, JobResultEvent)
        with pytest.raises(SerializationError) as caught:
            _ = event.result
        assert caught.value.code == code
    by_hand = JobResultEvent(good.event, good.data, good.index)
    assert by_hand == good
    with pytest.raises(SerializationError, match="pickle"):
        _ = by_hand.result


MALFORMED: dict[str, bytes] = {
    "no JSON": b"id: 0\nevent: job.queued\ndata: {\n\n",
    "too deep": b"id: 0\nevent: job.log\ndata: " + b"[" * 100_000 + b"\n\n",
    "no object": b"id: 0\nevent: job.queued\ndata: []\n\n",
    "no status": b"id: 0\nevent: job.end\ndata: {}\n\n",
    "an odd line": b'id: 0\nevent: job.log\ndata: {"stream":"stdout","line":1,"time":""}\n\n',
    "no index": b"event: job.queued\ndata: {}\n\n",
    "no snapshot": b'id: 0\nevent: job.reset\ndata: {"requested_index":1,"oldest_index":1,"latest_index":1}\n\n',
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_stream_that_breaks_the_contract_is_a_protocol_error(
    read: Read, job: Any, server: ScriptedServer, name: str
) -> None:
    def script(wire: Wire, _: Received) -> None:
        wire.begin_events()
        wire.chunk(MALFORMED[name])
        wire.end_stream()

    server.scripts.append(script)

    with pytest.raises(ProtocolError):
        read(job.watch())


def test_an_answer_that_is_no_stream_is_a_protocol_error(read: Read, job: Any, server: ScriptedServer) -> None:
    server.scripts.append(lambda wire, _: wire.answer(200, {}))

    with pytest.raises(ProtocolError, match="status 200"):
        read(job.watch())


@pytest.mark.parametrize(("time", "text"), [(TIME, TIME), (1767323045.678, TIME), (None, ""), (True, "")])
def test_the_time_of_a_line_is_text(time: Any, text: str) -> None:
    assert JobLogEvent("job.log", {"stream": "stdout", "line": "a", "time": time}, 0).time == text


def test_kinds_of_a_newer_server_come_as_the_base_class(read: Read, job: Any, server: ScriptedServer) -> None:
    def script(wire: Wire, _: Received) -> None:
        wire.begin_events()
        wire.chunk(b"id: 0\nevent: job.paused\ndata: [1]\n\n")
        wire.event(1, "job.end")
        wire.end_stream()

    server.scripts.append(script)

    assert read(job.watch())[0] == JobStreamEvent("job.paused", [1], 0)


@pytest.mark.parametrize(
    ("place", "after"),
    [
        ({"checkpoint": JobStreamCheckpoint(JOB, 7)}, 7),
        ({"cursor": JobStreamCursor(8)}, 8),
        ({"last_index": 9}, 9),
        ({"last_index": -1}, -1),
    ],
)
def test_reading_begins_at_the_place_that_is_given(
    read: Read, job: Any, server: ScriptedServer, place: dict[str, Any], after: int
) -> None:
    server.scripts.append(stream((after + 1, "job.end")))

    assert [event.index for event in read(job.stream_events(**place))] == [after + 1]
    assert queries(server) == [{"after": str(after)}]


def test_a_checkpoint_carries_its_filter_into_another_process(read: Read, job: Any, server: ScriptedServer) -> None:
    server.scripts += [stream((5, "job.log"), (6, "job.end"))] * 2
    kept = json.dumps(asdict(job.checkpoint(last_index=4, event_types=["job.log"])))
    checkpoint = JobStreamCheckpoint(**json.loads(kept))

    assert checkpoint == JobStreamCheckpoint(JOB, 4, ("job.log",))
    assert [event.index for event in read(job.watch(checkpoint=checkpoint))] == [5]
    assert [event.index for event in read(job.watch(checkpoint=checkpoint, event_types=["job.end"]))] == [6]


def test_a_checkpoint_is_made_from_a_cursor_an_index_or_nothing(job: Any) -> None:
    assert job.checkpoint() == JobStreamCheckpoint(JOB, -1, ())
    assert job.checkpoint(cursor=JobStreamCursor(3)) == JobStreamCheckpoint(JOB, 3, ())
    assert JobStreamCursor() == JobStreamCursor(-1)
    with pytest.raises(InvalidRequestError, match="at most one"):
        job.checkpoint(cursor=JobStreamCursor(3), last_index=3)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"last_index": 1, "cursor": JobStreamCursor(1)}, "cursor and last_index"),
    ({"checkpoint": JobStreamCheckpoint(JOB), "last_index": 1}, "checkpoint and last_index"),
    ({"checkpoint": JobStreamCheckpoint("jobs:other")}, "jobs:other"),
    ({"checkpoint": JobStreamCursor(1)}, "JobStreamCheckpoint"),
    ({"cursor": 7}, "JobStreamCursor"),
    ({"last_index": -2}, "last_index"),
    ({"last_index": True}, "last_index"),
    ({"last_index": 2**63}, "last_index"),
    ({"event_types": "job.log"}, "a list or tuple"),
    ({"event_types": ["job.logs"]}, r"did you mean job\.log\?"),
    ({"event_types": ["job.alive"]}, "event_types"),
    ({"event_types": [7]}, "event_types"),
    ({"event_types": [["job.log"]]}, "event_types"),
    ({"snapshot": "yes"}, "snapshot"),
]


@pytest.mark.parametrize(("arguments", "says"), WRONG)
def test_wrong_places_and_filters_are_refused_at_once(
    job: Any, server: ScriptedServer, arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        job.watch(**arguments)
    assert server.received == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: JobStreamCursor(-2),
        lambda: JobStreamCursor("1"),  # type: ignore[arg-type]
        lambda: JobStreamCheckpoint("", 1),
        lambda: JobStreamCheckpoint(JOB, 1.5),  # type: ignore[arg-type]
        lambda: JobStreamCheckpoint(JOB, 1, ("job.lag",)),
    ],
)
def test_a_malformed_place_cannot_be_made(make: Callable[[], Any]) -> None:
    with pytest.raises(InvalidRequestError):
        make()


def test_remote_events_spawns_when_the_first_event_is_asked_for(read: Read, greet: Any, server: ScriptedServer) -> None:
    events = greet.remote_events("world", loud=True, event_types=["job.end"])
    assert len(server.received) == 1
    server.scripts += [
        lambda wire, _: wire.answer(202, check("JobStatusAnswer", {"job_id": JOB, "status": "queued"})),
        stream(*WHOLE),
    ]

    assert [event.event for event in read(events)] == ["job.end"]
    assert server.received[1].path == f"/v1/functions/{FUNCTION}/calls?wait_s=0"
    assert server.received[1].arguments == [["world"], {"loud": True}]
    assert queries(server) == [{"after": "-1", "types": "job.end"}]


def test_remote_events_of_a_lost_spawn_send_it_again_with_its_key(
    read: Read, greet: Any, server: ScriptedServer
) -> None:
    server.scripts += [
        lambda wire, _: False,
        lambda wire, _: wire.answer(202, check("JobStatusAnswer", {"job_id": JOB, "status": "queued"})),
        stream(*WHOLE),
    ]

    assert read(greet.remote_events())
    assert len({one.headers["idempotency-key"] for one in server.received[1:3]}) == 1


def test_an_interrupt_of_remote_events_names_the_job_that_goes_on(server: ScriptedServer) -> None:
    def created() -> Steps[str]:
        yield Pause(0)
        return JOB

    steps = EventReader(make_core(server.url), created, Position()).more()
    next(steps)
    steps.send(None)
    said = steps.throw(KeyboardInterrupt())

    assert isinstance(said, Say)
    assert JOB in said.text
    with pytest.raises(KeyboardInterrupt):
        steps.send(None)


def test_remote_events_refuses_wrong_arguments_at_once(greet: Any, server: ScriptedServer) -> None:
    with pytest.raises(InvalidRequestError, match="event_types"):
        greet.remote_events(event_types=["nope"])
    with pytest.raises(SerializationError):
        greet.remote_events(threading.Lock())

    assert len(server.received) == 1
