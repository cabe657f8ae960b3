"""Watching: `job watch`, `run --watch` and `logs --follow`, for people and for programs."""

import json
import signal
import subprocess
import sys
import threading

import pytest

from apothic.cli.interrupts import Interrupts

RUN = ("run", "greet", "--app-name", "hello-world")


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "apothic", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def events_path(shapes) -> tuple[str, str]:
    return "GET", f"/v1/jobs/{shapes.JOB}/events"


def failed_events(shapes, status: str = "failed"):
    error = {"type": "builtins.ValueError", "message": "bad\nvalue", "traceback": "", "code": "exception",
             "causes": [], "attempt": 2}  # fmt: skip
    return shapes.stream((0, "job.queued", {"status": "queued"}), (1, "job.error", error),
                         (2, "job.end", {"status": status}))  # fmt: skip


def test_people_read_output_as_it_is_and_anything_else_after_its_name(connected, run, shapes):
    found = run("job", "watch", shapes.JOB)

    assert (found.code, found.err) == (0, "")
    assert found.out.splitlines() == [
        "job.queued  queued",
        "job.running  running, attempt 1",
        "first",
        "second",
        'job.result  "hello, world"',
        "job.end  succeeded",
    ]
    assert connected.asked[-1].query == "after=-1"


def test_programs_read_one_object_per_line(connected, run, shapes):
    found = run("job", "watch", shapes.JOB, "--jsonl")

    assert (found.code, found.err) == (0, "")
    assert [json.loads(line) for line in found.out.splitlines()] == [
        {"index": index, "event": kind, "data": data} for index, kind, data in shapes.WHOLE
    ]


def test_one_document_holds_all_events_and_the_status(connected, run, shapes):
    found = run("job", "watch", shapes.JOB, "--json").json

    assert (found["job_id"], found["status"], found["last_index"]) == (shapes.JOB, "succeeded", 5)
    assert [event["index"] for event in found["events"]] == [0, 1, 2, 3, 4, 5]


def test_a_filter_shows_what_it_names_and_the_exit_code_is_still_the_jobs(connected, run, shapes):
    connected.script[events_path(shapes)] = failed_events(shapes)

    found = run("job", "watch", shapes.JOB, "--types", "job.error, job.log", "--last-index", "-1")

    assert (found.code, found.err) == (100, "")
    assert found.out == "job.error  builtins.ValueError: bad value [exception], attempt 2\n"
    assert connected.asked[-1].query == "after=-1&types=job.end%2Cjob.error%2Cjob.log"


@pytest.mark.parametrize(("status", "code"), [("failed", 100), ("timed_out", 100), ("cancelled", 103)])
def test_watching_ends_as_the_job_did(connected, run, shapes, status, code):
    connected.script[events_path(shapes)] = failed_events(shapes, status)

    assert run("job", "watch", shapes.JOB).code == code
    assert run("job", "watch", shapes.JOB, "--jsonl").code == code
    assert run("job", "watch", shapes.JOB, "--json").code == code


def test_a_snapshot_and_a_reset_are_lines_too(connected, run, shapes):
    snapshot = {"job": shapes.job_document(), "index": 7}
    reset = {"requested_index": 9, "oldest_index": 20, "latest_index": 30, "snapshot": {**snapshot, "index": 30}}
    connected.script[events_path(shapes)] = shapes.stream(
        (7, "job.snapshot", snapshot), (30, "job.reset", reset), (31, "job.end", {"status": "succeeded"})
    )

    assert run("job", "watch", shapes.JOB, "--snapshot").out.splitlines() == [
        "job.snapshot  running, attempt 1",
        "job.reset  what follows index 9 is not kept (oldest 20); goes on after 30",
        "job.end  succeeded",
    ]
    assert connected.asked[-1].query == "snapshot=true"


def test_a_result_that_only_python_can_read_is_named_by_its_type(connected, run, shapes):
    import base64
    import decimal
    import pickle

    data = base64.b64encode(pickle.dumps(decimal.Decimal(1), 5)).decode()
    connected.script[events_path(shapes)] = shapes.stream(
        (0, "job.result", {"attempt": 1, "encoding": "pickle", "python": None, "result": data}),
        (1, "job.result", {"attempt": 1, "encoding": "opaque", "python": None, "result": "!"}),
        (2, "job.end", {"status": "succeeded"}),
    )

    assert run("job", "watch", shapes.JOB).out == (
        "job.result  decimal.Decimal\njob.result  object\njob.end  succeeded\n"
    )


def test_a_watch_that_begins_behind_the_end_asks_for_the_status(connected, run, shapes):
    connected.script[events_path(shapes)] = lambda _, asked: (
        shapes.stream()
        if asked.headers["accept"] == "text/event-stream"
        else shapes.Answer(document={"events": [], "last_index": 5, "is_final": True})
    )
    connected.script["GET", f"/v1/jobs/{shapes.JOB}"] = shapes.Answer(document=shapes.job_document(status="cancelled"))

    found = run("job", "watch", shapes.JOB, "--last-index", "5")

    assert (found.code, found.out) == (103, "")


def test_a_wrong_filter_is_refused_and_nothing_is_asked(connected, run, shapes):
    found = run("job", "watch", shapes.JOB, "--types", "job.logs")

    assert found.code == 8
    assert "did you mean job.log?" in found.err
    assert connected.asked == []


@pytest.mark.parametrize("first", ["--json", "--jsonl"])
def test_one_document_and_many_lines_exclude_each_other(connected, run, shapes, first):
    second = {"--json": "--jsonl", "--jsonl": "--json"}[first]

    found = run("job", "watch", shapes.JOB, first, second)

    assert (found.code, found.out) == (2, "")
    assert found.error["code"] == "usage"


def test_run_that_does_not_watch_prints_its_document_in_one_line(connected, run, shapes):
    found = run(*RUN, "--jsonl")

    assert (found.code, found.err) == (0, "")
    assert [json.loads(line) for line in found.out.splitlines()] == [
        {"job_id": shapes.JOB, "status": "succeeded", "result": "hello, world"}
    ]


def test_one_interrupt_is_put_off_while_something_is_shown_and_a_second_is_not():
    interrupts = Interrupts()
    with pytest.raises(KeyboardInterrupt), interrupts.held():
        interrupts.handle(signal.SIGINT, None)
        noted = True
    with pytest.raises(KeyboardInterrupt), interrupts.held():
        interrupts.handle(signal.SIGINT, None)
        interrupts.handle(signal.SIGINT, None)
        noted = False

    assert noted
    with pytest.raises(KeyboardInterrupt):
        interrupts.handle(signal.SIGINT, None)


def test_errors_of_a_command_that_prints_lines_are_json(connected, run, shapes):
    connected.script = {}

    found = run("job", "watch", shapes.JOB, "--jsonl")

    assert (found.code, found.out, found.error["code"]) == (5, "", "not_found")


def watched(connected, shapes, *arguments: str) -> tuple[int, str, str]:
    """Interrupt a command once it has printed the line "second"."""
    gate = threading.Event()
    connected.script[events_path(shapes)] = lambda handler, _: shapes.open_stream(handler, gate, *shapes.WHOLE[:4])
    process = start(*arguments)
    out = ""
    while "second" not in out:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        out += line
    process.send_signal(signal.SIGINT)
    rest, err = process.communicate(timeout=30)
    gate.set()
    return process.returncode, out + rest, err


def test_an_interrupt_ends_the_watching_only_and_says_how_to_read_on(connected, shapes):
    code, _, err = watched(connected, shapes, "job", "watch", shapes.JOB)

    assert code == 130
    assert f"`apothic job watch {shapes.JOB} --last-index 3`" in err
    assert "Traceback" not in err
    assert not any(asked.method == "POST" for asked in connected.asked)


def test_an_interrupt_for_programs_keeps_the_filter_in_what_it_says(connected, shapes):
    code, out, err = watched(connected, shapes, "job", "watch", shapes.JOB, "--jsonl", "--types", "job.log")

    assert code == 130
    assert [json.loads(line)["index"] for line in out.splitlines()] == [2, 3]
    error = json.loads(err)["error"]
    assert (error["code"], error["job_id"]) == ("interrupted", shapes.JOB)
    assert f"`apothic job watch {shapes.JOB} --last-index 3 --types job.log`" in error["detail"]


def test_an_interrupt_ends_the_following_of_logs_only(connected, shapes):
    connected.script["GET", f"/v1/jobs/{shapes.JOB}/logs"] = lambda _, asked: shapes.Answer(
        document=shapes.log_document(2, "first", is_final=False)
        if "after=-1" in asked.query
        else {"lines": [], "last_index": 2, "is_final": False}
    )
    code, out, err = watched(connected, shapes, "logs", shapes.JOB, "-f")

    assert (code, out) == (130, "first\nsecond\n")
    assert f"`apothic job watch {shapes.JOB} --last-index 3 --types job.log`" in err
    assert connected.last(*events_path(shapes)).query == "after=2&types=job.end%2Cjob.log"


@pytest.mark.parametrize("words", [("job", "watch"), ("logs", "--follow")])
def test_an_interrupt_lets_one_document_be_whole(connected, shapes, words):
    consumed, gate = threading.Event(), threading.Event()

    def answer(_, asked):
        if "text/event-stream" in asked.headers["accept"]:
            return shapes.stream(*(event for event in shapes.WHOLE[:4] if "types" not in asked.query or event[0] > 2))
        consumed.set()  # who asks for a page has read the stream to its end
        gate.wait(30)
        return shapes.refused(404, "not_found", "Gone.")

    connected.script[events_path(shapes)] = answer
    connected.script["GET", f"/v1/jobs/{shapes.JOB}/logs"] = lambda _, asked: shapes.Answer(
        document=shapes.log_document(2, "first", is_final=False)
        if "after=-1" in asked.query
        else {"lines": [], "last_index": 2, "is_final": False}
    )
    process = start(*words, shapes.JOB, "--json")
    assert consumed.wait(30)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)

    gate.set()
    document = json.loads(out)
    assert (process.returncode, json.loads(err)["error"]["code"]) == (130, "interrupted")
    assert (document["job_id"], document["last_index"]) == (shapes.JOB, 3)
    if words[0] == "job":
        assert (document["status"], [event["index"] for event in document["events"]]) == (None, [0, 1, 2, 3])
    else:
        assert (document["is_final"], [line["line"] for line in document["lines"]]) == (False, ["first", "second"])


@pytest.mark.parametrize(("status", "code"), [("succeeded", 0), ("failed", 100), ("cancelled", 103)])
def test_a_watched_retry_shows_the_new_job_and_ends_as_it_does(connected, run, shapes, status, code):
    made = shapes.Answer(status=202, document={"job_id": shapes.JOB, "status": "queued"})
    connected.script["POST", f"/v1/jobs/{shapes.JOB}/retry"] = made
    if status != "succeeded":
        connected.script[events_path(shapes)] = failed_events(shapes, status)

    found = run("job", "retry", shapes.JOB, "--watch")

    assert found.code == code
    assert f"{shapes.JOB} retries {shapes.JOB}" in found.err
    assert "job.end" in found.out


def test_run_shows_events_while_it_runs_and_then_the_result(connected, run, shapes):
    found = run(*RUN, "--watch")

    assert (found.code, found.out) == (0, "hello, world\n")
    assert found.err.splitlines() == [
        "job.queued  queued",
        "job.running  running, attempt 1",
        "first",
        "second",
        "job.end  succeeded",
    ]
    assert f"GET /v1/jobs/{shapes.JOB}/logs" not in connected.requests()


def test_run_quietly_shows_events_without_what_was_written(connected, run):
    found = run(*RUN, "--watch", "-q")

    assert found.out == "hello, world\n"
    assert found.err.splitlines() == ["job.queued  queued", "job.running  running, attempt 1", "job.end  succeeded"]


def test_run_for_programs_prints_events_as_lines_or_in_its_document(connected, run, shapes):
    lines = run(*RUN, "--watch", "--jsonl")
    document = run(*RUN, "--watch", "--json")

    assert (lines.code, lines.err) == (0, "")
    assert [json.loads(line)["event"] for line in lines.out.splitlines()] == [kind for _, kind, _ in shapes.WHOLE]
    assert (document.json["result"], len(document.json["events"])) == ("hello, world", 6)


@pytest.mark.parametrize(("status", "code"), [("failed", 100), ("cancelled", 103)])
def test_run_with_watch_ends_as_run(connected, run, shapes, status, code):
    error = {"type": "builtins.ValueError", "message": "bad", "traceback": "", "code": "exception", "causes": []}
    connected.script[events_path(shapes)] = failed_events(shapes, status)
    connected.script["GET", f"/v1/jobs/{shapes.JOB}/outcome"] = shapes.outcome(
        status, error=error if status == "failed" else None
    )

    assert (run(*RUN, "--watch").code, run(*RUN).code) == (code, code)
    found = run(*RUN, "--watch", "--jsonl")
    assert (found.code, len(found.out.splitlines()), found.error["exit_code"]) == (code, 3, code)


def test_run_with_watch_waits_no_longer_than_it_may(connected, run, shapes):
    gate = threading.Event()
    connected.script[events_path(shapes)] = lambda handler, _: shapes.open_stream(handler, gate, *shapes.WHOLE[:2])

    found = run(*RUN, "--watch", "--timeout-s", "0.2")

    gate.set()
    assert (found.code, found.out) == (10, "")
    assert f"apothic job status {shapes.JOB}" in found.err


def test_an_interrupt_of_run_with_watch_cancels_the_job(connected, shapes):
    waiting, gate = threading.Event(), threading.Event()

    def events(handler, _):
        waiting.set()
        return shapes.open_stream(handler, gate, *shapes.WHOLE[:2])

    connected.script[events_path(shapes)] = events
    connected.script["GET", f"/v1/jobs/{shapes.JOB}/outcome"] = shapes.outcome("cancelled")
    process = start(*RUN, "--watch")
    assert waiting.wait(30)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)

    gate.set()
    assert (process.returncode, out) == (130, "")
    assert f"{shapes.JOB} was cancelled." in err
    assert f"POST /v1/jobs/{shapes.JOB}/cancel" in connected.requests()


def test_logs_are_searched_cut_and_timed(connected, run, shapes):
    lines = [f"line {n}" for n in range(30)]
    connected.script["GET", f"/v1/jobs/{shapes.JOB}/logs"] = shapes.Answer(document=shapes.log_document(0, *lines))

    assert run("logs", shapes.JOB, "--tail", "2").out == "line 28\nline 29\n"
    assert run("logs", shapes.JOB, "--tail", "0").out == ""
    assert run("logs", shapes.JOB, "--search", "e 1", "--tail", "1").out == "line 19\n"
    assert run("logs", shapes.JOB, "--search", "LINE").out == ""
    assert run("logs", shapes.JOB, "--timestamps", "--tail", "1").out == f"{shapes.TIME} line 29\n"
    assert json.loads(run("logs", shapes.JOB, "--jsonl", "--tail", "1").out) == {
        "index": 29, "time": shapes.TIME, "stream": "stdout", "line": "line 29"
    }  # fmt: skip
    document = run("logs", shapes.JOB, "--json", "--search", "9").json
    assert [line["index"] for line in document["lines"]] == [9, 19, 29]
    assert (document["last_index"], document["is_final"]) == (29, True)


def test_logs_begin_at_a_time(connected, run, shapes):
    document = shapes.log_document(0, "early", "late", "later")
    for line, second in zip(document["lines"], (9, 10, 11), strict=True):
        line["time"] = f"2026-01-31T12:00:{second:02}.000Z"
    connected.script["GET", f"/v1/jobs/{shapes.JOB}/logs"] = shapes.Answer(document=document)

    assert run("logs", shapes.JOB, "--since", "2026-01-31T12:00:10Z").out == "late\nlater\n"
    assert run("logs", shapes.JOB, "--since", "2026-01-31T13:00:10.500+01:00", "--tail", "5").out == "later\n"
    assert run("logs", shapes.JOB, "--since", "1s").out == ""
    assert run("logs", shapes.JOB, "--since", "yesterday").code == 2


def test_followed_logs_are_what_was_written_and_then_what_comes(connected, run, shapes):
    pages = {
        "-1": shapes.log_document(0, "old", "older", is_final=False),
        "1": {"lines": [], "last_index": 2, "is_final": False},
    }
    connected.script["GET", f"/v1/jobs/{shapes.JOB}/logs"] = lambda _, asked: shapes.Answer(
        document=pages[asked.query.split("&")[0].removeprefix("after=")]
    )
    snapshot = {"job": shapes.job_document(), "index": 9}
    reset = {"requested_index": 3, "oldest_index": 8, "latest_index": 9, "snapshot": snapshot}
    log = {"stream": "stdout", "time": shapes.TIME, "partial": False}
    connected.script[events_path(shapes)] = shapes.stream(
        (3, "job.log", {**log, "line": "new"}),
        (9, "job.reset", reset),
        (10, "job.log", {**log, "line": "newer"}),
        (11, "job.end", {"status": "failed"}),
    )

    found = run("logs", shapes.JOB, "--follow", "--tail", "1", "--search", "e")

    assert (found.code, found.out) == (0, "older\nnew\nnewer\n")
    assert found.err == "Output after index 3 is not kept; goes on after 9.\n"
    assert connected.last(*events_path(shapes)).query == "after=2&types=job.end%2Cjob.log"
    document = run("logs", shapes.JOB, "-f", "--json").json
    assert [line["line"] for line in document["lines"]] == ["old", "older", "new", "newer"]
    assert document["is_final"] is True


def test_following_a_job_that_has_ended_is_printing_its_logs(connected, run, shapes):
    assert run("logs", shapes.JOB, "-f").out == "first\nsecond\n"
    assert connected.requests() == [f"GET /v1/jobs/{shapes.JOB}/logs"]
