"""`apothic deployment list`, `stop` and `delete`: what is asked of the cloud, and the question before."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading

import pytest

ENTRY = {
    "deployment_id": "", "app": "hello-world", "version": 3, "status": "active", "stopped_at": None,
    "restored_from": None,
}  # fmt: skip


@pytest.fixture
def ending(connected, shapes):
    ended = {"deployment": shapes.deployment_document(status="stopped"), "unfinished_jobs": 2}
    gone = {"deployment": shapes.deployment_document(status="deleted"), "unfinished_jobs": 0}
    connected.script["POST", f"/v1/deployments/{shapes.DEPLOYMENT}/stop"] = shapes.Answer(document=ended)
    connected.script["DELETE", f"/v1/deployments/{shapes.DEPLOYMENT}"] = shapes.Answer(document=gone)
    return connected


def entry(shapes, number):
    return {**ENTRY, "deployment_id": f"{shapes.DEPLOYMENT[:-1]}{number}", "created_at": shapes.TIME}


def test_list_reads_every_page_of_one_app(connected, run, shapes):
    def answer(_, asked):
        number = 2 if "cursor" in asked.query else 1
        return shapes.Answer(document={"items": [entry(shapes, number)], "next_cursor": "c" if number == 1 else None})

    connected.script["GET", "/v1/deployments"] = answer

    found = run("deployment", "list", "--app", "hello-world")
    listed = run("deployment", "list", "--json").json["items"]

    assert [line.split()[:4] for line in found.out.splitlines()] == [
        ["DEPLOYMENT", "APP", "VERSION", "STATUS"],
        [entry(shapes, 1)["deployment_id"], "hello-world", "3", "active"],
        [entry(shapes, 2)["deployment_id"], "hello-world", "3", "active"],
    ]
    assert connected.asked[0].query == "app=hello-world&limit=200"
    assert listed == [entry(shapes, 1), entry(shapes, 2)]


def test_an_empty_list_says_what_to_do(connected, run, shapes):
    connected.script["GET", "/v1/deployments"] = shapes.Answer(document={"items": [], "next_cursor": None})

    found = run("deployment", "list")

    assert (found.code, found.out) == (0, "")
    assert "apothic deploy FILE" in found.err


def test_stop_says_what_is_left(ending, run, shapes):
    found = run("deployment", "stop", shapes.DEPLOYMENT, "--yes")
    document = run("deployment", "stop", shapes.DEPLOYMENT, "-y", "--json").json

    assert (found.code, found.out) == (0, f"{shapes.DEPLOYMENT} (app hello-world version 3) is stopped\n")
    assert found.err == "2 of its jobs have not ended yet.\n"
    assert (document["status"], document["unfinished_jobs"]) == ("stopped", 2)
    assert [asked.query for asked in ending.asked] == ["", ""]


@pytest.mark.parametrize("verb", ["stop", "delete"])
def test_now_is_passed_on(ending, run, shapes, verb):
    now = "--force" if verb == "delete" else "--now"
    assert run("deployment", verb, shapes.DEPLOYMENT, "-y", now).code == 0

    assert ending.asked[-1].query == "now=true"


@pytest.mark.parametrize("verb", ["stop", "delete"])
@pytest.mark.parametrize("how", [(), ("--json",)])
def test_without_a_terminal_and_without_yes_nothing_is_done(ending, run, shapes, verb, how):
    found = run("deployment", verb, shapes.DEPLOYMENT, *how)

    assert (found.code, found.out) == (2, "")
    assert "--yes" in found.err
    assert ending.asked == []


@pytest.mark.parametrize(("answer", "code", "status"), [("y", 0, "deleted"), ("n", 1, None), ("", 1, None)])
def test_on_a_terminal_it_asks(ending, home, shapes, answer, code, status):
    printed, left = on_terminal(["deployment", "delete", shapes.DEPLOYMENT], answer)

    assert f"Delete {shapes.DEPLOYMENT}? [y/N]" in printed
    assert left == code
    assert [asked.method for asked in ending.asked] == (["DELETE"] if status else [])
    assert ("is deleted" in printed) == (status is not None)


def test_what_may_not_be_deleted_says_what_to_do(connected, run, shapes):
    refused = shapes.refused(409, "deployment_active", "calls run it")
    connected.script["DELETE", f"/v1/deployments/{shapes.DEPLOYMENT}"] = refused

    found = run("deployment", "delete", shapes.DEPLOYMENT, "-y")

    assert found.code == 6
    assert "--force" in found.err


def test_an_app_that_is_stopped_says_so(connected, run, shapes):
    stopped = {
        "app_id": "apps:01jc5v0000000000000000app1", "name": "hello-world", "deployment_id": None, "version": None,
        "functions": [], "created_at": shapes.TIME,
    }  # fmt: skip
    connected.script["GET", "/v1/apps"] = shapes.Answer(document={"items": [stopped], "next_cursor": None})

    assert run("app", "list").out.splitlines()[1].split()[:3] == ["hello-world", "-", "stopped"]


def test_a_call_of_a_stopped_app_ends_with_6_and_advice(connected, run, shapes):
    refused = shapes.refused(409, "app_stopped", "app hello-world is stopped")
    connected.script["GET", "/v1/apps/hello-world/functions/greet"] = refused

    found = run("run", "greet", "--app-name", "hello-world")

    assert found.code == 6
    assert "apothic deploy FILE" in found.err


def on_terminal(arguments: list[str], answer: str) -> tuple[str, int]:
    """Run a command on a terminal, type an answer, and return what the terminal showed and the exit code."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "apothic", *arguments], stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    os.write(ours, f"{answer}\n".encode())
    shown = bytearray()
    reader = threading.Thread(target=read_all, args=(ours, shown))
    reader.start()
    code = process.wait(60)
    reader.join(60)
    os.close(ours)
    return shown.decode(), code


def read_all(terminal: int, shown: bytearray) -> None:
    """Read until the last process has left the terminal."""
    while True:
        try:
            data = os.read(terminal, 65_536)
        except OSError:
            return
        if not data:
            return
        shown.extend(data)


DEPLOYED = {"version": 3, "previous_deployment_id": None, "time": "2026-01-02T03:04:05.678Z"}


def test_watching_a_deployment_shows_each_event_and_ends_with_it(connected, run, shapes):
    events = shapes.stream(
        (1, "deployment.snapshot", {"deployment": shapes.deployment_document(), "index": 1}),
        (2, "deployment.superseded", {"status": "superseded", "deployment_id": "deployments:x", "time": shapes.TIME}),
        (3, "deployment.end", {"status": "deleted", "time": shapes.TIME}),
    )
    connected.script["GET", f"/v1/deployments/{shapes.DEPLOYMENT}/events"] = events

    found = run("deployment", "watch", shapes.DEPLOYMENT, "--snapshot")
    whole = run("deployment", "watch", shapes.DEPLOYMENT, "--json").json

    assert (found.code, found.err) == (0, "")
    assert found.out.splitlines() == [
        "deployment.snapshot  hello-world version 3: active",
        f"deployment.superseded  {shapes.TIME} deployments:x",
        f"deployment.end  {shapes.TIME}",
    ]
    assert [asked.query for asked in connected.asked] == ["snapshot=true", "after=-1"]
    assert (whole["last_index"], len(whole["events"])) == (3, 3)


def test_ctrl_c_ends_the_watching_of_an_app_and_says_how_to_read_on(connected, shapes):
    gate = threading.Event()
    event = (7, "app.deployed", {**DEPLOYED, "deployment_id": shapes.DEPLOYMENT})
    connected.script["GET", "/v1/apps/hello-world/events"] = lambda handler, _: shapes.open_stream(handler, gate, event)
    process = subprocess.Popen(
        [sys.executable, "-m", "apothic", "app", "watch", "hello-world", "--after", "6"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    line = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    gate.set()

    assert line == f"app.deployed  {shapes.TIME} {shapes.DEPLOYMENT} version 3\n"
    assert process.returncode == 130
    assert "`apothic app watch hello-world --after 7` reads on from here." in err
    assert connected.asked[0].query == "after=6"


def test_ctrl_c_lets_one_document_be_whole(connected, shapes):
    gate = threading.Event()
    asked = threading.Event()
    event = (7, "app.deployed", {**DEPLOYED, "deployment_id": shapes.DEPLOYMENT})

    def open_and_tell(handler, _):
        asked.set()
        return shapes.open_stream(handler, gate, event)

    connected.script["GET", "/v1/apps/hello-world/events"] = open_and_tell
    process = subprocess.Popen(
        [sys.executable, "-m", "apothic", "app", "watch", "hello-world", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert asked.wait(30)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    gate.set()

    document = json.loads(out)
    assert [found["index"] for found in document["events"]] in ([], [7])
    assert document["last_index"] == (7 if document["events"] else -1)
    assert (process.returncode, json.loads(err)["error"]["code"]) == (130, "interrupted")


@pytest.mark.parametrize("how", [("--after", "-2"), ("--after", "x"), ("--snapshot", "--after", "1")])
def test_wrong_places_to_watch_from_are_usage_errors(connected, run, how):
    found = run("app", "watch", "hello-world", *how)

    assert (found.code, found.out, connected.asked) == (2, "", [])
