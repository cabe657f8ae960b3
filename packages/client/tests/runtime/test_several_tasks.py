"""Several calls at once in one runner: own output, own cancellation."""

from __future__ import annotations

import json

import pytest

from apothic_server.testing.guarantees import guarantee

APP = """
    import asyncio, contextvars, os, sys, threading, time

    barrier = threading.Barrier(2)

    def meet(name):
        print("hello from", name)
        barrier.wait(20)
        print("no newline", end="", file=sys.stderr)
        return name

    async_barrier = []
    async def meet_async(name):
        print("hello from", name)
        async_barrier.append(name)
        while len(async_barrier) < 2:
            await asyncio.sleep(0)
        print("no newline", end="", file=sys.stderr)
        return name

    gate = threading.Event()
    def spin(action):
        if action == "open":
            gate.set()
            return "opened"
        print("spinning")
        while not gate.is_set():
            pass
        return "done"

    async_gate = asyncio.Event()
    async def hang(action):
        if action == "open":
            async_gate.set()
            return "opened"
        print("hanging")
        await async_gate.wait()
        return "done"

    def swallow():
        try:
            print("spinning")
            while True:
                pass
        except BaseException:
            return "swallowed"

    def raw():
        os.write(1, b"raw\\n")
        threading.Thread(target=print, args=("from a thread",)).start()
        return 1

    def log():
        import logging
        logging.getLogger().warning("attention")

    import logging
    logging.basicConfig(format="%(message)s")
"""


@pytest.fixture
def worker(load):
    return load(APP)


def collect(runner, count: int):
    """Frames until `count` calls are answered: logs by call and stream, answers by call."""
    logs: dict[tuple[str, str], str] = {}
    answers = {}
    while len(answers) < count:
        head, body = runner.receive()
        if head["kind"] == "log":
            assert head["call"] not in answers
            key = (head["call"], head["stream"])
            logs[key] = logs.get(key, "") + head["text"]
        else:
            answers[head["call"]] = (head, json.loads(body) if body else None)
    return logs, answers


@pytest.mark.parametrize(("function", "is_async"), [("meet", False), ("meet_async", True)])
def test_two_calls_at_once_keep_their_output_apart(worker, function, is_async) -> None:
    runner = worker.start(function, tasks=2, is_async=is_async)
    runner.submit("a", "ann")
    runner.submit("b", "bob")
    logs, answers = collect(runner, 2)
    assert logs == {
        ("a", "stdout"): "hello from ann\n",
        ("b", "stdout"): "hello from bob\n",
        ("a", "stderr"): "no newline",
        ("b", "stderr"): "no newline",
    }
    assert {call: value for call, (_, value) in answers.items()} == {"a": "ann", "b": "bob"}
    assert runner.printed(runner.out) == ""


@guarantee("G4.2", "cancel_spares_neighbours")
@pytest.mark.parametrize(("function", "is_async"), [("spin", False), ("hang", True)])
def test_cancelling_one_call_spares_its_neighbour(worker, function, is_async) -> None:
    runner = worker.start(function, tasks=3, is_async=is_async)
    runner.submit("victim", "wait")
    assert runner.receive()[0]["text"] in ("spinning\n", "hanging\n")
    runner.submit("neighbour", "wait")
    assert runner.receive()[0]["text"] in ("spinning\n", "hanging\n")
    runner.send(kind="cancel", call="victim")
    head, _ = runner.receive()
    assert (head["kind"], head["call"], head["error"]["code"]) == ("error", "victim", "cancelled")
    runner.send(kind="cancel", call="victim")
    runner.send(kind="cancel", call="never heard of")
    runner.submit("other", "open")
    _, answers = collect(runner, 2)
    assert (answers["other"][1], answers["neighbour"][1]) == ("opened", "done")
    runner.send(kind="stop")
    assert worker.exited(runner) == (0, None)


@pytest.mark.parametrize(("function", "is_async"), [("spin", False), ("hang", True)])
def test_a_call_cancelled_as_it_arrives_is_still_answered(worker, function, is_async) -> None:
    runner = worker.start(function, tasks=2, is_async=is_async)
    together = _Together(runner.sock)
    runner.sock = together
    runner.submit("c", "wait")
    runner.send(kind="cancel", call="c")
    runner.sock = together.flush()
    _, answers = collect(runner, 1)
    assert answers["c"][0]["error"]["code"] == "cancelled"


class _Together:
    def __init__(self, sock) -> None:
        self._sock = sock
        self._data = b""

    def sendall(self, data: bytes) -> None:
        self._data += data

    def flush(self):
        self._sock.sendall(self._data)
        return self._sock


def test_a_call_may_swallow_its_cancellation(worker) -> None:
    runner = worker.start("swallow", tasks=2)
    runner.submit("c")
    assert runner.receive()[0]["text"] == "spinning\n"
    runner.send(kind="cancel", call="c")
    _, answers = collect(runner, 1)
    assert answers["c"][1] == "swallowed"


def test_stop_lets_running_calls_finish(worker) -> None:
    runner = worker.start("meet", tasks=2)
    runner.submit("a", "ann")
    assert runner.receive()[0]["text"] == "hello from ann\n"
    runner.submit("b", "bob")
    runner.send(kind="stop")
    _, answers = collect(runner, 2)
    assert set(answers) == {"a", "b"}
    assert worker.exited(runner) == (0, None)


def test_text_outside_python_streams_and_of_foreign_threads_goes_to_the_pipe(worker) -> None:
    runner = worker.start("raw", tasks=2)
    runner.submit("c")
    collect(runner, 1)
    runner.send(kind="stop")
    assert worker.exited(runner) == (0, None)
    assert sorted(runner.printed(runner.out).splitlines()) == ["from a thread", "raw"]


def test_logging_configured_while_loading_belongs_to_the_call(worker) -> None:
    runner = worker.start("log", tasks=2)
    runner.submit("c")
    logs, _ = collect(runner, 1)
    assert logs == {("c", "stderr"): "attention\n"}
