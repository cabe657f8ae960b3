"""Items of maps: several calls in one, each with an outcome of its own."""

from __future__ import annotations

import json
import pickle
import socket

import cloudpickle
import pytest

from apothic._runtime.channel import Channel
from apothic._runtime.chunk import Chunk
from apothic._runtime.invoke import Call, Outcome
from apothic._serialize import PYTHON_MINOR
from apothic.wire.chunks import pack, unpack
from apothic.wire.frames import FrameReader
from apothic.wire.limits import CHUNK_OUTCOMES_MAX
from apothic.wire.maps import ChunkOrder
from apothic.wire.values import Value

APP = """
    import asyncio, contextvars, os, sys, threading, time

    seen = contextvars.ContextVar("seen", default=None)

    def double(x):
        return x * 2

    async def double_later(x):
        await asyncio.sleep(0)
        return x * 2

    def job(_):
        from apothic._runtime.context import current_call
        before = seen.get()
        seen.set(True)
        return [current_call().job, current_call().attempt, before]

    async def job_later(x):
        return job(x)

    def add(a, b=10):
        return a + b

    def act(what):
        if what == "raise":
            raise ValueError("bad item")
        if what == "exit":
            sys.exit(3)
        if what == "interrupt":
            raise KeyboardInterrupt
        if what == "lock":
            return threading.Lock()
        if what == "tuple":
            return (1, 2)
        if what == "class":
            return type("Local", (), {})()
        if what == "generator":
            return (n for n in range(3))
        return what

    async def act_later(what):
        return act(what)

    def make(size):
        return "x" * size

    async def make_later(size):
        return make(size)

    def talk(x):
        print("item", x)
        print("no newline", x, end="")
        if x == 1:
            os.write(1, b"raw")
        return x

    async def talk_later(x):
        talk(x)

    def block(x):
        if x == 1:
            print("blocked", flush=True)
            try:
                time.sleep(60)
            except BaseException:
                return "swallowed"
        return x

    async def block_later(x):
        if x == 1:
            print("blocked", flush=True)
            await asyncio.sleep(60)
        return x

    def spin(x):
        if x == 1:
            print("blocked", flush=True)
            while True:
                pass
        return x

    def leave(x):
        if x == 2:
            os._exit(7)
        time.sleep(0.002)
        return x

    def fork(x):
        if os.fork() == 0:
            return "child"
        os.wait()
        return x

    def wait(x):
        print("begun", x, flush=True)
        while not os.path.exists(x):
            time.sleep(0.001)
        time.sleep(0.003)

    async def wait_later(x):
        print("begun", x, flush=True)
        while not os.path.exists(x):
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.003)

    def items(n):
        yield from range(n)
"""

MODES = [("", 1, False), ("_later", 1, True), ("", 2, False), ("_later", 2, True)]
IDS = ["serial", "serial-async", "threads", "tasks"]


@pytest.fixture
def worker(load):
    return load(APP)


@pytest.fixture(params=MODES, ids=IDS)
def start(worker, request):
    """Start a runner in each of the ways in which calls are executed."""
    suffix, tasks, is_async = request.param

    def started(name):
        return worker.start(name + suffix, tasks=tasks, is_async=is_async)

    return started


def send(runner, entries, *, first=0, spread=False, python=None, call="c"):
    """Send the items as one call."""
    order = {"group": "g", "first": first, "count": len(entries), "spread": spread}
    head = {"call": call, "job": f"g.{first}-{len(entries)}", "attempt": 3, "encoding": "items", "python": python}
    runner.send(pack(entries), kind="call", items=order, **head)


def values(*items):
    return [b"j" + json.dumps(item).encode() for item in items]


def collect(runner):
    """Return the entries of all batches of a call, what it printed by item, and the heads of the batches."""
    entries, texts, heads = [], {}, []
    while not heads or not heads[-1]["is_last"]:
        head, body = runner.receive()
        if head["kind"] == "log":
            key = (head["item"], head["stream"])
            texts[key] = texts.get(key, "") + head["text"]
            continue
        assert head["kind"] == "done", head
        assert head["call"] == "c"
        found = unpack(body)
        assert len(found) == head["count"]
        entries += found
        heads.append(head)
    return entries, texts, heads


def read(entry):
    """Return what an entry says: the value, or the error as a dictionary."""
    return pickle.loads(entry[1:]) if entry[:1] == b"p" else json.loads(entry[1:])


def test_each_item_has_its_outcome_in_order_and_the_runner_goes_on(start):
    runner = start("double")

    for _ in range(2):
        send(runner, values(*range(500)))
        entries, texts, heads = collect(runner)

        assert entries == values(*range(0, 1000, 2))
        assert texts == {}
        assert all(head["count"] for head in heads[:-1])


def test_a_chunk_of_quick_items_takes_few_frames(worker):
    runner = worker.start("double")
    send(runner, values(*range(500)))

    assert len(collect(runner)[2]) < 250


def test_each_item_has_its_own_job_and_context(start):
    runner = start("job")
    send(runner, values(0, 0, 0), first=41)

    assert [read(entry) for entry in collect(runner)[0]] == [[f"g.{n}", 3, None] for n in (41, 42, 43)]


def test_items_are_the_only_argument_or_all_of_them(worker):
    runner = worker.start("add")
    send(runner, values(1, 2))
    alone = collect(runner)[0]
    send(runner, [*values([1], [1, 2], "12"), b"p" + pickle.dumps((3, 4))], spread=True)
    spread = collect(runner)[0]

    assert alone == values(11, 12)
    assert [spread[n] for n in (0, 1, 3)] == values(11, 3, 7)
    assert read(spread[2])["code"] == "arguments_unreadable"


def test_one_item_is_a_call_like_any_other(start):
    runner = start("act")
    send(runner, values("x"))
    value = runner.receive()
    send(runner, values("raise"))
    error = runner.receive()[0]
    send(runner, [b"x1"])
    unreadable = runner.receive()[0]

    assert value == ({"kind": "result", "call": "c", "encoding": "json", "python": None}, b'"x"')
    assert error["error"]["message"] == "bad item"
    assert unreadable["error"]["code"] == "arguments_unreadable"


def test_one_item_of_a_generator_yields(worker):
    runner = worker.start("items")
    send(runner, values(3))

    head, body = runner.receive()
    while head["kind"] != "result":
        assert (head["kind"], head["encoding"]) == ("items", "json")
        head, body = runner.receive()
    assert body == b"null"


def test_an_item_that_fails_spares_the_others(start):
    runner = start("act")
    order = ["a", "raise", "exit", "interrupt", "lock", "tuple", "generator", "z"]
    send(runner, values(*order))
    entries = collect(runner)[0]

    assert [entry[:1] for entry in entries] == [b"j", b"e", b"e", b"e", b"e", b"p", b"e", b"j"]
    assert [read(entry).get("code") for entry in entries if entry[:1] == b"e"] == [
        "exception",
        "exception",
        "exception",
        "result_unserializable",
        "generator_not_supported",
    ]
    assert "bad item" in read(entries[1])["traceback"]
    assert read(entries[5]) == (1, 2)


def test_arguments_that_cannot_be_read_fail_their_item_only(start):
    runner = start("act")
    send(runner, [b"j1", b"j{", b"p\x80", b"", b"e{}", b"p" + pickle.dumps((2,))])
    entries = collect(runner)[0]

    assert [entry[:1] for entry in entries] == [b"j", b"e", b"e", b"e", b"e", b"p"]
    assert {read(entry)["code"] for entry in entries[1:5]} == {"arguments_unreadable"}


def test_values_that_hold_code_say_which_python_made_them(worker):
    runner = worker.start("act")
    local = cloudpickle.dumps(lambda: 1, protocol=5)
    send(runner, [b"j1", b"p" + local], python="3.99")
    other = collect(runner)[0]
    send(runner, [b"j1", b"p" + local], python=PYTHON_MINOR)
    same, _, heads = collect(runner)
    send(runner, values("class", 1))

    assert other[0] == b"j1"
    assert read(other[1])["code"] == "python_mismatch"
    assert same[1][:1] == b"p"
    assert heads[-1]["python"] == PYTHON_MINOR
    assert collect(runner)[2][-1]["python"] == PYTHON_MINOR


def test_text_says_which_item_printed_it(start):
    runner = start("talk")
    send(runner, values(0, 1, 2))
    _, texts, _ = collect(runner)

    assert texts == {(n, "stdout"): f"item {n}\nno newline {n}" for n in range(3)}
    assert runner.printed(runner.out) == "raw"


def test_a_chunk_whose_outcomes_grow_large_leaves_the_rest(start):
    runner = start("make")
    send(runner, values(*[60_000] * 40))
    entries, _, heads = collect(runner)

    size = len(pack(entries))
    assert size - len(entries[-1]) < CHUNK_OUTCOMES_MAX <= size
    assert all(head["count"] <= 2 for head in heads)


@pytest.mark.parametrize(
    ("name", "tasks", "is_async"),
    [("wait", 1, False), ("wait_later", 1, True), ("wait", 2, False), ("wait_later", 2, True)],
    ids=IDS,
)
def test_what_is_taken_back_was_not_begun(worker, tmp_path, name, tasks, is_async):
    """The item under way ends first; others are not begun once the runner heard it."""
    runner = worker.start(name, tasks=tasks, is_async=is_async)
    gates = [tmp_path / f"gate{n}" for n in range(3)]
    gates[0].touch()
    send(runner, values(*map(str, gates)))
    frames = [runner.receive() for _ in range(2)]
    while frames[-1][0].get("item") != 1:
        frames.append(runner.receive())
    runner.send(kind="take_back", call="other")
    runner.send(kind="take_back", call="c")
    gates[1].touch()
    entries, texts, _ = collect(runner)

    assert texts == {}
    assert sum(head["count"] for head, _ in frames if head["kind"] == "done") + len(entries) == 2
    send(runner, values(str(gates[0])) * 2)
    assert len(collect(runner)[0]) == 2


@pytest.mark.parametrize("name", ["block", "block_later"])
def test_term_ends_the_runner_after_the_items_before(worker, name):
    runner = worker.start(name, is_async=name == "block_later")
    send(runner, values(0, 1, 2))
    head, _ = runner.receive()
    before = 0
    while head["kind"] == "done":
        before += head["count"]
        head, _ = runner.receive()
    worker.kill(runner, 15)
    entries = collect(runner)[0]

    assert worker.exited(runner) == (None, 15)
    assert before + len(entries) == 1


@pytest.mark.parametrize(("name", "is_async"), [("spin", False), ("block_later", True)])
def test_cancel_ends_one_chunk_of_several(worker, name, is_async):
    runner = worker.start(name, tasks=2, is_async=is_async)
    send(runner, values(0, 1, 2))
    head, _ = runner.receive()
    before = 0
    while head["kind"] == "done":
        before += head["count"]
        head, _ = runner.receive()
    runner.send(kind="cancel", call="c")
    entries = collect(runner)[0]
    send(runner, values(5, 6))

    assert before + len(entries) == 1
    assert collect(runner)[0] == values(5, 6)


def test_a_result_that_no_entry_can_hold_fails_its_item():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        call = Call("1", "g.0-2", 1, Value("items", pack(values(1, 2))), "item", ChunkOrder("g", 0, 2))
        chunk = Chunk(Channel(theirs), call)
        for _, value in zip(chunk.calls(), [Value("large", b"0" * 64 + b" 7"), Value("json", b"2")], strict=True):
            chunk.add(Outcome(value=value))
        chunk.close()
        frames = FrameReader(size_max=1 << 20).feed(ours.recv(65536))
    entries = [entry for _, body in frames for entry in unpack(body)]

    assert read(entries[0])["code"] == "result_too_large"
    assert entries[1:] == values(2)


def test_a_death_leaves_what_was_done_before(worker):
    runner = worker.start("leave")
    send(runner, values(0, 1, 2, 3))
    found = [entry for _ in range(2) for entry in unpack(runner.receive()[1])]

    assert worker.exited(runner) == (7, None)
    assert found == values(0, 1)
    assert runner.is_closed()


def test_a_child_that_comes_back_adds_no_outcome(worker):
    runner = worker.start("fork")
    send(runner, values(0, 1))

    assert collect(runner)[0] == values(0, 1)


def test_results_of_every_python_read_arguments_of_chunks(start_zygote, pythons):
    """All versions that user code may run under."""
    for python in pythons.values():
        worker = start_zygote(APP, python=python)
        assert worker.load()["kind"] == "ready"
        runner = worker.start("add")
        send(runner, [*values([1]), b"p" + pickle.dumps((3, 4))], spread=True)

        assert collect(runner)[0] == values(11, 7)
