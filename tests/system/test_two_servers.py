"""Two server processes and a worker on one PostgreSQL: both serve, one dispatches, the other takes over."""

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
import threading

import asyncpg
import pytest

from apothic_server.testing.guarantees import guarantee

from .clouds import RunningCloud, until
from .people import ROOT

TAKEN_OVER_S_MAX = 10.0
PAGE = ROOT / "docs/concepts/more-than-one-server.md"


@pytest.fixture
def database(stranger):
    """A database server in a process of its own; returns its address."""
    process = stranger.popen(
        sys.executable,
        "-m",
        "tests.system.store_owner",
        stranger.home / "foreign",
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    yield json.loads(process.stdout.readline())["url"]
    process.communicate("\n", timeout=60)


@pytest.fixture
def servers(own_cloud, stranger, database):
    """The first server, with a worker beside it, and a second one without; the app `jobs` is deployed."""
    first = own_cloud("--database-url", database, data=stranger.home / "first")
    stranger.python(stranger.copy("tests/system/jobs_app.py")).ok()
    second = beside(stranger, database, first)
    yield first, second
    second.close()


def beside(person, database, first, name="second"):
    """Start another server of the cloud of `first`, with the command that the documentation shows."""
    endpoint = person.home / f"{name}.json"
    shown = PAGE.read_text("utf-8")
    command = next(line for line in shown.splitlines() if line.startswith("$ apothic up") and "--shared" in line)
    values = {"$DATABASE_URL": database, "/srv/apothic/first": str(first.data)}
    words = [values.get(word, word) for word in shlex.split(command)[3:]]
    place = words.index("--data")
    options = [*words[:place], *words[place + 2 :]]
    return RunningCloud(person, *options, "--endpoint", endpoint, data=person.home / name, endpoint=endpoint)


def test_both_serve_and_one_dispatches(servers):
    first, second = servers
    roles = [one.request("GET", "/readyz").json["role"] for one in servers]
    job = second.spawn("jobs", "echo", "there")

    assert roles == ["dispatcher", "standby"]
    assert second.key == first.key
    assert second.request("GET", "/readyz").status == 200
    assert (first.outcome(job)["result"], second.outcome(job)["result"]) == ("there", "there")
    call = second.request("POST", "/v1/apps/jobs/functions/echo/calls?wait_s=50", {"args": ["at once"]})
    assert call.json["result"] == "at once"


def test_the_second_server_cancels_and_follows_what_the_first_one_runs(servers):
    first, second = servers
    job = first.spawn("jobs", "wait", 60)
    second.wait_line(job, "waiting")

    cancelled = second.request("POST", f"/v1/jobs/{job}/cancel")

    assert cancelled.json["status"] == "cancelling"
    assert first.outcome(job)["status"] == "cancelled"
    assert kinds(second, job)[-1] == "job.end"


@guarantee("G14.3", "restart_under_10s")
@guarantee("G1.1", "job_terminal_once")
def test_when_the_dispatcher_is_killed_the_other_one_takes_over_and_no_job_is_lost(servers, database):
    first, second = servers
    running = [first.spawn("jobs", "wait", 20)]
    first.wait_line(running[0], "waiting")
    waiting = [one.spawn("jobs", "echo", number) for number in range(3) for one in servers]
    answers = []
    caller = threading.Thread(target=lambda: answers.append(second.outcome(running[0])))
    caller.start()
    before = term(database)

    first.process.kill()
    taken = until(lambda: (now := term(database))["term"] > before["term"] and now, "the role is taken over", 60)
    outcomes = [second.outcome(job) for job in waiting]
    caller.join()

    assert (taken["taken_at"] - before["renewed_at"]).total_seconds() <= TAKEN_OVER_S_MAX
    assert sorted(outcome["result"] for outcome in outcomes) == [0, 0, 1, 1, 2, 2]
    assert (answers[0]["result"], second.job(running[0])["attempt"]) == ("waited", 1)
    assert second.request("GET", "/readyz").json["role"] == "dispatcher"
    for job in [*running, *waiting]:
        assert kinds(second, job).count("job.end") == 1


def test_a_dispatcher_that_was_frozen_past_its_term_serves_on_as_a_standby(servers, database):
    first, _ = servers
    before = term(database)
    os.kill(first.pid, signal.SIGSTOP)
    until(lambda: term(database)["term"] > before["term"], "the role is taken over", 60)
    os.kill(first.pid, signal.SIGCONT)

    until(lambda: first.request("GET", "/readyz").json["role"] == "standby", "the first one stands by", 60)
    jobs = [one.spawn("jobs", "echo", number) for number in range(3) for one in servers]

    assert [first.outcome(job)["status"] for job in jobs] == ["succeeded"] * 6
    assert first.request("GET", "/readyz").status == 200


def test_a_stop_in_good_order_hands_the_role_over(servers, database):
    first, second = servers
    before = term(database)
    status, _ = first.stop()

    until(lambda: term(database)["term"] > before["term"], "the role is taken over", 60)
    assert status == 0
    assert second.request("GET", "/readyz").json["role"] == "dispatcher"


def test_a_server_with_another_folder_is_refused(servers, stranger, database):
    command = ("up", "--port", "0", "--no-endpoint", "--database-url", database, "--data", stranger.home / "third")
    refused = stranger.apothic(*command, "--no-worker")

    assert refused.status == 1
    assert "[wrong_folder]" in refused.err
    assert "--shared" in refused.err


def kinds(server, job):
    """Return the kinds of a job's events in order."""
    answer = server.request("GET", f"/v1/jobs/{job}/events", headers={"Accept": "application/json"})
    return [event["event"] for event in answer.json["events"]]


def term(database):
    """Return the dispatcher's row as the store has it: its term, and when it was renewed or taken."""

    async def read():
        connection = await asyncpg.connect(database)
        try:
            return await connection.fetchrow(
                "SELECT term, expires_at - interval '5 seconds' AS renewed_at,"
                " expires_at - interval '5 seconds' AS taken_at FROM dispatcher"
            )
        finally:
            await connection.close()

    return asyncio.run(read())
