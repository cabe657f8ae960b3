"""Processes that are killed: what was acknowledged is there afterwards, and nothing old goes on beside the new."""

import json
import os
import signal
import subprocess
import sys

import pytest

from apothic_server.store.postmaster import find_postmaster
from apothic_server.testing.guarantees import guarantee

from .clouds import server_log, until, with_pid
from .people import APOTHIC, ROOT
from .processes import adopting, command_of, descendants, name_of, newcomers, wait_gone

READY_S_MAX = 10.0


def in_time(again, first):
    """Whether a start kept its promise; beside other work it may take twice as long as a first one, which does more."""
    return again.ready_s < max(READY_S_MAX, 2 * first.ready_s)


@pytest.fixture
def deployed(own_cloud, stranger):
    """Start a cloud that has the app `jobs`."""
    cloud = own_cloud()
    stranger.python(stranger.copy("tests/system/jobs_app.py")).ok()
    return cloud


@guarantee("G1.1", "job_terminal_once")
@guarantee("G14.3", "restart_under_10s")
def test_everything_is_killed_and_the_next_start_finds_its_state(deployed, own_cloud, stranger):
    ended = deployed.spawn("jobs", "echo", "before")
    outcome = deployed.outcome(ended)
    ran = deployed.spawn("jobs", "wait", 1)
    deployed.wait_line(ran, "waiting")
    queued = [deployed.spawn("jobs", "wait", 0) for _ in range(3)]

    deployed.kill_everything()
    again = own_cloud()

    assert in_time(again, deployed)
    assert again.key == deployed.key
    assert again.outcome(ended) == outcome
    assert [again.outcome(job_id)["result"] for job_id in queued] == ["waited"] * 3
    assert again.outcome(ran)["result"] == "waited"
    assert again.job(ran)["attempt"] == 2
    assert stranger.apothic("run", "echo", "--app-name", "jobs", "--payload", '{"args": [1]}').ok().out == "1\n"


@guarantee("G14.3", "restart_under_10s")
def test_jobs_go_on_while_the_server_is_killed_and_started_again(deployed, own_cloud):
    postmaster = find_postmaster(deployed.data / "postgres" / "data")
    during, after = (_began(deployed, "gate") for _ in range(2))
    worker = _worker_of(deployed)
    with adopting():
        below = deployed.kill()
        opened_first, opened_later = _gates(worker)
        os.kill(opened_first, signal.SIGUSR1)
        again = own_cloud()
        os.kill(opened_later, signal.SIGUSR1)
        outcomes = [again.outcome(job_id) for job_id in (during, after)]
        fresh = again.outcome(again.spawn("jobs", "echo", "fresh"))

        assert find_postmaster(again.data / "postgres" / "data") == postmaster
        assert in_time(again, deployed)
        assert _worker_in(again.data) == worker
        assert [outcome["result"] for outcome in outcomes] == ["opened"] * 2
        assert [again.job(job_id)["attempt"] for job_id in (during, after)] == [1, 1]
        assert [again.lines(job_id) for job_id in (during, after)] == [["waiting", "opened"]] * 2
        assert fresh["result"] == "fresh"
        assert again.stop()[0] == 0
        wait_gone(below)


@guarantee("G5.8", "log_loss_is_visible")
def test_every_line_that_is_written_while_the_server_is_killed_is_there_once(deployed, own_cloud):
    began = deployed.spawn("jobs", "chatter")
    deployed.wait_line(began, "9")
    worker = _worker_of(deployed)
    with adopting():
        cloud = deployed
        for _ in range(2):
            below = cloud.kill()
            cloud = own_cloud()
            told = len(cloud.lines(began))
            until(lambda cloud=cloud, told=told: len(cloud.lines(began)) > told, "lines come again")
        (writing,) = _gates(worker)
        os.kill(writing, signal.SIGUSR1)
        outcome = cloud.outcome(began)

        assert cloud.lines(began) == [str(number) for number in range(outcome["result"])]
        assert cloud.job(began)["attempt"] == 1
        assert cloud.stop()[0] == 0
        wait_gone(below)


@guarantee("G4.2", "no_process_left")
def test_down_ends_the_worker_that_a_killed_server_left(deployed, stranger):
    began = _began(deployed, "gate")
    with adopting():
        others = set(descendants(os.getpid()))
        deployed.kill()
        down = stranger.apothic("down", "--data", deployed.data).ok()
        left = [command_of(pid) for pid in newcomers(others)]

    assert began
    assert "stopped the worker and the database that was left" in down.err
    assert left == []
    assert not (deployed.data / "worker" / "worker.json").exists()


def test_a_worker_with_other_settings_is_replaced_and_its_job_runs_again(deployed, own_cloud):
    began = deployed.spawn("jobs", "wait", 1)
    deployed.wait_line(began, "waiting")
    worker = _worker_of(deployed)
    with adopting():
        deployed.kill()
        below = [worker, *descendants(worker)]
        again = own_cloud("--cpus", "1")
        wait_gone(below)

        assert again.outcome(began)["result"] == "waited"
        assert again.job(began)["attempt"] == 2
        again.stop()


def test_a_worker_that_died_with_its_server_is_not_waited_for(deployed, own_cloud):
    began = deployed.spawn("jobs", "wait", 1)
    deployed.wait_line(began, "waiting")
    worker = _worker_of(deployed)
    with adopting():
        os.kill(worker, signal.SIGSTOP)  # it cannot say goodbye
        deployed.kill()
        os.kill(worker, signal.SIGKILL)
        again = own_cloud()

        assert in_time(again, deployed)
        assert again.outcome(began)["result"] == "waited"
        assert again.job(began)["attempt"] == 2
        again.stop()


def test_a_killed_worker_is_replaced_and_its_job_runs_again(deployed):
    began = deployed.spawn("jobs", "wait", 1)
    deployed.wait_line(began, "waiting")
    worker = _worker_of(deployed)
    below = descendants(worker)
    os.kill(worker, signal.SIGKILL)
    wait_gone(below)

    assert deployed.outcome(began)["result"] == "waited"
    assert deployed.job(began)["attempt"] == 2


@guarantee("G14.2", "fsync_error_stops")
def test_a_killed_database_is_started_again_and_calls_go_on(deployed):
    began = deployed.spawn("jobs", "wait", 3)
    deployed.wait_line(began, "waiting")
    _kill_store(deployed)
    until(lambda: _spawned(deployed), "calls are accepted again")

    assert deployed.outcome(began)["result"] == "waited"
    assert deployed.outcome(deployed.spawn("jobs", "echo", "after"))["result"] == "after"
    until(lambda: deployed.request("GET", "/readyz").status == 200, "it is ready again")


@guarantee("G14.2", "fsync_error_stops")
def test_a_database_that_dies_three_times_stops_the_cloud_with_a_sentence(deployed):
    for number in range(1, 4):
        _kill_store(deployed)
        if number < 3:
            _wait_event(deployed, "store.restarted", number)
    status, said = deployed.end()

    assert status == 9
    assert "the database died 3 times within 10 minutes" in said
    assert "[store_crashed]" in said
    assert "Traceback" not in said


def test_a_database_that_goes_away_is_answered_503_and_clients_wait_until_it_is_back(own_cloud, stranger):
    store = _ForeignStore(stranger)
    try:
        store.start()
        cloud = own_cloud("--database-url", store.url, data=stranger.home / "data")
        stranger.python(stranger.copy("tests/system/jobs_app.py")).ok()
        store.stop()
        away, ready = cloud.request("GET", "/v1/apps"), cloud.request("GET", "/readyz")
        others = [cloud.request("GET", "/v1/jobs").status for _ in range(20)]
        patient = stranger.popen(APOTHIC, "app", "list", "--json", stdout=subprocess.PIPE)
        store.start()
        until(lambda: cloud.request("GET", "/readyz").status == 200, "ready again")

        assert (away.status, away.json["code"], away.json["retryable"]) == (503, "unavailable", True)
        assert away.headers["Retry-After"]
        assert others == [503] * 20
        assert (ready.status, ready.json["checks"]["store"]["ok"]) == (503, False)
        assert [app["name"] for app in json.loads(patient.communicate(timeout=60)[0])["items"]] == ["jobs"]
        assert cloud.outcome(cloud.spawn("jobs", "echo", "after"))["result"] == "after"
        assert cloud.stop()[0] == 0
        log = server_log(cloud.data)
        assert [line["event"] for line in log if line["event"] in ("store.away", "store.back")] == [
            "store.away",
            "store.back",
        ]
        assert [line for line in log if "exception" in line or line["event"] in ("loop.failed", "request.cut")] == []
    finally:
        store.stop()


class _ForeignStore:
    """A database server in a process of its own, which a cloud knows by its address only."""

    def __init__(self, person):
        self._person = person
        self._folder = person.home / "foreign"
        self._process = None
        self.url = ""

    def start(self):
        self._process = self._person.popen(
            sys.executable,
            "-m",
            "tests.system.store_owner",
            self._folder,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.url = json.loads(self._process.stdout.readline())["url"]

    def stop(self):
        process, self._process = self._process, None
        if process is not None:
            process.communicate("\n", timeout=60)


def _began(cloud, function):
    job_id = cloud.spawn("jobs", function)
    cloud.wait_line(job_id, "waiting")
    return job_id


def _worker_of(cloud):
    """Return the worker's process."""
    return next(pid for pid in descendants(cloud.pid) if "apothic_worker.cli" in command_of(pid))


def _worker_in(data):
    """Return the process that a data folder names as its worker."""
    return json.loads((data / "worker" / "worker.json").read_text())["pid"]


def _gates(worker):
    """Return the processes of the jobs that wait in `gate`, the one that began first in front."""
    return sorted(pid for pid in descendants(worker) if name_of(pid) == "gate")


def _kill_store(cloud):
    postmaster = find_postmaster(cloud.data / "postgres" / "data")
    below = descendants(postmaster.pid)
    for pid in (postmaster.pid, *below):
        with_pid(pid, signal.SIGKILL)


def _spawned(cloud):
    """Try a call while the store may be away: it is accepted, or answered 503."""
    answer = cloud.request("POST", "/v1/apps/jobs/functions/echo/calls?wait_s=0", {"args": [1]})
    assert answer.status in (202, 503), answer.body
    return answer.status == 202


def _wait_event(cloud, name, times):
    def has_come():
        return sum(line["event"] == name for line in server_log(cloud.data)) >= times

    until(has_come, f"{name} {times} times")
