"""Exit codes, errors as people and programs see them, and what a command must not do."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

COMMANDS = {
    "version": ("version",),
    "app list": ("app", "list"),
    "deployment list": ("deployment", "list"),
    "deployment stop": ("deployment", "stop", "DEPLOYMENT", "--yes"),
    "deployment delete": ("deployment", "delete", "DEPLOYMENT", "--yes"),
    "deployment watch": ("deployment", "watch", "DEPLOYMENT"),
    "deployment inspect": ("deployment", "inspect", "DEPLOYMENT"),
    "job list": ("job", "list"),
    "job retry": ("job", "retry", "JOB"),
    "job retry --watch": ("job", "retry", "JOB", "--watch"),
    "job status": ("job", "status", "JOB"),
    "job cancel": ("job", "cancel", "JOB"),
    "job watch": ("job", "watch", "JOB"),
    "logs": ("logs", "JOB"),
    "logs --follow": ("logs", "JOB", "--follow"),
    "schedule list": ("schedule", "list"),
    "schedule status": ("schedule", "status", "SCHEDULE"),
    "schedule pause": ("schedule", "pause", "SCHEDULE"),
    "schedule resume": ("schedule", "resume", "SCHEDULE"),
    "schedule run": ("schedule", "run", "SCHEDULE"),
    "status": ("status",),
    "api": ("api", "GET", "/v1/apps"),
    "run": ("run", "greet", "--app-name", "hello-world"),
    "run --watch": ("run", "greet", "--app-name", "hello-world", "--watch"),
    "run --detach": ("run", "greet", "--app-name", "hello-world", "--detach"),
}


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "apothic", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def filled(shapes, words: tuple[str, ...]) -> list[str]:
    """Put real ids where a command names them in capitals."""
    return [getattr(shapes, word) if word.isupper() and word.isalpha() and word != "GET" else word for word in words]


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("place", ["before", "after"])
def test_every_command_prints_one_json_document(connected, run, shapes, name, place):
    arguments = filled(shapes, COMMANDS[name])

    found = run("--json", *arguments) if place == "before" else run(*arguments, "--json")

    assert found.code == 0
    assert isinstance(found.json, dict)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "version"])
def test_every_command_says_errors_as_json_and_prints_no_data(connected, run, shapes, name):
    connected.script = {}
    arguments = filled(shapes, COMMANDS[name])

    found = run(*arguments, "--json")

    assert (found.code, found.out) == (5, "")
    assert found.error["code"] == "not_found"
    assert found.error["request_id"] == "req-404"
    assert found.error["exit_code"] == 5


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (401, "unauthenticated", 3),
        (403, "forbidden", 4),
        (404, "not_found", 5),
        (409, "conflict", 6),
        (429, "too_many_pending", 7),
        (413, "too_large", 8),
        (415, "unsupported_media_type", 8),
        (422, "invalid", 8),
        (503, "unavailable", 9),
        (500, "internal", 1),
    ],
)
def test_answers_of_the_cloud_have_documented_exit_codes(connected, run, shapes, status, code, exit_code):
    connected.script["GET", "/v1/thing"] = shapes.refused(status, code, "Because.")

    found = run("api", "GET", "/v1/thing")

    assert (found.code, found.out) == (exit_code, "")
    assert found.err.startswith("Error: Because.\n")
    assert f"Request id: req-{status}" in found.err


def test_a_validation_list_stays_a_list_for_programs_and_is_a_sentence_for_people(connected, run, shapes):
    problems = [{"loc": ["body", "name"], "msg": "must be text", "type": "type"}]
    connected.script["GET", "/v1/thing"] = shapes.refused(422, "invalid", problems)

    assert run("api", "GET", "/v1/thing", "--json").error["detail"] == problems
    assert "Error: body.name: must be text" in run("api", "GET", "/v1/thing").err


def test_without_a_cloud_commands_end_with_9_and_say_how_to_start_one(home, run):
    found = run("app", "list")

    assert (found.code, found.out) == (9, "")
    assert "start one with `apothic up`" in found.err
    assert run("app", "list", "--json").error["code"] == "cloud_not_running"


def test_a_wait_that_ends_before_the_job_ends_with_10(connected, run, shapes):
    gate = threading.Event()

    def never(_, __):
        gate.wait(30)
        return shapes.refused(404, "not_found", "Gone.")

    connected.script["GET", f"/v1/jobs/{shapes.JOB}/outcome"] = never

    found = run("run", "greet", "--app-name", "hello-world", "--timeout-s", "0.05")

    gate.set()
    assert (found.code, found.out) == (10, "")
    assert f"apothic job status {shapes.JOB}" in found.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("stauts",), "Did you mean `apothic stats` or `apothic status`?"),
        (("job", "stauts"), "Did you mean 'status'?"),
        (("zzz",), "There is no command `zzz`."),
        (("api", "FETCH", "/v1/apps"), "METHOD is one of DELETE, GET"),
        (("run", "greet"), "--app-name"),
        (("logs", "abc::"), "is not like APP or APP::FUNCTION"),
        (("logs", "jobs:"), "is not an id like jobs:"),
        (("deploy", "missing.py"), "there is no file missing.py"),
        (("app", "list", "--nope"), "--nope"),
        (("run", "greet", "--app-name", "a", "--timeout-s", "0"), "--timeout-s"),
        (("run", "greet", "--app-name", "a", "--timeout-s", "nan"), "not a finite number"),
        (("run", "greet", "--app-name", "a", "--timeout-s", "inf"), "not a finite number"),
        (("worker", "join", "--cpus", "nan"), "not a finite number"),
        (("worker", "join", "--cpus", "1025"), "--cpus"),
        (("worker", "join", "--memory-mb", "16777217"), "--memory-mb"),
        (("worker", "join", "--name", ""), "--name"),
        (("worker", "join", "--data", ""), "--data"),
        (("run", "greet", "--app-name", "a", "--watch", "--detach"), "Give one of them"),
        (("job", "watch", "jobs:x", "--snapshot", "--last-index", "3"), "Give one of them"),
        (("job", "watch", "jobs:x", "--last-index", "-2"), "--last-index"),
        (("logs", "jobs:x", "--tail", "-1"), "--tail"),
    ],
)
def test_wrong_usage_ends_with_2_and_a_hint(connected, run, arguments, says):
    found = run(*arguments)

    assert (found.code, found.out) == (2, "")
    assert says in found.err
    assert "--help`" in found.err
    assert run(*arguments, "--json").error["code"] == "usage"
    assert connected.asked == []


@pytest.mark.parametrize("name", ["up", "down"])
def test_without_the_server_its_commands_print_the_line_that_installs_it(home, name):
    program = (
        "import importlib.metadata as m, sys; m.entry_points = lambda **_: (); "
        f"from apothic.cli.main import main; sys.exit(main([{name!r}]))"
    )

    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert (found.returncode, found.stdout) == (1, "")
    assert "pip install apothic-server==" in found.stderr


def test_a_command_of_an_installed_package_is_found_by_its_entry_point(home, tmp_path: Path):
    info = tmp_path / "extra-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: extra\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[apothic.commands]\nshout = extra_commands:shout\n")
    (tmp_path / "extra_commands.py").write_text(
        "import click\n@click.command()\n@click.pass_obj\ndef shout(settings):\n    print('HEY', settings.is_json)\n"
    )

    found = subprocess.run(
        [sys.executable, "-m", "apothic", "--json", "shout"],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip

    assert (found.returncode, found.stdout) == (0, "HEY True\n")


def test_help_loads_nothing_heavy():
    program = (
        "import sys; from apothic.cli.main import main; code = main(['--help']); "
        "heavy = {'rich', 'pathspec', 'asyncio', 'ssl', 'cloudpickle', 'importlib.metadata', 'apothic.client', "
        "'apothic.errors', 'apothic._archive'}; sys.exit(code or ' '.join(heavy & set(sys.modules)) or 0)"
    )

    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert (found.returncode, found.stderr) == (0, "")
    assert "deploy" in found.stdout


def test_a_traceback_is_shown_only_when_asked_for(connected, run, shapes, monkeypatch):
    connected.script["GET", "/v1/thing"] = shapes.refused(404, "not_found", "No.")

    assert "Traceback" not in run("api", "GET", "/v1/thing").err
    assert "Traceback" in run("api", "GET", "/v1/thing", "--debug").err
    monkeypatch.setenv("APOTHIC_DEBUG", "1")
    assert "Traceback" in run("api", "GET", "/v1/thing").err


def test_a_reader_that_leaves_ends_the_command_quietly(connected):
    reading, writing = os.pipe()
    os.close(reading)

    found = subprocess.run(
        [sys.executable, "-m", "apothic", "app", "list"], stdout=writing, stderr=subprocess.PIPE, text=True
    )

    os.close(writing)
    assert (found.returncode, found.stderr) == (1, "")


def test_the_first_interrupt_cancels_and_waits(connected, shapes):
    waiting, cancelled = threading.Event(), threading.Event()

    def pending(_, __):
        waiting.set()
        cancelled.wait(30)
        return shapes.outcome("cancelled")

    def cancel(_, __):
        cancelled.set()
        return shapes.Answer(document={"job_id": shapes.JOB, "status": "cancelling"})

    connected.script["GET", f"/v1/jobs/{shapes.JOB}/outcome"] = pending
    connected.script["POST", f"/v1/jobs/{shapes.JOB}/cancel"] = cancel

    process = start("run", "greet", "--app-name", "hello-world")
    assert waiting.wait(30)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)

    assert (process.returncode, out) == (130, "")
    assert f"Cancelling {shapes.JOB}" in err
    assert f"{shapes.JOB} was cancelled." in err
    assert "Traceback" not in err


def test_a_second_interrupt_leaves_the_job_and_names_it(connected, shapes):
    waiting, cancelling, end = threading.Event(), threading.Event(), threading.Event()

    def pending(_, __):
        waiting.set()
        end.wait(30)
        return shapes.outcome("cancelled")

    def cancel(_, __):
        cancelling.set()
        end.wait(30)
        return shapes.Answer(document={"job_id": shapes.JOB, "status": "cancelling"})

    connected.script["GET", f"/v1/jobs/{shapes.JOB}/outcome"] = pending
    connected.script["POST", f"/v1/jobs/{shapes.JOB}/cancel"] = cancel

    process = start("run", "greet", "--app-name", "hello-world", "--json")
    assert waiting.wait(30)
    process.send_signal(signal.SIGINT)
    assert cancelling.wait(30)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)

    end.set()
    assert (process.returncode, out) == (130, "")
    error = json.loads(err)["error"]
    assert (error["code"], error["job_id"], error["exit_code"]) == ("interrupted", shapes.JOB, 130)
    assert f"Left {shapes.JOB}" in error["detail"]


def test_an_interrupt_elsewhere_ends_with_130(connected, shapes):
    waiting, end = threading.Event(), threading.Event()

    def slow(_, __):
        waiting.set()
        end.wait(30)
        return shapes.Answer(document={"items": [], "next_cursor": None})

    connected.script["GET", "/v1/apps"] = slow

    process = start("app", "list", "--json")
    assert waiting.wait(30)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)

    end.set()
    assert (process.returncode, out) == (130, "")
    assert json.loads(err.strip().splitlines()[-1])["error"]["code"] == "interrupted"


@pytest.mark.parametrize("words", [(), ("job",)])
def test_a_command_without_its_subcommand_shows_its_help_and_no_error(run, words):
    found = run(*words)

    assert (found.code, found.out) == (2, "")
    assert found.err.startswith(" ".join(("Usage: apothic", *words)))
