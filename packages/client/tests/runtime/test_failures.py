"""What fails in user code comes back as bounded data; the runner survives what it can."""

from __future__ import annotations

import json

import pytest

from apothic.wire.limits import ERROR_CAUSES_MAX, ERROR_MESSAGE_MAX, ERROR_TEXT_MAX

APP = """
    import os, signal, sys

    class Rude(Exception):
        def __str__(self):
            raise SystemExit("no")

    class Wordy(Exception):
        def __str__(self):
            return "\\u00e9\\x00" * 3_000_000

    def chain():
        try:
            try:
                {}["missing"]
            except KeyError as error:
                raise ValueError("bad input") from error
        except ValueError:
            raise RuntimeError("gave up")

    def cycle():
        first, second = ValueError("first"), ValueError("second")
        first.__cause__, second.__cause__ = second, first
        raise first

    def long_chain():
        error = ValueError(0)
        for number in range(1, 100):
            following = ValueError(number)
            following.__cause__ = error
            error = following
        raise error

    def suppressed():
        try:
            1 / 0
        except ZeroDivisionError:
            raise ValueError("alone") from None

    def rude():
        raise Rude

    def wordy():
        raise Wordy from Wordy()

    def deep(n=0):
        return deep(n + 1)

    def leave(code):
        sys.exit(code)

    def interrupt():
        raise KeyboardInterrupt

    def hard_exit():
        os._exit(3)

    def die():
        os.kill(os.getpid(), signal.SIGSEGV)

    def close_all():
        os.closerange(0, 10_000)
        return 1

    def fork_and_return():
        pid = os.fork()
        if pid == 0:
            return "child"
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def fork_and_raise():
        pid = os.fork()
        if pid == 0:
            raise ValueError("in the child")
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def broken_streams():
        os.dup2(0, 1)
        os.close(1)
        sys.stderr = None
        return "fine"

    def need_module():
        import numpy_like_thing

    def open_file(name):
        return open(name)

    def call_remotely():
        return own.remote()

    def look_up():
        from apothic import RemoteFunction
        return RemoteFunction.from_name("a", "b")

    from apothic import App
    app = App("failing")

    @app.function()
    def own():
        return 1

    async def task_exits():
        import asyncio
        async def leave():
            sys.exit(4)
        try:
            await asyncio.create_task(leave())
        except SystemExit as error:
            return ["seen", error.code]
"""


@pytest.fixture
def worker(load):
    return load(APP)


def test_causes_come_nearest_first_with_user_frames_only(worker) -> None:
    error = worker.start("chain").error()
    assert (error["type"], error["message"], error["code"]) == ("builtins.RuntimeError", "gave up", "exception")
    assert [cause["type"] for cause in error["causes"]] == ["builtins.ValueError", "builtins.KeyError"]
    assert error["causes"][0]["message"] == "bad input"
    assert error["traceback"].startswith("Traceback (most recent call last):\n  File ")
    assert error["traceback"].endswith("RuntimeError: gave up\n")
    assert 'raise RuntimeError("gave up")' in error["traceback"]
    assert f'{worker.root}/app.py", line' in error["traceback"]
    assert "_runtime" not in json.dumps(error)


def test_what_is_missing_in_a_runner_is_explained(worker) -> None:
    missing = worker.start("need_module").error()["traceback"]
    assert missing.endswith("of the function's image provides numpy_like_thing.\n")
    beside = worker.start("open_file")
    assert beside.error("data.csv")["traceback"].endswith("only Python modules are uploaded; images add other files.\n")
    assert beside.error("/nowhere/data.csv")["traceback"].endswith("No such file or directory: '/nowhere/data.csv'\n")


@pytest.mark.parametrize("name", ["call_remotely", "look_up"])
def test_a_call_from_inside_a_function_finds_no_cloud_where_the_worker_gives_no_way_to_one(load, name) -> None:
    error = load(APP, has_way=False).start(name).error()
    assert error["type"] == "apothic.errors.CloudNotRunning"


def test_wrong_arguments_are_an_ordinary_error(worker) -> None:
    error = worker.start("chain").error(1)
    assert error["type"] == "builtins.TypeError"
    assert "0 positional arguments" in error["message"]
    assert "_runtime" not in error["traceback"]


def test_cycles_of_causes_end(worker) -> None:
    assert [cause["message"] for cause in worker.start("cycle").error()["causes"]] == ["second"]


def test_long_chains_are_cut(worker) -> None:
    causes = worker.start("long_chain").error()["causes"]
    assert [cause["message"] for cause in causes] == [str(98 - number) for number in range(ERROR_CAUSES_MAX)]


def test_a_suppressed_context_is_not_a_cause(worker) -> None:
    assert worker.start("suppressed").error()["causes"] == []


def test_an_exception_that_cannot_be_shown_is_still_reported(worker) -> None:
    runner = worker.start("rude")
    error = runner.error()
    assert error["type"] == "app.Rude"
    assert "__str__" in error["message"]
    assert runner.error()["type"] == "app.Rude"


def test_gigantic_messages_are_cut_to_their_limits(worker) -> None:
    error = worker.start("wordy").error()
    assert error["type"] == "app.Wordy"
    assert 0 < len(error["message"].encode()) <= ERROR_MESSAGE_MAX
    assert 0 < len(error["traceback"].encode()) <= ERROR_TEXT_MAX
    assert "\0" not in error["message"] + error["traceback"]
    assert "bytes cut" in error["traceback"]
    assert len(json.dumps(error)) < 128 * 1024


def test_endless_recursion_is_an_exception(worker) -> None:
    runner = worker.start("deep")
    assert runner.error()["type"] == "builtins.RecursionError"
    assert runner.error()["type"] == "builtins.RecursionError"


@pytest.mark.parametrize(("code", "message"), [(3, "sys.exit(3) was called"), ("sorry", "sorry")])
def test_sys_exit_fails_the_call_and_the_runner_lives_on(worker, code, message) -> None:
    runner = worker.start("leave")
    for _ in range(2):
        error = runner.error(code)
        assert (error["type"], error["code"], error["message"]) == ("builtins.SystemExit", "exception", message)


def test_keyboard_interrupt_fails_the_call_and_the_runner_lives_on(worker) -> None:
    runner = worker.start("interrupt")
    assert runner.error()["type"] == "builtins.KeyboardInterrupt"
    assert runner.error()["type"] == "builtins.KeyboardInterrupt"


def test_os_exit_is_reported_with_its_code(worker) -> None:
    runner = worker.start("hard_exit")
    runner.submit("c")
    assert runner.is_closed()
    assert worker.exited(runner) == (3, None)


def test_death_by_signal_is_reported_with_its_number(worker) -> None:
    runner = worker.start("die")
    runner.submit("c")
    assert worker.exited(runner) == (None, 11)


def test_closing_every_descriptor_ends_the_runner_and_spares_the_zygote(worker) -> None:
    runner = worker.start("close_all")
    runner.submit("c")
    assert runner.is_closed()
    code, _ = worker.exited(runner)
    assert code != 0
    assert worker.start("fork_and_return").result() == 0


def test_a_forked_child_that_returns_does_not_answer_the_call(worker) -> None:
    assert worker.start("fork_and_return").result() == 0
    runner = worker.start("fork_and_raise")
    assert runner.result() == 1
    assert "ValueError: in the child" in runner.printed(runner.err)


def test_broken_streams_do_not_break_the_reply(worker) -> None:
    runner = worker.start("broken_streams")
    assert runner.result() == "fine"
    assert runner.result() == "fine"


def test_sys_exit_in_a_task_of_the_call_reaches_only_the_call(worker) -> None:
    assert worker.start("task_exits", is_async=True).result() == ["seen", 4]
    assert worker.start("task_exits", is_async=True, tasks=2).result() == ["seen", 4]


def test_exception_groups_show_their_members(load) -> None:
    error = (
        load("""
        def many():
            raise ExceptionGroup("several", [ValueError("one"), KeyError("two")])
    """)
        .start("many")
        .error()
    )
    assert error["type"] == "builtins.ExceptionGroup"
    assert "ValueError: one" in error["traceback"]
    assert "KeyError: 'two'" in error["traceback"]
