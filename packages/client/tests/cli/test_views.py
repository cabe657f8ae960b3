"""`top`, `function` and `open`."""

import json
import os
import pty
import subprocess
import sys

import pytest

from apothic.cli import refreshing


def test_top_counts_by_function_and_names_the_reason(connected, run, shapes):
    waiting = [
        shapes.listed_job(job_id=f"{shapes.JOB[:-1]}{number}", status="queued", waiting_reason="no worker is connected")
        for number in (3, 2)
    ]
    connected.script["GET", "/v1/jobs"] = shapes.page(
        *waiting, shapes.listed_job(created_at="2026-01-01T00:00:00.000Z")
    )

    found = run("top").out
    document = run("top", "--json").json

    assert "jobs   1 running, 2 waiting" in found
    assert "no worker is connected" in found
    assert "local   live    1" in found
    assert document["functions"] == [
        {
            "app": "hello-world", "function": "greet", "running": 1, "waiting": 2,
            "oldest_at": "2026-01-01T00:00:00.000Z", "waiting_reason": "no worker is connected",
        }
    ]  # fmt: skip


def test_top_without_the_right_to_see_workers_shows_the_rest(connected, run, shapes):
    connected.script["GET", "/v1/workers"] = shapes.refused(403, "forbidden", "Operators only.")

    assert run("top", "--json").json["workers"] is None
    assert "WORKER" not in run("top").out


def test_top_for_programs_is_a_line_for_each_change(connected, run, shapes, monkeypatch):
    monkeypatch.setattr(refreshing, "PERIOD_S", 0)
    answers = iter([[], [], [shapes.listed_job()]])

    def jobs(_, asked):
        listed = next(answers, None)
        return shapes.page(*listed) if listed is not None else shapes.refused(404, "not_found", "The end.")

    connected.script["GET", "/v1/jobs"] = jobs

    assert [json.loads(line)["running"] for line in run("top", "--jsonl").out.splitlines()] == [0, 1]


def test_top_is_drawn_on_a_terminal_until_ctrl_c(connected, home):
    ours, theirs = pty.openpty()
    env = {name: value for name, value in os.environ.items() if name not in ("CI", "NO_COLOR")} | {"TERM": "xterm"}
    command = [sys.executable, "-m", "apothic", "top"]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True)
    os.close(theirs)
    shown = b""
    while b"WORKER" not in shown:
        shown += os.read(ours, 4096)
    process.send_signal(2)

    assert process.wait() == 130
    assert shown.startswith(b"\x1b[H\x1b[2J")
    os.close(ours)


def test_functions_of_live_apps_are_listed(connected, run, shapes):
    found = run("function", "list")

    assert found.out.splitlines()[1].split()[:3] == ["hello-world::greet", "1", "1024"]


def test_a_function_is_shown_with_what_is_unusual(connected, run, shapes):
    document = {**shapes.function_document(), "max_containers": 7, "placement": {"gpu": "RTX_4070"}}
    document["batching"] = {"max_batch_size": 32, "wait_ms": 50}
    connected.script["GET", "/v1/apps/hello-world/functions/greet"] = shapes.Answer(document=document)

    lines = [line.split() for line in run("function", "show", "hello-world::greet").out.splitlines()]

    assert ["max_containers", "7"] in lines
    assert ["placement", "gpu=RTX_4070"] in lines
    assert ["batches", *["up", "to", "32", "calls;", "the", "first", "waits", "50", "ms"]] in lines
    assert "tasks_per_container" not in [line[0] for line in lines]
    assert run("function", "show", "hello-world").code == 2


@pytest.mark.parametrize("thing", ["jobs:", "users:x", "a b", "-"])
def test_what_has_no_address_is_refused(connected, run, thing):
    assert run("open", thing).code == 2


def test_the_address_of_a_thing_is_printed_with_how_to_read_it(connected, run, shapes):
    found = run("open", shapes.JOB)

    assert found.out == f"{connected.url}/v1/jobs/{shapes.JOB}\n"
    assert f"apothic api GET /v1/jobs/{shapes.JOB}" in found.err
    assert run("open", "jobs:none").code == 5


def test_without_a_thing_it_is_the_description_of_the_api(connected, run, shapes):
    connected.script["GET", "/v1/openapi.json"] = shapes.Answer(document={})

    assert run("open").out == f"{connected.url}/v1/openapi.json\n"
