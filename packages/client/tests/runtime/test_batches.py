"""Batches: the function is called once for several calls, and each call has an outcome of its own."""

from __future__ import annotations

import json
from typing import Any

import pytest

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
