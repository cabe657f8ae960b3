"""Calls over a real connection, blocking and asyncio: outcomes, lost connections, limits of waiting, refusals."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from apothic import (
    App,
    CapacityError,
    CloudNotRunning,
    ConflictError,
    ConnectionLostError,
    ControlPlaneClient,
    Job,
    JobCancelledError,
    JobTimeoutError,
    NotFoundError,
    ProtocolError,
    RemoteExecutionError,
    RemoteFunction,
    SerializationError,
    UnavailableError,
)
from apothic._exchange import RESUMES_MAX
from apothic.wire.frames import encode_frame
from apothic.wire.functions import FunctionSpec, Manifest
from apothic.wire.values import Value

from .conftest import (
    DEPLOYMENT,
    FUNCTION,
    JOB,
    TOKEN,
    Received,
    ScriptedServer,
    Wire,
    check,
    deployment_json,
    function_json,
    make_core,
    remote_error,
)

Do = Callable[[Any], Any]


@pytest.fixture(params=["blocking", "asyncio"])
def do(request: pytest.FixtureRequest) -> Do:
    """Finish what a blocking or an asyncio method returned."""

    def finish(result: Any) -> Any:
        return asyncio.run(result) if inspect.isawaitable(result) else result

    finish.is_async = request.param == "asyncio"  # type: ignore[attr-defined]
    return finish


@pytest.fixture
def greet(server: ScriptedServer, client: ControlPlaneClient, do: Any) -> Any:
    """The handle under test: `RemoteFunction` or its `.aio`."""
    server.scripts.append(lambda wire, _: wire.answer(200, function_json()))
    function = RemoteFunction.from_name("hello-world", "greet", client=client)
    return function.aio if do.is_async else function


@pytest.fixture
def job(client: ControlPlaneClient, do: Any) -> Any:
    made = Job(JOB, client)
    return made.aio if do.is_async else made


def lost_after_accepted(wire: Wire, _: Received) -> bool:
    wire.begin_stream()
    wire.frame({"kind": "accepted", "job_id": JOB})
    return False


def test_a_call_is_one_request_with_the_key_and_gives_the_result(do: Do, greet: Any, server: ScriptedServer) -> None:
    server.scripts.append(lambda wire, request: wire.outcome(result=request.arguments))

    assert do(greet.remote("world", 2, loud=True)) == [["world", 2], {"loud": True}]
    call = server.received[-1]
    assert (call.method, call.path) == ("POST", f"/v1/functions/{FUNCTION}/calls")
    assert call.headers["authorization"] == f"Bearer {TOKEN}"
    assert call.headers["accept"] == "application/vnd.apothic.outcome"
    assert call.headers["content-type"] == "application/vnd.apothic.call"
    assert server.connections == 1


def test_records_before_the_outcome_may_come_in_any_cut(do: Do, greet: Any, server: ScriptedServer) -> None:
    def script(wire: Wire, _: Received) -> None:
        wire.begin_stream()
        frames = encode_frame({"kind": "accepted", "job_id": JOB}) + encode_frame({"kind": "alive"}) * 3
        for index in range(len(frames)):
            wire.send(b"1\r\n" + frames[index : index + 1] + b"\r\n")
        data = encode_frame({"kind": "outcome", "job_id": JOB, "status": "succeeded", "encoding": "json",
                             "python": None, "error": None, "attempt": 2}, b"7")  # fmt: skip
        wire.send(f"{len(data):x}\r\n".encode() + data + b"\r\n0\r\n\r\n")

    server.scripts.append(script)

    assert do(greet.remote()) == 7


def test_a_call_that_no_machine_can_run_says_why_at_once(
    do: Do, greet: Any, server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    def script(wire: Wire, _: Received) -> None:
        wire.begin_stream()
        wire.frame({"kind": "accepted", "job_id": JOB, "obstacle": "no machine has Python 3.9"})

    server.scripts += [script] * 20

    with pytest.raises(JobTimeoutError, match=r"has not ended within 0\.3 s; it waits: no machine has Python 3\.9\."):
        do(greet.remote(timeout_s=0.3))

    assert capsys.readouterr().err == f"apothic: {JOB} waits: no machine has Python 3.9\n"


def test_a_pickled_result_comes_back_as_an_object(do: Do, greet: Any, server: ScriptedServer) -> None:
    from apothic._serialize import encode_result

    value = encode_result((1, {2}))

    def script(wire: Wire, _: Received) -> None:
        wire.begin_stream()
        wire.frame({"kind": "outcome", "job_id": JOB, "status": "succeeded", "encoding": value.encoding,
                    "python": value.python, "error": None, "attempt": 1}, value.data)  # fmt: skip
        wire.end_stream()

    server.scripts.append(script)

    assert do(greet.remote()) == (1, {2})


def test_a_client_without_pickle_refuses_a_pickled_result(server: ScriptedServer) -> None:
    client = ControlPlaneClient.from_core(make_core(server.url, allow_pickle=False))
    server.scripts.append(lambda wire, _: wire.outcome(encoding="pickle"))
    with pytest.raises(SerializationError) as caught:
        Job(JOB, client).wait()
    client.close()

    assert caught.value.code == "pickle_refused"


def test_a_result_of_another_python_names_both_versions(do: Do, greet: Any, server: ScriptedServer) -> None:
    server.scripts.append(lambda wire, _: wire.outcome(encoding="pickle", python="3.99"))

    with pytest.raises(SerializationError, match=r"3\.99") as caught:
        do(greet.remote())
    assert caught.value.code == "python_mismatch"


def test_a_remote_exception_carries_traceback_and_cause_chain(do: Do, greet: Any, server: ScriptedServer) -> None:
    causes = [remote_error(type="builtins.KeyError", message="'k'"), remote_error(type="builtins.OSError")]
    error = remote_error(traceback='Traceback…\n  File "app.py", line 3', causes=causes)
    server.scripts.append(lambda wire, _: wire.outcome("failed", error=error))

    with pytest.raises(RemoteExecutionError) as caught:
        do(greet.remote())
    found = caught.value
    assert (found.type_name, found.message, found.code, found.job_id) == (
        "builtins.ValueError",
        "bad",
        "exception",
        JOB,
    )
    assert 'File "app.py", line 3' in str(found)
    assert isinstance(found.__cause__, RemoteExecutionError)
    assert found.__cause__.type_name == "builtins.KeyError"
    assert isinstance(found.__cause__.__cause__, RemoteExecutionError)


def test_a_cancelled_job_and_a_job_past_its_limit_have_their_own_errors(
    do: Do, greet: Any, server: ScriptedServer
) -> None:
    server.scripts.append(lambda wire, _: wire.outcome("cancelled"))
    error = remote_error(message="ran 600 s", code="deadline_exceeded")
    server.scripts.append(lambda wire, _: wire.outcome("timed_out", error=error))
    with pytest.raises(JobCancelledError) as cancelled:
        do(greet.remote())
    with pytest.raises(JobTimeoutError, match="ran 600 s") as timed_out:
        do(greet.remote())

    assert cancelled.value.job_id == JOB
    assert (timed_out.value.job_id, timed_out.value.is_final, timed_out.value.code) == (JOB, True, "deadline_exceeded")


def test_a_call_lost_after_it_was_accepted_resumes_by_its_id(do: Do, greet: Any, server: ScriptedServer) -> None:
    server.scripts += [
        lost_after_accepted,
        lambda wire, _: False,
        lambda wire, _: wire.refuse(503, "unavailable", retryable=True, Retry_After="0"),
        lost_after_accepted,
        lambda wire, _: wire.outcome(result="done"),
    ]

    assert do(greet.remote()) == "done"
    assert [request.method for request in server.received[1:]] == ["POST", "GET", "GET", "GET", "GET"]
    assert server.received[-1].path == f"/v1/jobs/{JOB}/outcome"


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"])
def test_a_call_lost_before_it_was_accepted_is_sent_again_with_its_key(
    do: Do, greet: Any, server: ScriptedServer, answer: bytes
) -> None:
    def lose(wire: Wire, _: Received) -> bool:
        wire.send(answer)
        return False

    server.scripts += [lose, lose, lambda wire, _: wire.outcome(result="done")]

    assert do(greet.remote()) == "done"
    tries = server.received[1:]
    assert [(one.method, one.path, one.body) for one in tries] == [(tries[0].method, tries[0].path, tries[0].body)] * 3
    assert {one.headers["idempotency-key"] for one in tries} == {tries[0].headers["idempotency-key"]}
    assert [one.headers["idempotency-try"] for one in tries] == ["first", "again", "again"]


def test_a_stream_that_ends_before_accepted_is_asked_for_again_with_its_key(
    do: Do, greet: Any, server: ScriptedServer
) -> None:
    def lose(wire: Wire, _: Received) -> None:
        wire.begin_stream()
        wire.end_stream()

    server.scripts += [lose, lost_after_accepted, lambda wire, _: wire.outcome(result="done")]

    assert do(greet.remote()) == "done"
    tries = server.received[1:]
    assert [request.method for request in tries] == ["POST", "POST", "GET"]
    assert tries[0].headers["idempotency-key"] == tries[1].headers["idempotency-key"]
    assert [one.headers["idempotency-try"] for one in tries[:2]] == ["first", "again"]


@pytest.mark.parametrize("streams", [True, False])
def test_a_call_that_is_lost_again_and_again_ends_and_says_that_it_may_have_run(
    do: Do, greet: Any, server: ScriptedServer, streams: bool
) -> None:
    def lose(wire: Wire, _: Received) -> bool:
        if streams:
            wire.begin_stream()
        return False

    server.scripts += [lose] * RESUMES_MAX

    with pytest.raises(ConnectionLostError, match="may have"):
        do(greet.remote())
    assert len(server.received) == 1 + RESUMES_MAX


def test_a_lost_call_whose_repeat_finds_no_server_may_have_run(do: Do, server: ScriptedServer) -> None:
    client = ControlPlaneClient.from_core(make_core(server.url, timeout_s=5.0, random=lambda: 1.0))
    server.scripts += [
        lambda wire, _: False,
        lambda wire, _: wire.refuse(503, "unavailable", retryable=True, Retry_After="3600"),
    ]

    with pytest.raises(ConnectionLostError, match="may have taken effect"):
        do((client.aio if do.is_async else client).spawn(FUNCTION, Value("json", b"[[],{}]")))  # type: ignore[attr-defined]
    client.close()


def test_every_call_has_a_key_of_its_own(do: Do, greet: Any, server: ScriptedServer) -> None:
    server.scripts += [lambda wire, _: wire.outcome()] * 3

    for _ in range(3):
        do(greet.remote())

    keys = [request.headers["idempotency-key"] for request in server.received[1:]]
    assert len(set(keys)) == 3
    assert all(len(key) == 32 for key in keys)


def test_a_key_that_is_at_work_is_asked_for_again(do: Do, client: ControlPlaneClient, server: ScriptedServer) -> None:
    server.scripts += [
        lambda wire, _: False,
        lambda wire, _: wire.refuse(409, "idempotency_in_progress", retryable=True, Retry_After="0"),
        lambda wire, _: wire.answer(201, deployment_json()),
    ]
    manifest = Manifest("shop", "app", "3.11", "0.1.0", (FunctionSpec("work", qualname="work"),))

    made = do((client.aio if do.is_async else client).create_deployment("shop", manifest, "0" * 64))  # type: ignore[attr-defined]

    assert made.deployment_id == DEPLOYMENT
    assert [one.headers["idempotency-try"] for one in server.received] == ["first", "again", "again"]
    assert len({one.headers["idempotency-key"] for one in server.received}) == 1


def test_a_conflict_that_is_none_of_time_is_not_repeated(
    do: Do, client: ControlPlaneClient, server: ScriptedServer
) -> None:
    server.scripts.append(lambda wire, _: wire.refuse(409, "archive_missing"))
    manifest = Manifest("shop", "app", "3.11", "0.1.0", (FunctionSpec("work", qualname="work"),))

    with pytest.raises(ConflictError):
        do((client.aio if do.is_async else client).create_deployment("shop", manifest, "0" * 64))  # type: ignore[attr-defined]
    assert len(server.received) == 1


def test_waiting_ends_at_its_limit_and_names_the_job(do: Do, greet: Any, server: ScriptedServer) -> None:
    def script(wire: Wire, _: Received) -> None:
        wire.begin_stream()
        wire.frame({"kind": "accepted", "job_id": JOB})

    server.scripts.append(script)

    with pytest.raises(JobTimeoutError, match="goes on") as caught:
        do(greet.remote(timeout_s=0.05))
    assert (caught.value.job_id, caught.value.is_final, caught.value.code) == (JOB, False, "wait_timeout")
    assert isinstance(caught.value, TimeoutError)


def test_waiting_zero_seconds_looks_once(do: Do, job: Any, server: ScriptedServer) -> None:
    def unfinished(wire: Wire, _: Received) -> bool:
        wire.begin_stream()
        wire.frame({"kind": "alive"})
        return True

    server.scripts += [unfinished, lambda wire, _: wire.outcome(result=1)]
    with pytest.raises(JobTimeoutError) as caught:
        do(job.wait(timeout_s=0))

    assert caught.value.job_id == JOB
    assert do(job.wait(timeout_s=0)) == 1


MALFORMED_STREAMS: dict[str, tuple[dict[str, Any], bytes]] = {
    "no kind": ({}, b""),
    "an unknown kind": ({"kind": "surprise", "job_id": JOB}, b""),
    "no job": ({"kind": "accepted"}, b""),
    "an unknown status": ({"kind": "outcome", "job_id": JOB, "status": "odd", "attempt": 1}, b""),
    "no attempt": ({"kind": "outcome", "job_id": JOB, "status": "failed"}, b""),
    "an odd attempt": ({"kind": "outcome", "job_id": JOB, "status": "failed", "attempt": "1"}, b""),
    "an odd error": ({"kind": "outcome", "job_id": JOB, "status": "failed", "attempt": 1, "error": 7}, b""),
    "an error without type": ({"kind": "outcome", "job_id": JOB, "status": "failed", "attempt": 1, "error": {}}, b""),
    "an unknown encoding": (
        {"kind": "outcome", "job_id": JOB, "status": "succeeded", "attempt": 1, "encoding": "x"}, b""
    ),
    "an odd python": (
        {"kind": "outcome", "job_id": JOB, "status": "succeeded", "attempt": 1, "encoding": "json", "python": 3}, b""
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED_STREAMS)
def test_a_stream_that_breaks_the_contract_is_a_protocol_error(
    do: Do, greet: Any, server: ScriptedServer, name: str
) -> None:
    def script(wire: Wire, _: Received) -> None:
        wire.begin_stream()
        wire.frame(*MALFORMED_STREAMS[name])
        wire.end_stream()

    server.scripts.append(script)

    with pytest.raises(ProtocolError):
        do(greet.remote())


@pytest.mark.parametrize("data", [b"\xff" * 64, b"\0\0\0\x08\0\0\0\x04nope"])
def test_bytes_that_are_no_frames_are_a_protocol_error(do: Do, greet: Any, server: ScriptedServer, data: bytes) -> None:
    def script(wire: Wire, _: Received) -> None:
        wire.begin_stream()
        wire.send(f"{len(data):x}\r\n".encode() + data + b"\r\n0\r\n\r\n")

    server.scripts.append(script)

    with pytest.raises(ProtocolError):
        do(greet.remote())


def test_a_full_function_is_tried_again_after_the_time_it_names(do: Do, greet: Any, server: ScriptedServer) -> None:
    server.scripts += [lambda wire, _: wire.refuse(429, "too_many_pending", retryable=True, Retry_After="0")] * 6
    server.scripts.append(lambda wire, _: wire.outcome(result=1))

    assert do(greet.remote()) == 1
    assert server.connections == 1


def test_a_refusal_that_lasts_longer_than_the_limit_is_raised_at_once(
    do: Do, greet: Any, server: ScriptedServer
) -> None:
    server.scripts.append(lambda wire, _: wire.refuse(429, "too_many_pending", retryable=True, Retry_After="100"))

    with pytest.raises(CapacityError) as caught:
        do(greet.spawn())
    assert (caught.value.code, caught.value.request_id, caught.value.retryable) == ("too_many_pending", "r1", True)


def test_a_bare_503_from_something_in_between_does_not_repeat_a_call(
    do: Do, greet: Any, server: ScriptedServer
) -> None:
    server.scripts.append(lambda wire, _: wire.answer(503, None, Retry_After="0"))

    with pytest.raises(UnavailableError):
        do(greet.spawn())
    assert len(server.received) == 2


def test_spawn_returns_a_job_as_soon_as_it_is_durable(do: Do, greet: Any, server: ScriptedServer) -> None:
    server.scripts.append(
        lambda wire, _: wire.answer(202, check("JobStatusAnswer", {"job_id": JOB, "status": "queued"}))
    )
    made = do(greet.spawn("x"))

    assert isinstance(made, Job)
    assert made.job_id == JOB
    assert server.received[-1].path == f"/v1/functions/{FUNCTION}/calls?wait_s=0"
    assert server.received[-1].headers["accept"] == "application/json"


def test_spawn_whose_answer_is_lost_is_sent_again_with_its_key(do: Do, greet: Any, server: ScriptedServer) -> None:
    accepted = check("JobStatusAnswer", {"job_id": JOB, "status": "queued"})
    server.scripts += [lambda wire, _: False, lambda wire, _: wire.answer(202, accepted)]

    assert do(greet.spawn()).job_id == JOB
    tries = server.received[1:]
    assert len({one.headers["idempotency-key"] for one in tries}) == 1
    assert [one.headers["idempotency-try"] for one in tries] == ["first", "again"]


def test_a_retry_is_a_new_job_also_when_the_answer_is_lost(do: Do, job: Any, server: ScriptedServer) -> None:
    made = check("JobStatusAnswer", {"job_id": f"{JOB[:-1]}1", "status": "queued"})
    server.scripts += [lambda wire, _: False, lambda wire, _: wire.answer(202, made)]

    again = do(job.retry())

    assert isinstance(again, Job)
    assert again.job_id == made["job_id"]
    assert [request.path for request in server.received] == [f"/v1/jobs/{JOB}/retry"] * 2
    assert len({one.headers["idempotency-key"] for one in server.received}) == 1


def test_a_request_that_changes_nothing_is_repeated(do: Do, job: Any, server: ScriptedServer) -> None:
    answer = check("JobStatusAnswer", {"job_id": JOB, "status": "cancelling"})
    server.scripts += [lambda wire, _: False] * 3
    server.scripts.append(lambda wire, _: wire.answer(200, answer))

    assert do(job.cancel()) == "cancelling"
    assert len(server.received) == 4


def test_a_server_that_keeps_failing_is_unavailable(do: Do, job: Any, server: ScriptedServer) -> None:
    server.scripts += [lambda wire, _: False] * 4

    with pytest.raises(UnavailableError) as caught:
        do(job.status())
    assert caught.value.code == "unreachable"
    assert len(server.received) == 4


def test_logs_are_read_page_by_page(do: Do, job: Any, server: ScriptedServer) -> None:
    def line(index: int) -> dict[str, Any]:
        return {"index": index, "time": "2026-01-02T03:04:05.678Z", "stream": "stdout", "line": f"line {index}"}

    def script(wire: Wire, request: Received) -> None:
        after = int(request.path.partition("after=")[2].partition("&")[0])
        lines = [line(index) for index in range(after + 1, min(after + 1001, 1500))]
        wire.answer(200, check("LogPage", {"lines": lines, "last_index": lines[-1]["index"], "is_final": True}))

    server.scripts += [script, script]

    assert do(job.logs()) == [f"line {index}" for index in range(1500)]


def test_an_argument_that_cannot_travel_is_named_and_nothing_is_sent(
    do: Do, greet: Any, server: ScriptedServer
) -> None:
    with pytest.raises(SerializationError, match=r"Argument 2 of type _thread\.lock"):
        do(greet.remote(1, __import__("threading").Lock()))

    assert len(server.received) == 1


def test_apps_functions_and_connections_stay_where_they_are(client: Any, do: Do, greet: Any) -> None:
    app = App("shop", client=client)
    function = app.function()(top_level)

    for argument, says in ((app, "from_name"), (function, "from_name"), (client, "a name or an id"), (greet, "an id")):
        with pytest.raises(SerializationError, match=rf"Argument 1 of type apothic.* cannot be sent: .*{says}"):
            do(greet.remote(argument))


def top_level() -> None:
    """A function that an app may hold."""


@pytest.mark.parametrize("timeout_s", [-1, "1", True, float("nan"), None])
def test_a_limit_of_waiting_must_be_a_number_of_seconds(do: Do, greet: Any, timeout_s: Any) -> None:
    from apothic import InvalidRequestError

    with pytest.raises(InvalidRequestError, match="timeout_s"):
        do(greet.remote(timeout_s=timeout_s))


def test_unknown_names_say_what_the_server_suggests(server: ScriptedServer, client: ControlPlaneClient) -> None:
    server.scripts.append(lambda wire, _: wire.refuse(404, "not_found", "No function gret; did you mean greet?"))

    with pytest.raises(NotFoundError, match="did you mean greet") as caught:
        RemoteFunction.from_name("hello-world", "gret", client=client)
    assert caught.value.request_id == "r1"


def test_a_cloud_whose_process_has_ended_is_not_running(server: ScriptedServer) -> None:
    import subprocess
    import sys

    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    server.stop_listening()
    client = ControlPlaneClient.from_core(make_core(server.url, pid=ended.pid))

    with pytest.raises(CloudNotRunning, match="apothic up"):
        client.identity()


def test_a_refused_connection_names_the_address(server: ScriptedServer) -> None:
    server.stop_listening()
    client = ControlPlaneClient.from_core(make_core(server.url))

    with pytest.raises(UnavailableError, match=server.url):
        client.spawn(FUNCTION, __import__("apothic._serialize", fromlist=["x"]).encode_arguments([], {}))


def test_a_task_that_is_cancelled_leaves_the_job_running(server: ScriptedServer, client: ControlPlaneClient) -> None:
    async def scenario() -> None:
        accepted = asyncio.Event()
        loop = asyncio.get_running_loop()

        def script(wire: Wire, _: Received) -> None:
            wire.begin_stream()
            wire.frame({"kind": "accepted", "job_id": JOB})
            loop.call_soon_threadsafe(accepted.set)

        server.scripts.append(script)
        task = asyncio.create_task(Job(JOB, client).aio.wait())
        await accepted.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert [request.method for request in server.received] == ["GET"]
