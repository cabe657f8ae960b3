"""Loading an app: what stops it, what fails it, what forbids forking it."""

from __future__ import annotations

import pytest

ENDS_WITH_DEPLOY = """
    from apothic._loading import is_loading, stop_if_loading
    print("loading", is_loading())
    def early():
        return is_loading()
    stop_if_loading()
    raise RuntimeError("the load went on")
    def late():
        return 1
"""


@pytest.mark.parametrize("preload", [True, False])
def test_deploy_at_top_level_ends_the_load_and_keeps_the_definitions(load, preload) -> None:
    worker = load(ENDS_WITH_DEPLOY, preload=preload)
    runner = worker.start("early")
    assert runner.result() is False
    assert runner.printed(runner.out) == ("" if preload else "loading True\n")


def test_a_function_below_deploy_is_refused_with_the_reason(load) -> None:
    worker = load(ENDS_WITH_DEPLOY)
    runner = worker.fork("late")
    worker.receive()
    failed = runner.go()
    assert failed["kind"] == "load_failed"
    assert failed["error"]["code"] == "load_failed"
    assert "'late'" in failed["error"]["message"]
    assert worker.exited(runner) == (1, None)


def test_a_module_that_deploys_itself_does_not_end_its_importer(start_zygote) -> None:
    worker = start_zygote("""
        import other
        def both():
            return [other.early(), hasattr(other, "late")]
        def later():
            import third
            return third.value
    """)
    stopping = (
        "from apothic._loading import stop_if_loading\ndef early(): return 1\nvalue = 3\nstop_if_loading()\nlate = 1\n"
    )
    (worker.root / "other.py").write_text(stopping)
    (worker.root / "third.py").write_text(stopping)
    assert worker.load()["preloaded"] is True
    assert worker.start("both").result() == [1, False]
    assert worker.start("later").result() == 3


def test_a_module_of_a_package_is_loaded_with_its_package(start_zygote) -> None:
    worker = start_zygote("")
    (worker.root / "shop").mkdir()
    (worker.root / "shop" / "__init__.py").write_text("tax = 2\n")
    (worker.root / "shop" / "main.py").write_text("from . import tax\ndef price(): return tax\n")
    assert worker.load(module="shop.main")["kind"] == "ready"
    assert worker.start("price").result() == 2


@pytest.mark.parametrize("preload", [True, False])
@pytest.mark.parametrize(
    ("source", "kind", "shown"),
    [
        ("def ok(): pass\nvalue = 1 / 0\n", "builtins.ZeroDivisionError", "value = 1 / 0"),
        ("import no_such_module\n", "builtins.ModuleNotFoundError", "import no_such_module"),
        ("def broken(:\n    pass\n", "builtins.SyntaxError", "def broken(:"),
        ("import sys\nsys.exit(2)\n", "builtins.SystemExit", "sys.exit(2)"),
    ],
)
def test_a_failing_load_names_the_line_of_the_user(start_zygote, source, kind, shown, preload) -> None:
    worker = start_zygote(source)
    answer = worker.load(preload=preload)
    if not preload:
        runner = worker.fork("ok")
        worker.receive()
        answer = runner.go()
        assert worker.exited(runner) == (1, None)
    assert answer["kind"] == "load_failed"
    error = answer["error"]
    assert (error["type"], error["code"]) == (kind, "load_failed")
    assert f"{worker.root}/app.py" in error["traceback"]
    assert shown in error["traceback"]
    assert "importlib" not in error["traceback"]
    assert "_loading" not in error["traceback"]


def test_a_gigantic_load_error_still_reaches_the_worker(start_zygote) -> None:
    worker = start_zygote('raise ValueError("\\u20ac" * 10_000_000)')
    error = worker.load()["error"]
    assert error["type"] == "builtins.ValueError"


def test_an_app_named_like_a_module_of_python_is_refused_with_advice(start_zygote) -> None:
    worker = start_zygote("")
    (worker.root / "json.py").write_text("def f(): pass\n")
    error = worker.load(module="json")["error"]
    assert error["code"] == "load_failed"
    assert "rename" in error["message"]


def test_another_protocol_is_refused(start_zygote) -> None:
    error = start_zygote("").load(protocol=99)["error"]
    assert error["code"] == "load_failed"
    assert "protocol 99" in error["message"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()",
            "importing the app left 1 thread running",
        ),
        (
            "import subprocess\nchild = subprocess.Popen(['/bin/sleep', '1000'])",
            "importing the app left a child process",
        ),
        ("import socket\nserver = socket.socket()", "importing the app left socket:"),
        ("import asyncio\nloop = asyncio.new_event_loop()", "importing the app left "),
        ("log = open('/tmp/apothic-test-log', 'ab')", "importing the app left /tmp/apothic-test-log open"),
    ],
)
def test_what_a_load_leaves_behind_forbids_forking(start_zygote, source, reason, tmp_path) -> None:
    worker = start_zygote(source.replace("/tmp/", f"{tmp_path}/") + "\ndef f(): return 1\n")
    ready = worker.load()
    assert (ready["kind"], ready["preloaded"]) == ("ready", False)
    assert ready["reason"].startswith(reason.replace("/tmp/", f"{tmp_path}/"))
    refused = worker.fork("f")
    assert worker.exited(refused) == (None, None)
    again = start_zygote(source.replace("/tmp/", f"{tmp_path}/") + "\ndef f(): return 1\n")
    assert again.load(preload=False)["reason"] is None
    assert again.start("f").result() == 1


def test_files_opened_for_reading_do_not_forbid_forking(load) -> None:
    assert load("data = open('/etc/passwd')\ndef f(): return len(data.readline()) > 0\n").start("f").result() is True


def test_output_of_the_load_stays_out_of_the_runner(load, tmp_path) -> None:
    runner = load("print('imported')\ndef f(): return 1\n").start("f")
    runner.result()
    assert runner.printed(runner.out) == ""
    assert (tmp_path / "zygote.out").read_text() == "imported\n"


def test_exit_handlers_of_the_app_run_in_the_runner_only(load, tmp_path) -> None:
    worker = load("import atexit\natexit.register(print, 'bye')\ndef f(): return 1\n")
    runner = worker.start("f")
    runner.send(kind="stop")
    assert worker.exited(runner) == (0, None)
    assert runner.printed(runner.out) == "bye\n"
    worker.control.close()
    worker.process.wait(30)
    assert (tmp_path / "zygote.out").read_text() == ""
