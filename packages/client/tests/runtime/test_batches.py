"""Batches: the function is called once for several calls, and each call has an outcome of its own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from apothic.wire.chunks import pack, unpack

APP = """
    import asyncio, os, sys, threading

    def double(items, factor=2):
        factors = factor if isinstance(factor, list) else [factor] * len(items)
        return [[item * by, len(items)] for item, by in zip(items, factors)]

    async def double_later(items, factor=2):
        await asyncio.sleep(0)
        return double(items, factor)

    def any_names(*columns, **named):
        return [[len(columns), sorted(named)]] * len((columns or list(named.values()))[0])

    def act(whats):
        what = whats[0]
        if what == "raise":
            raise ValueError("the whole batch")
        if what == "exit":
            sys.exit(3)
        if what == "interrupt":
            raise KeyboardInterrupt
        if what == "short":
            return whats[1:]
        if what == "text":
            return "ab"
        if what == "nothing":
            return None
        if what == "mixed":
            return (1, ValueError("just me"), threading.Lock(), [1, 2], KeyError("me", 2), (n for n in whats))
        return whats

    async def act_later(whats):
        return act(whats)

    def job(items):
        from apothic._runtime.context import current_call
        print("printed by", current_call().job)
        return [current_call().id] * len(items)

    def fork(items):
        if os.fork() == 0:
            return "nobody sees this"
        os.wait()
        return items
"""


@pytest.fixture
def worker(load: Any) -> Any:
    return load(APP)


def batch(runner: Any, *calls: tuple[list[Any], dict[str, Any]] | bytes) -> list[Any]:
    """Send calls as one batch and return the value or the error of each."""
    for following, call in zip(reversed(range(len(calls))), calls, strict=True):
        body = call if isinstance(call, bytes) else json.dumps(call).encode()
        name = f"c{len(calls) - following}"
        head = {"kind": "call", "call": name, "job": f"job-{name}", "attempt": 1, "encoding": "json", "python": None}
        runner.send(body, **head, batch=following)
    answers = [runner.receive() for _ in calls]
    assert [head["call"] for head, _ in answers] == [f"c{number}" for number in range(1, len(calls) + 1)]
    return [json.loads(body) if head["kind"] == "result" else head["error"] for head, body in answers]


def of(*items: Any) -> list[tuple[list[Any], dict[str, Any]]]:
    return [([item], {}) for item in items]


@pytest.mark.parametrize("name", ["double", "double_later"])
def test_the_function_is_called_once_with_lists_and_calls_alone_as_ever(worker, name):
    runner = worker.start(name, is_async=name != "double")

    assert batch(runner, *of(1, "a", 3)) == [[2, 3], ["aa", 3], [6, 3]]
    assert batch(runner, *of(5)) == [[10, 1]]


@pytest.mark.parametrize("name", ["double", "double_later"])
def test_calls_that_pass_other_arguments_are_executed_after_the_first_ones(worker, name):
    runner = worker.start(name, is_async=name != "double")
    calls = [([1, 10], {}), ([2], {}), ([3], {"factor": 10}), ([], {"items": 4, "factor": 10}), ([], {"items": 5})]

    assert batch(runner, *calls) == [[10, 3], [4, 2], [30, 3], [40, 3], [10, 2]]


def test_arguments_that_the_function_cannot_take_fail_their_own_call(worker):
    runner = worker.start("double")
    found = batch(runner, ([1], {}), ([2], {"wrong": 1}), ([], {}), ([], {"items": 3}), b"no json", ([1, 2, 3], {}))

    assert [one["type"] if isinstance(one, dict) else one for one in found] == [
        [2, 2],
        "builtins.TypeError",
        "builtins.TypeError",
        [6, 2],
        "json.decoder.JSONDecodeError",
        "builtins.TypeError",
    ]
    assert (found[4]["code"], found[2]["message"]) == ("arguments_unreadable", "missing a required argument: 'items'")


def test_a_call_without_arguments_is_refused_as_nothing_says_how_many_there_are(worker):
    found = batch(worker.start("any_names"), ([], {}), ([], {"a": 1, "b": 2}), ([1], {"c": 1}), ([], {"b": 2, "a": 1}))

    assert (found[0]["type"], "needs an argument" in found[0]["message"]) == ("builtins.TypeError", True)
    assert found[1:] == [[0, ["a", "b"]], [1, ["c"]], [0, ["a", "b"]]]


@pytest.mark.parametrize("name", ["act", "act_later"])
@pytest.mark.parametrize(
    ("what", "kind", "code"),
    [
        ("raise", "builtins.ValueError", "exception"),
        ("exit", "builtins.SystemExit", "exception"),
        ("interrupt", "builtins.KeyboardInterrupt", "exception"),
        ("short", "builtins.ValueError", "batch_result_mismatch"),
        ("text", "builtins.ValueError", "batch_result_mismatch"),
        ("nothing", "builtins.ValueError", "batch_result_mismatch"),
    ],
)
def test_what_goes_wrong_with_the_whole_batch_is_the_outcome_of_each_call(worker, name, what, kind, code):
    runner = worker.start(name, is_async=name != "act")
    found = batch(runner, *of(what, 1))

    assert [(one["type"], one["code"]) for one in found] == [(kind, code)] * 2
    assert batch(runner, *of(1, 2)) == [1, 2]


@pytest.mark.parametrize("name", ["act", "act_later"])
def test_an_exception_in_the_list_and_a_result_that_cannot_travel_fail_one_call(worker, name):
    found = batch(worker.start(name, is_async=name != "act"), *of("mixed", 2, 3, 4, 5, 6))

    assert found[0] == 1
    assert [(one["type"], one["code"]) for one in (found[1], found[2], found[4], found[5])] == [
        ("builtins.ValueError", "exception"),
        ("apothic._serialize.NotSerializable", "result_unserializable"),
        ("builtins.KeyError", "exception"),
        ("builtins.TypeError", "generator_not_supported"),
    ]


def test_to_the_world_a_batch_is_its_first_call_and_what_it_printed_comes_before_the_answers(worker):
    runner = worker.start("job")

    assert batch(runner, *of(1, 2, 3)) == ["c1", "c1", "c1"]
    assert runner.printed(runner.out) == "printed by job-c1\n"


def test_a_forked_process_that_comes_back_answers_nothing(worker):
    assert batch(worker.start("fork"), *of(1, 2)) == [1, 2]


def chunk(runner: Any, size: int, *items: Any) -> list[Any]:
    """Send items of a map as one call, executed so many at once; return what became of each."""
    order = {"group": "g", "first": 7, "count": len(items), "spread": False}
    head = {"call": "c", "job": f"g.7-{len(items)}", "attempt": 1, "encoding": "items", "python": None}
    data = pack(b"j" + json.dumps(item).encode() for item in items)
    runner.send(data, kind="call", items=order, together=size, **head)
    found: list[Any] = []
    while True:
        head, body = runner.receive()
        if head["kind"] == "done":
            found += [json.loads(entry[1:]) if entry[:1] in b"je" else entry for entry in unpack(body)]
            if head["is_last"]:
                return found
        else:
            found.append((head["item"], head["text"]))


@pytest.mark.parametrize("name", ["double", "double_later"])
def test_items_of_a_map_are_executed_in_batches_and_calls_after_them_as_ever(worker, name):
    runner = worker.start(name, is_async=name.endswith("later"))

    assert chunk(runner, 3, *range(8)) == [[number * 2, 3 if number < 6 else 2] for number in range(8)]
    assert batch(runner, *of(1, 2)) == [[2, 2], [4, 2]]
    assert chunk(runner, 3, 1, 2) == [[2, 2], [4, 2]]


@pytest.mark.parametrize("name", ["act", "act_later"])
def test_a_batch_of_items_that_fails_spares_the_next_one(worker, name):
    found = chunk(worker.start(name, is_async=name.endswith("later")), 2, "raise", 1, 2, 3, "short", 4, "nothing")

    assert [one if isinstance(one, int) else one["code"] for one in found] == [
        "exception", "exception", 2, 3, *["batch_result_mismatch"] * 3,
    ]  # fmt: skip


def test_what_a_batch_of_items_prints_is_with_its_first_one(worker):
    found = chunk(worker.start("job"), 2, "a", "b", "c")

    assert sorted(map(str, found)) == sorted(
        map(str, ["c.0", "c.0", "c.2", (0, "printed by g.7\n"), (2, "printed by g.9\n")])
    )
