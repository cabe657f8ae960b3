"""Calls through a real runner."""

from __future__ import annotations

import importlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import cloudpickle
import pytest

from apothic._serialize import decode, encode_arguments
from apothic.wire.values import Value

APP = """
    import asyncio, dataclasses, os, sys

    @dataclasses.dataclass
    class Point:
        x: int

    class Handle:
        def __init__(self, function):
            self.python_function = function
        def __call__(self, *args):
            raise RuntimeError("the handle must not be called")

    def add(a, b=1):
        return a + b

    @Handle
    def handled(name):
        return f"hello, {name}"

    class Group:
        @staticmethod
        def member():
            return "inside"

    def move(point):
        return Point(point.x + 1)

    def tell(*lines):
        for line in lines:
            print(line)
        print("oops", end="", file=sys.stderr)
        os.write(1, b"raw\\n")

    async def wait(value):
        await asyncio.sleep(0)
        return value

    loops = []
    async def loop_count():
        loops.append(asyncio.get_running_loop())
        return len({id(loop) for loop in loops})

    def numbers():
        yield 1

    def others_numbers():
        return numbers()

    def lock():
        import threading
        return threading.Lock()

    def large():
        return "x" * (2 << 20)

    def apply(function):
        return function(20)

    def where():
        import random, threading
        stdin = os.readlink("/proc/self/fd/0")
        return [os.getcwd(), sys.path[0], sys.path[-1], sys.argv, threading.active_count(), random.random(), stdin]
"""


@pytest.fixture
def worker(load):
    return load(APP)


@pytest.fixture
def app_module(worker, monkeypatch):
    """The app's module, imported by the caller under the same name."""
    monkeypatch.syspath_prepend(str(worker.root))
    yield importlib.import_module("app")
    del sys.modules["app"]


def test_hello_carries_the_runner_pid_and_a_json_call_is_answered_in_json(worker) -> None:
    runner = worker.fork("add")
    forked = worker.receive()
    assert runner.go() == {"kind": "ready"}
    assert runner.pid == forked["pid"]
    head, body = runner.call(2, b=3)
    assert head == {"kind": "result", "call": "c", "encoding": "json", "python": None}
    assert body == b"5"


def test_a_handle_gives_its_plain_function_and_dots_walk_into_classes(worker) -> None:
    assert worker.start("handled").result("world") == "hello, world"
    assert worker.start("Group.member").result() == "inside"


def test_classes_of_the_app_go_and_come_back_by_reference(worker, app_module) -> None:
    runner = worker.start("move")
    value = encode_arguments([app_module.Point(1)], {})
    assert (value.encoding, value.python) == ("pickle", None)
    runner.submit_value("c", value.encoding, value.data)
    head, body = runner.receive()
    assert (head["kind"], head["encoding"], head["python"]) == ("result", "pickle", None)
    moved = decode(Value("pickle", body))
    assert type(moved) is app_module.Point
    assert moved.x == 2


def test_functions_sent_by_value_run_in_the_runner(worker) -> None:
    runner = worker.start("apply")
    value = encode_arguments((lambda number: number + 1,), {})
    runner.submit_value("c", value.encoding, value.data, value.python)
    head, body = runner.receive()
    assert (head["kind"], json.loads(body)) == ("result", 21)


def test_a_value_made_by_another_minor_version_is_refused_naming_both(worker) -> None:
    runner = worker.start("apply")
    runner.submit_value("c", "pickle", cloudpickle.dumps([[1], {}]), "3.9")
    error = runner.receive()[0]["error"]
    assert error["code"] == "python_mismatch"
    assert "3.9" in error["message"]
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in error["message"]


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("pickle", b"not a pickle"),
        ("pickle", pickle.dumps(7)),
        ("pickle", pickle.dumps([[], {1: 2}])),
        ("json", b"[[]"),
        ("json", b'{"args":[]}'),
        ("json", b"\xff"),
        ("carrier-pigeon", b""),
        ("pickle", b"cno_such_module\nThing\n."),
    ],
)
def test_unreadable_arguments_fail_the_call_and_the_runner_lives_on(worker, encoding, body) -> None:
    runner = worker.start("add")
    runner.submit_value("c", encoding, body)
    assert runner.receive()[0]["error"]["code"] == "arguments_unreadable"
    assert runner.result(1) == 2


def test_async_functions_run_on_one_loop_that_stays(worker) -> None:
    assert worker.start("wait", is_async=True).result("later") == "later"
    runner = worker.start("loop_count", is_async=True)
    assert [runner.result(), runner.result()] == [1, 1]


def test_all_output_is_in_the_pipes_before_the_result(worker) -> None:
    runner = worker.start("tell")
    runner.result("one", "two")
    assert runner.printed(runner.out) == "one\ntwo\nraw\n"
    assert runner.printed(runner.err) == "oops"


def test_a_generator_that_a_function_got_elsewhere_is_refused_with_its_own_code(worker) -> None:
    error = worker.start("others_numbers").error()
    assert error["code"] == "generator_not_supported"
    assert "list" in error["message"]


def test_results_that_cannot_travel_fail_with_the_reason(worker) -> None:
    error = worker.start("lock").error()
    assert error["code"] == "result_unserializable"
    assert "_thread.lock" in error["message"]
    error = worker.start("large").error()
    assert error["code"] == "transfer_failed"  # nothing uploads it here


def test_a_sync_function_runs_without_threads_in_the_archive_folder_with_its_own_randomness(worker, tree) -> None:
    answers = [worker.start("where").result() for _ in range(2)]
    for cwd, first, last, argv, threads, _, stdin in answers:
        assert (cwd, first, last) == (str(worker.root), str(worker.root), str(tree))
        assert (argv, threads, stdin) == ([""], 1, "/dev/null")
    assert answers[0][5] != answers[1][5]


def test_calls_sent_ahead_are_answered_in_order_and_stop_ends_the_runner_cleanly(worker) -> None:
    runner = worker.start("add")
    for number in range(20):
        runner.submit(str(number), number)
    runner.send(kind="stop")
    answers = [runner.receive() for _ in range(20)]
    assert [head["call"] for head, _ in answers] == [str(number) for number in range(20)]
    assert [int(body) for _, body in answers] == list(range(1, 21))
    assert worker.exited(runner) == (0, None)


def test_a_frame_cut_into_single_bytes_is_understood(worker) -> None:
    runner = worker.start("add")
    ours = runner.sock
    runner.sock = _Slow(ours)  # type: ignore[assignment]
    runner.submit("c", 1)
    runner.sock = ours
    assert runner.receive()[1] == b"2"


class _Slow:
    def __init__(self, sock) -> None:
        self._sock = sock

    def sendall(self, data: bytes) -> None:
        for byte in data:
            self._sock.sendall(bytes([byte]))


def test_closing_the_socket_ends_the_runner(worker) -> None:
    runner = worker.start("add")
    runner.sock.shutdown(1)
    assert worker.exited(runner) == (0, None)


def test_a_large_argument_passes_whole(worker) -> None:
    runner = worker.start("add")
    text = "é" * 150_000
    assert runner.result(text, "!") == text + "!"


def test_the_runner_socket_is_out_of_reach_of_programs_and_low_descriptors(load) -> None:
    runner = load("""
        import os, subprocess
        def close_low():
            inherited = subprocess.run(["/bin/sh", "-c", "ls /proc/self/fd"], stdout=subprocess.PIPE).stdout.split()
            os.closerange(0, 200)
            return [int(name) for name in inherited]
    """).start("close_low")
    assert max(runner.result()) < 10


NAMES_OF_MAIN = """
    import enum, sys
    class Mode(enum.Enum):
        FAST = 1
    class Outer:
        class Inner:
            pass
    def double(number):
        return number * 2
    def check(mode, inner, function, late):
        return [mode is Mode.FAST, inner is Outer.Inner, function is double, type(late).__name__]
    if __name__ == "__main__":
        names = set(globals())
        class Late:
            pass
        import json
        sys.path.append(sys.argv[1])
        from apothic._serialize import encode_arguments
        given = (Mode.FAST, Outer.Inner, double, Late())
        value = encode_arguments(given, {}, main_alias="app", main_names=names)
        early = encode_arguments(given[:3], {}, main_alias="app", main_names=names)
        other = encode_arguments(given[:3], {}, main_alias="another")
        sys.stdout.write(json.dumps([value.data.hex(), value.python, early.python, other.python]))
"""


def test_names_of_the_deploying_script_are_the_apps_own_in_the_runner(load, tree) -> None:
    worker = load(NAMES_OF_MAIN)
    script = [sys.executable, str(worker.root / "app.py"), str(tree)]
    data, python, early, other = json.loads(subprocess.run(script, check=True, capture_output=True).stdout)
    runner = worker.start("check")
    runner.submit_value("c", "pickle", bytes.fromhex(data), python)
    head, body = runner.receive()
    assert head["kind"] == "result", head
    assert json.loads(body) == [True, True, True, "Late"]
    assert python == other == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert early is None


@pytest.mark.parametrize("signal_name", ["SIGUSR1", "SIGTERM"])
def test_signal_handlers_set_by_the_app_work_in_the_runner(load, signal_name) -> None:
    runner = load(f"""
        import os, signal
        seen = []
        signal.signal(signal.{signal_name}, lambda number, frame: seen.append(number))
        def poke():
            os.kill(os.getpid(), signal.{signal_name})
            return len(seen)
    """).start("poke")
    assert runner.result() == 1
    assert Path(f"/proc/{runner.pid}").exists()
