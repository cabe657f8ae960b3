"""Ctrl-C in a blocking call: a real process, a real signal."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from typing import Any

import pytest

from apothic import _calls
from apothic._blocking import Interrupts, perform
from apothic._calls import Waiting
from apothic._steps import Say, Steps
from apothic.wire.values import Value

from .conftest import JOB, Received, ScriptedServer, Wire, check, function_json, make_core

PROGRAM = """
from apothic import RemoteFunction
RemoteFunction.from_name("hello-world", "greet").remote()
"""


@pytest.fixture
def program(server: ScriptedServer) -> Any:
    server.scripts.append(lambda wire, _: wire.answer(200, function_json()))
    env = {
        "APOTHIC_BASE_URL": server.url,
        "APOTHIC_API_KEY": "lk_test",
        "HOME": "/nonexistent",
    }
    child = subprocess.Popen([sys.executable, "-c", PROGRAM], env=env, stderr=subprocess.PIPE, text=True)
    yield child
    child.kill()
    child.communicate()


def accepted(wire: Wire) -> None:
    wire.begin_stream()
    wire.frame({"kind": "accepted", "job_id": JOB})


def test_ctrl_c_cancels_the_job_and_waits_for_that_answer(server: ScriptedServer, program: Any) -> None:
    in_call, cancelled = threading.Event(), threading.Event()

    def call(wire: Wire, _: Received) -> None:
        accepted(wire)
        in_call.set()

    def cancel(wire: Wire, _: Received) -> None:
        cancelled.set()
        wire.answer(200, check("JobStatusAnswer", {"job_id": JOB, "status": "cancelling"}))

    server.scripts.append(call)
    server.routes[f"POST /v1/jobs/{JOB}/cancel"] = cancel
    assert in_call.wait(20)
    program.send_signal(signal.SIGINT)
    _, err = program.communicate(timeout=20)

    assert cancelled.is_set()
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert program.returncode == -signal.SIGINT


def test_ctrl_c_before_the_id_is_known_waits_for_the_id_and_then_cancels(server: ScriptedServer, program: Any) -> None:
    in_call, interrupted, cancelled = threading.Event(), threading.Event(), threading.Event()

    def call(wire: Wire, _: Received) -> None:
        in_call.set()
        interrupted.wait(20)
        accepted(wire)

    def cancel(wire: Wire, _: Received) -> None:
        cancelled.set()
        wire.answer(200, {"job_id": JOB, "status": "cancelled"})

    server.scripts.append(call)
    server.routes[f"POST /v1/jobs/{JOB}/cancel"] = cancel
    assert in_call.wait(20)
    program.send_signal(signal.SIGINT)
    interrupted.set()
    _, err = program.communicate(timeout=20)

    assert cancelled.is_set()
    assert err.rstrip().endswith("KeyboardInterrupt")


def test_a_second_ctrl_c_leaves_at_once_and_names_the_job(server: ScriptedServer, program: Any) -> None:
    in_call, in_cancel, over = threading.Event(), threading.Event(), threading.Event()

    def call(wire: Wire, _: Received) -> None:
        accepted(wire)
        in_call.set()

    def cancel(wire: Wire, _: Received) -> None:
        in_cancel.set()
        over.wait(20)

    server.scripts.append(call)
    server.routes[f"POST /v1/jobs/{JOB}/cancel"] = cancel
    assert in_call.wait(20)
    program.send_signal(signal.SIGINT)
    assert in_cancel.wait(20)
    program.send_signal(signal.SIGINT)
    _, err = program.communicate(timeout=20)
    over.set()

    assert f"apothic: left {JOB}; it may still run, `apothic job cancel {JOB}` ends it" in err.splitlines()


def test_a_failed_cancel_is_said_and_the_interrupt_still_ends_the_call(server: ScriptedServer, program: Any) -> None:
    in_call = threading.Event()

    def call(wire: Wire, _: Received) -> None:
        accepted(wire)
        in_call.set()

    server.scripts.append(call)
    server.routes[f"POST /v1/jobs/{JOB}/cancel"] = lambda wire, _: wire.refuse(403, "forbidden", "read only")
    assert in_call.wait(20)
    program.send_signal(signal.SIGINT)
    _, err = program.communicate(timeout=20)

    assert f"apothic: {JOB} could not be cancelled: read only" in err.splitlines()
    assert err.rstrip().endswith("KeyboardInterrupt")


def test_ctrl_c_outside_of_waiting_is_kept_for_the_next_wait() -> None:
    interrupts = Interrupts()
    interrupts.handle(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt), interrupts.waiting():
        pytest.fail("the wait must not begin")
    with interrupts.waiting():
        assert not interrupts.is_pending


def test_only_the_first_interrupt_before_the_id_is_put_off() -> None:
    waiting = Waiting(make_core("http://127.0.0.1:1"), None, 1.0)

    assert waiting.defer_interrupt()
    assert not waiting.defer_interrupt()
    assert not Waiting(make_core("http://127.0.0.1:1"), JOB, 1.0).defer_interrupt()


def test_an_interrupt_of_the_first_bytes_is_put_off_in_every_place(server: ScriptedServer) -> None:
    """Drives the operation by hand: Ctrl-C comes at each effect of a call in turn."""

    def interrupted_at(place: int) -> tuple[list[str], bool]:
        steps: Steps[Any] = _calls.call(make_core(server.url), "functions:x", Value("json", b"[[],{}]"))
        said: list[str] = []
        effect, count = next(steps), 0
        try:
            while True:
                if isinstance(effect, Say):
                    said.append(effect.text)
                    effect = steps.send(None)
                    continue
                count += 1
                if count == place:
                    effect = steps.throw(KeyboardInterrupt())
                    continue
                effect = steps.send(perform(effect, Interrupts()))
        except KeyboardInterrupt:
            return said, True
        except StopIteration:
            return said, False

    cancels: list[str] = []

    def cancel(wire: Wire, request: Received) -> None:
        cancels.append(request.path)
        wire.answer(200, {"job_id": JOB, "status": "cancelled"})

    def call(wire: Wire, _: Received) -> None:
        accepted(wire)
        wire.frame({"kind": "outcome", "job_id": JOB, "status": "cancelled", "attempt": 1})
        wire.end_stream()

    server.routes["POST /v1/functions/functions:x/calls"] = call
    server.routes[f"POST /v1/jobs/{JOB}/cancel"] = cancel
    dial, send, first = (interrupted_at(place) for place in (1, 2, 3))

    assert (dial, send, first) == (([], True), ([], True), ([], True))
    assert cancels == [f"/v1/jobs/{JOB}/cancel"]


ELSEWHERE = """
import signal, sys, threading, traceback
from pathlib import Path
from apothic import RemoteFunction

main = threading.get_native_id()

def interrupt():
    while not waits():
        pass
    signal.raise_signal(signal.SIGINT)

def waits():
    stack = traceback.extract_stack(sys._current_frames()[threading.main_thread().ident])
    is_asleep = Path(f"/proc/self/task/{main}/stat").read_text().rpartition(")")[2].split()[0] == "S"
    return is_asleep and stack[-1].name == "_receive" and "run_guarded" in [frame.name for frame in stack]

threading.Thread(target=interrupt, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
RemoteFunction.from_name("hello-world", "greet").remote()
"""


def test_ctrl_c_that_does_not_wake_the_waiting_thread_is_obeyed_too(server: ScriptedServer) -> None:
    """The kernel may give a signal to another thread, or just before the waiting begins: nothing wakes then."""
    cancelled = threading.Event()

    def cancel(wire: Wire, _: Received) -> None:
        cancelled.set()
        wire.answer(200, {"job_id": JOB, "status": "cancelled"})

    server.scripts.append(lambda wire, _: wire.answer(200, function_json()))
    server.scripts.append(lambda wire, _: accepted(wire))
    server.routes[f"POST /v1/jobs/{JOB}/cancel"] = cancel
    env = {"APOTHIC_BASE_URL": server.url, "APOTHIC_API_KEY": "lk_test", "HOME": "/nonexistent"}
    ended = subprocess.run([sys.executable, "-c", ELSEWHERE], env=env, stderr=subprocess.PIPE, text=True, timeout=20)

    assert cancelled.is_set()
    assert ended.stderr.rstrip().endswith("KeyboardInterrupt")
