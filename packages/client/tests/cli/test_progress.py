"""What `apothic run` shows while it waits: on a terminal, in a log, and to nobody."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time

import pytest

from apothic.cli.progress import elapsed, progress_line

RUN = ("run", "greet", "--app-name", "hello-world")
RETRIED = (
    (0, "job.queued", {"status": "queued"}),
    (1, "job.running", {"status": "running", "attempt": 1}),
    (2, "job.error", {"type": "builtins.ValueError", "message": "no\nluck", "traceback": "", "code": "exception",
                      "causes": [], "attempt": 1}),
    (3, "job.status", {"status": "retrying"}),
    (4, "job.running", {"status": "running", "attempt": 2}),
    (5, "job.end", {"status": "succeeded"}),
)  # fmt: skip


class Terminal:
    """A command whose stderr, and if wanted stdout, is a terminal of 100 columns."""

    def __init__(self, *arguments: str, columns: int = 100, shows_stdout: bool = True, **variables: str) -> None:
        self._mine, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        unset = {"NO_COLOR", "FORCE_COLOR", "CI", "TERM"}
        env = {name: value for name, value in os.environ.items() if name not in unset}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "apothic", *arguments],
            stdin=theirs, stdout=theirs if shows_stdout else subprocess.PIPE, stderr=theirs, text=True,
            env={**env, "TERM": "xterm", **variables},
        )  # fmt: skip
        os.close(theirs)
        self.shown = ""

    def wait_for(self, text: str) -> None:
        """Read until a text was shown."""
        deadline = time.monotonic() + 30
        while text not in self.shown:
            ready, _, _ = select.select([self._mine], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"not shown: {text!r}; shown: {self.shown!r}"
            assert self._read(), f"ended before {text!r}; shown: {self.shown!r}"

    def end(self) -> int:
        """Read all that is shown until the command ends, and return its exit code."""
        while self._read():
            pass
        os.close(self._mine)
        return self.process.wait(30)

    def screen(self) -> list[str]:
        """What stays on the terminal."""
        lines = [""]
        for part in re.split(r"(\r\n|\r|\x1b\[2K|\x1b\[[0-9;]*m)", self.shown):
            if part == "\r\n":
                lines.append("")
            elif part == "\x1b[2K":
                lines[-1] = ""
            elif not part.startswith(("\r", "\x1b")):
                lines[-1] += part
        return [line for line in lines if line]

    def _read(self) -> bool:
        try:
            data = os.read(self._mine, 65536)
        except OSError:  # how Linux says that nobody has the terminal any more
            data = b""
        self.shown += data.decode()
        return bool(data)


def waiting(connected, shapes, gate: threading.Event, *events) -> None:
    """Let the job wait for memory until the gate opens, and then go through all the events."""
    script = connected.script
    queued = shapes.job_document(status="queued", attempt=0, waiting_reason="no machine has 9 GiB free")
    script["GET", f"/v1/jobs/{shapes.JOB}"] = shapes.Answer(document=queued)

    def stream(handler, request):
        if "text/event-stream" in request.headers["accept"]:
            return shapes.open_stream(handler, gate, *events[:1])
        page = [{"index": index, "event": kind, "data": data} for index, kind, data in events[1:]]
        return shapes.Answer(document={"events": page, "last_index": page[-1]["index"], "is_final": True})

    script["GET", f"/v1/jobs/{shapes.JOB}/events"] = stream


def test_a_terminal_shows_one_line_with_output_above_it_and_keeps_only_the_output(connected, shapes):
    gate = threading.Event()
    waiting(connected, shapes, gate, *shapes.WHOLE)
    terminal = Terminal(*RUN)

    terminal.wait_for("greet is queued, 0 s")
    terminal.wait_for("no machine has 9 GiB free")
    gate.set()
    code = terminal.end()

    assert code == 0
    assert "greet is running, " in terminal.shown
    assert shapes.JOB in terminal.shown
    assert terminal.screen() == ["first", "second", "hello, world"]


def test_the_line_is_dim_and_without_colours_it_is_plain(connected):
    dim, plain = Terminal(*RUN), Terminal(*RUN, NO_COLOR="1")

    assert (dim.end(), plain.end()) == (0, 0)
    assert "\x1b[2mgreet is running" in dim.shown
    assert "\x1b[2Kgreet is running" in plain.shown
    assert re.search(r"\x1b\[[0-9;]*m", plain.shown) is None


def test_the_line_never_wraps(connected, shapes):
    terminal = Terminal(*RUN, columns=20)

    assert terminal.end() == 0
    assert "greet is running, 0" in terminal.shown
    assert shapes.JOB not in terminal.shown


def test_only_the_result_goes_to_standard_output(connected):
    terminal = Terminal(*RUN, shows_stdout=False)
    out = terminal.process.stdout.read()

    assert terminal.end() == 0
    terminal.process.stdout.close()
    assert out == "hello, world\n"
    assert "hello, world" not in terminal.shown
    assert "greet is running" in terminal.shown


@pytest.mark.parametrize("how", [("--quiet",), ("--json",), ("--jsonl",)])
def test_nothing_is_shown_to_who_wants_the_result_only(connected, how):
    terminal = Terminal(*RUN, *how, shows_stdout=False)
    out = terminal.process.stdout.read()

    assert (terminal.end(), terminal.shown) == (0, "")
    terminal.process.stdout.close()
    assert "hello, world" in out


@pytest.mark.parametrize("variables", [{"CI": "true"}, {"TERM": "dumb"}])
def test_where_no_line_can_be_drawn_again_each_change_is_a_line(connected, shapes, variables):
    connected.script["GET", f"/v1/jobs/{shapes.JOB}/events"] = shapes.stream(*RETRIED)
    terminal = Terminal(*RUN, **variables)

    assert terminal.end() == 0
    assert "\x1b" not in terminal.shown
    assert terminal.shown.splitlines() == [
        *shapes.told(
            "queued", "running, attempt 1", "retrying: builtins.ValueError: no luck", "running, attempt 2", "succeeded"
        ),
        "hello, world",
    ]


def test_a_log_says_once_why_the_job_waits(connected, shapes):
    gate = threading.Event()
    waiting(connected, shapes, gate, *shapes.WHOLE)
    reasons = iter(["waits 9 s before its next attempt", "waits 7 s before its next attempt", "no machine is free"])
    last = "no machine is free"

    def job(_, __):
        reason = next(reasons, last)
        return shapes.Answer(document=shapes.job_document(status="queued", attempt=0, waiting_reason=reason))

    connected.script["GET", f"/v1/jobs/{shapes.JOB}"] = job
    terminal = Terminal(*RUN, CI="1")

    terminal.wait_for("no machine is free")
    gate.set()

    assert terminal.end() == 0
    waits = [line for line in terminal.shown.splitlines() if "waits" in line]
    assert waits == shapes.told("waits 9 s before its next attempt", "waits: no machine is free")


def test_ctrl_c_on_a_terminal_clears_the_line_and_cancels(connected, shapes):
    gate = threading.Event()
    waiting(connected, shapes, gate, *shapes.WHOLE)
    connected.script["GET", f"/v1/jobs/{shapes.JOB}/outcome"] = shapes.outcome("cancelled")
    terminal = Terminal(*RUN)
    terminal.wait_for("greet is queued")

    terminal.process.send_signal(signal.SIGINT)
    code = terminal.end()

    gate.set()
    assert code == 130
    assert terminal.screen() == [
        f"Cancelling {shapes.JOB}; Ctrl-C again leaves it as it is.", f"{shapes.JOB} was cancelled."
    ]  # fmt: skip


def items(shapes, *numbers: int):
    function = {**shapes.function_document(), "is_generator": True}
    packed = [
        (number + 1, "job.stream_items", {"attempt": 1, "encoding": "json", "python": None, "items": [number],
                                          "first_index": number + 1, "first_ordinal": number})
        for number in numbers
    ]  # fmt: skip
    begin = (-1, "job.alive", {"last_index": -1, "next_ordinal": 0})
    return shapes.Answer(document=function), [begin, (0, "job.queued", {"status": "queued"}), *packed]


@pytest.mark.parametrize("how", [(), ("-q",), ("--watch", "--jsonl")])
def test_a_reader_of_items_that_leaves_cancels_the_job(connected, shapes, how):
    function, events = items(shapes, 0, 1, 2)
    if "--watch" in how:
        events = [entry for entry in shapes.WHOLE if entry[1] != "job.end"]
    gate = threading.Event()
    connected.script["GET", "/v1/apps/hello-world/functions/greet"] = function
    connected.script["GET", f"/v1/jobs/{shapes.JOB}/events"] = lambda handler, _: shapes.open_stream(
        handler, gate, *events
    )
    connected.script["GET", f"/v1/jobs/{shapes.JOB}/outcome"] = shapes.outcome("cancelled")
    reading, writing = os.pipe()
    os.close(reading)

    found = subprocess.run(
        [sys.executable, "-m", "apothic", *RUN, *how], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=30
    )

    os.close(writing)
    gate.set()
    assert found.returncode == 1
    assert f"POST /v1/jobs/{shapes.JOB}/cancel" in connected.requests()
    if "--jsonl" in how:
        error = json.loads(found.stderr)["error"]
        assert (error["code"], error["job_id"], error["exit_code"]) == ("reader_left", shapes.JOB, 1)
    else:
        assert found.stderr.splitlines()[-1] == f"Nobody reads the output any more; {shapes.JOB} was cancelled."


@pytest.mark.parametrize("form", ["--json", "--jsonl"])
def test_items_before_a_failure_are_in_the_document(connected, run, shapes, form):
    function, events = items(shapes, 0, 1)
    error = {"type": "builtins.ValueError", "message": "no", "traceback": "", "code": "exception", "causes": []}
    connected.script["GET", "/v1/apps/hello-world/functions/greet"] = function
    connected.script["GET", f"/v1/jobs/{shapes.JOB}/events"] = shapes.stream(
        *events, (9, "job.end", {"status": "failed"})
    )
    connected.script["GET", f"/v1/jobs/{shapes.JOB}/outcome"] = shapes.outcome("failed", error=error)

    found = run(*RUN, form)

    assert (found.code, found.error["code"]) == (100, "exception")
    assert found.json == {"job_id": shapes.JOB, "status": "failed", "result": None, "items": [0, 1]}


def test_items_before_the_end_of_the_wait_are_in_the_document(connected, run, shapes):
    function, events = items(shapes, 0, 1)
    gate = threading.Event()
    connected.script["GET", "/v1/apps/hello-world/functions/greet"] = function
    connected.script["GET", f"/v1/jobs/{shapes.JOB}/events"] = lambda handler, _: shapes.open_stream(
        handler, gate, *events
    )

    found = run(*RUN, "--json", "--timeout-s", "1")

    gate.set()
    assert (found.code, found.error["code"]) == (10, "wait_timeout")
    assert found.json == {"job_id": shapes.JOB, "status": None, "result": None, "items": [0, 1]}


def test_output_that_is_gone_costs_no_items(connected, run, shapes):
    function, events = items(shapes, 0, 1, 2)
    end = (9, "job.end", {"status": "succeeded"})
    reset = (8, "job.reset", {"requested_index": 1, "oldest_index": 8, "latest_index": 8, "snapshot": {}})

    def stream(_, request):
        if "job.log" in request.query:
            return shapes.stream(*events[:3], reset)
        assert "after=1&" in request.query
        return shapes.stream((1, "job.alive", {"last_index": 1, "next_ordinal": 1}), *events[3:], end)

    connected.script["GET", "/v1/apps/hello-world/functions/greet"] = function
    connected.script["GET", f"/v1/jobs/{shapes.JOB}/events"] = stream

    found = run(*RUN)

    assert (found.code, found.out) == (0, "0\n1\n2\n")
    assert f"Output of {shapes.JOB} after index 1 is not kept." in found.err


def test_a_line_says_first_what_matters_most():
    assert progress_line("f", "jobs:1", "running", 1, None, 5.9) == "f is running, 5 s (jobs:1)"
    assert (
        progress_line("f", "jobs:1", "queued", 2, "no room", 65)
        == "f is queued, attempt 2, 1 min 5 s, no room (jobs:1)"
    )
    assert progress_line("f", "jobs:1", "succeeded", 1, None, 1) == "f has succeeded, 1 s (jobs:1)"
    assert progress_line("f", "jobs:1", "cancelled", 1, None, 1) == "f was cancelled, 1 s (jobs:1)"
    assert [elapsed(seconds) for seconds in (0.4, 59.9, 60, 3599, 3600, 90_061)] == [
        "0 s", "59 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "25 h 1 min",
    ]  # fmt: skip
