"""What runs and waits, how calls went, and what many jobs have written."""

import json
import signal
import subprocess
import sys

import pytest

from apothic.cli import refreshing

OTHER = "jobs:01jc5v0000000000000000job2"


@pytest.fixture
def connected(connected, shapes):
    """The scripted cloud, which can be asked for its app."""
    connected.script["GET", "/v1/apps/hello-world"] = shapes.Answer(document=shapes.app_document())
    return connected


def test_ps_lists_what_has_not_ended_with_its_reason(connected, run, shapes):
    waiting = shapes.listed_job(status="queued", started_at=None, waiting_reason="no worker is connected")
    again = shapes.listed_job(job_id=OTHER, attempt=2)
    connected.script["GET", "/v1/jobs"] = shapes.page(waiting, again)

    found = run("ps", "--app", "hello-world")

    assert connected.asked[-1].query == "app=hello-world&unfinished=true&limit=100"
    lines = [line.split() for line in found.out.splitlines()]
    assert lines[0] == ["JOB", "FUNCTION", "STATUS", "AGE", "WAITS", "BECAUSE"]
    assert lines[1][:3] == [shapes.JOB, "hello-world::greet", "queued"]
    assert lines[1][4:] == ["no", "worker", "is", "connected"]
    assert "running, attempt 2" in found.out


def test_ps_says_when_nothing_runs(connected, run, shapes):
    connected.script["GET", "/v1/jobs"] = shapes.page()

    found = run("ps")

    assert (found.code, found.out, found.err) == (0, "", "Nothing runs or waits.\n")


def test_stats_shows_counts_and_times(connected, run):
    found = run("stats", "hello-world::greet", "--since", "2026-01-01T00:00:00Z")

    assert connected.asked[-1].query == "function=greet&since=2026-01-01T00%3A00%3A00.000Z"
    assert found.out.splitlines()[1].split() == [
        "greet", "2", "1", "1", "0", "0", "0", "12", "ms", "/", "1.5", "s", "/", "2", "s", "-",
    ]  # fmt: skip


def test_stats_says_what_is_left_out(connected, run, shapes):
    document = {**shapes.stats_document(), "is_whole": False}
    connected.script["GET", "/v1/apps/hello-world/stats"] = shapes.Answer(document=document)

    assert "more jobs than are looked at" in run("stats", "hello-world").err


@pytest.mark.parametrize("target", ["", "::greet", "hello-world::"])
def test_a_target_without_a_name_is_refused(connected, run, target):
    assert run("stats", target).code == 2
    assert run("logs", target).code == 2


@pytest.mark.parametrize("command", ["ps", "app list", "job list", "deployment list", "schedule list", "history x"])
def test_a_list_is_printed_again_when_it_changed(connected, run, shapes, monkeypatch, command):
    monkeypatch.setattr(refreshing, "PERIOD_S", 0)
    place = {"ps": "/v1/jobs", "job list": "/v1/jobs", "history x": "/v1/deployments"}.get(
        command, f"/v1/{command.split()[0]}s"
    )
    whole = connected.script["GET", place].document
    answers = iter([whole, whole, {"items": [], "next_cursor": None}])

    def answer(_, asked):
        document = next(answers, None)
        return shapes.Answer(document=document) if document else shapes.refused(404, "not_found", "The end.")

    connected.script["GET", place] = answer
    found = run(*command.split(), "--watch", "--jsonl")

    assert found.code == 5
    assert [len(json.loads(line)["items"]) for line in found.out.splitlines()] == [len(whole["items"]), 0]


def test_watching_has_no_one_document(connected, run):
    assert run("ps", "--watch", "--json").code == 2


def test_ctrl_c_ends_the_watching(connected, home):
    command = [sys.executable, "-m", "apothic", "ps", "--watch"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("JOB")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()

    assert (process.returncode, err) == (130, "Stopped watching.\n")


def lines_of(connected, shapes, **jobs):
    """Have jobs with the given lines, each `(second, text)`."""
    listed = []
    for name, lines in jobs.items():
        job_id = f"jobs:01jc5v000000000000000{name}"
        listed.append(shapes.listed_job(job_id=job_id, function=name, status="succeeded", finished_at=shapes.TIME))
        document = shapes.log_document(0, *(text for _, text in lines))
        for line, (second, _) in zip(document["lines"], lines, strict=True):
            line["time"] = f"2026-01-31T12:00:{second:02}.000Z"
        connected.script["GET", f"/v1/jobs/{job_id}/logs"] = shapes.Answer(document=document)
    connected.script["GET", "/v1/jobs"] = shapes.page(*listed)


def test_logs_of_an_app_are_in_the_order_of_their_times(connected, run, shapes):
    lines_of(connected, shapes, job1=[(1, "a"), (3, "c")], job2=[(2, "b"), (4, "d")])

    found = run("logs", "hello-world")

    assert [line[-1] for line in found.out.splitlines()] == ["a", "b", "c", "d"]
    assert found.out.splitlines()[1] == "jobs:01jc5v000000000000000job2 job2: b"


def test_logs_of_an_app_are_cut_searched_and_timed(connected, run, shapes):
    lines_of(connected, shapes, job1=[(1, "one"), (3, "three")], job2=[(2, "two"), (4, "four")])
    texts = lambda *options: [line["line"] for line in run("logs", "hello-world", *options, "--json").json["lines"]]  # noqa: E731

    assert texts("--tail", "2") == ["three", "four"]
    assert texts("-n", "0") == []
    assert texts("--search", "t") == ["two", "three"]
    assert texts("--until", "2026-01-31T12:00:02Z") == ["one", "two"]
    found = run("logs", "hello-world", "--timestamps", "--tail", "1")
    assert found.out == "2026-01-31T12:00:04.000Z jobs:01jc5v000000000000000job2 job2: four\n"


@pytest.mark.parametrize(
    ("target", "query"),
    [
        ("hello-world", "app=hello-world"),
        ("hello-world::greet", "app=hello-world&function=greet"),
        ("DEPLOYMENT", "deployment=DEPLOYMENT"),
        ("FUNCTION", "app=hello-world&function=greet"),
    ],
)
def test_logs_ask_for_the_jobs_of_their_target(connected, run, shapes, target, query):
    names = {"DEPLOYMENT": shapes.DEPLOYMENT, "FUNCTION": shapes.FUNCTION}
    connected.script["GET", f"/v1/functions/{shapes.FUNCTION}"] = shapes.Answer(document=shapes.function_document())
    lines_of(connected, shapes, job1=[(1, "one")])

    assert run("logs", names.get(target, target)).code == 0
    asked = [one.query.replace("%3A", ":") for one in connected.asked if one.path == "/v1/jobs"]
    assert asked[0] == f"{query.replace('DEPLOYMENT', shapes.DEPLOYMENT)}&limit=101"


def test_logs_of_what_does_not_exist_name_near_things(connected, run, shapes):
    connected.script["GET", "/v1/jobs"] = shapes.page()

    found = run("logs", "hello-world::gret")

    assert found.code == 5
    assert "Did you mean greet?" in found.err
    assert run("logs", "nothing").code == 5
    assert run("logs", "deployments:").code == 2


def test_logs_of_many_jobs_say_that_older_ones_were_left_out(connected, run, shapes):
    lines_of(connected, shapes, job1=[(1, "one")], job2=[(2, "two")])

    found = run("logs", "hello-world", "--jobs", "1")

    assert "newest 1 jobs" in found.err
    assert run("logs", "hello-world", "--jobs", "1", "--json").json["is_whole"] is False
    assert run("logs", shapes.JOB, "--jobs", "1").code == 2
    assert run("logs", "hello-world", "-f", "--until", "1s").code == 2


def test_following_an_app_shows_new_lines_of_old_and_new_jobs(connected, run, shapes, monkeypatch):
    from apothic.cli import many_logs

    monkeypatch.setattr(many_logs, "PERIOD_S", 0)
    old = shapes.listed_job()
    new = shapes.listed_job(job_id=OTHER, created_at="2026-01-02T03:05:00.000Z")
    lists = iter([[old], [old], [new, old]])
    pages = {"-1": shapes.log_document(0, "first", is_final=False), "0": shapes.log_document(1, "second")}

    def jobs(_, asked):
        listed = next(lists, None)
        return shapes.page(*listed) if listed is not None else shapes.refused(404, "not_found", "The end.")

    connected.script["GET", "/v1/jobs"] = jobs
    connected.script["GET", f"/v1/jobs/{shapes.JOB}/logs"] = lambda _, asked: shapes.Answer(
        document=pages[asked.query.split("&")[0].removeprefix("after=")]
    )
    connected.script["GET", f"/v1/jobs/{OTHER}/logs"] = shapes.Answer(document=shapes.log_document(0, "other"))
    found = run("logs", "hello-world", "--follow", "--jsonl")

    assert found.code == 5
    assert [json.loads(line)["line"] for line in found.out.splitlines()] == ["first", "second", "other"]
    assert "since=2026-01-02T03%3A04%3A05.678Z" in connected.asked[-2].query or "since" in connected.asked[-1].query
