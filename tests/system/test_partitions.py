"""A worker that is cut off from its server stops user code before anybody else may begin it again."""

import os
import select
import signal
import socket
import sys
import threading
import time
from contextlib import closing, suppress
from datetime import datetime
from urllib.parse import urlsplit

import pytest

from apothic_server.testing.guarantees import guarantee

from .clouds import until
from .processes import descendants, name_of, wait_gone

GRACE_S = 3
ROUNDS = 3


class Proxy:
    """Relays TCP connections until it is cut; then it keeps them open and passes nothing on."""

    def __init__(self, url):
        parts = urlsplit(url)
        self._target = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._is_cut = threading.Event()
        self._open = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def cut(self):
        self._is_cut.set()

    def mend(self):
        """Relay new connections again; those that were cut stay so."""
        self._is_cut = threading.Event()

    def close(self):
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self):
        with suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                there = socket.create_connection(self._target)
                self._open += [here, there]
                for ends in ((here, there), (there, here)):
                    threading.Thread(target=self._relay, args=(*ends, self._is_cut), daemon=True).start()

    def _relay(self, source, sink, is_cut):
        with suppress(OSError):
            while data := source.recv(65536):
                if is_cut.is_set():
                    continue
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


class Death:
    """Notes when a process ends."""

    def __init__(self, pid):
        self._handle = os.pidfd_open(pid)
        self._at = None
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def at(self):
        """Return when it ended, in seconds since 1970."""
        self._thread.join(30)
        assert self._at is not None, "it never ended"
        return self._at

    def _watch(self):
        select.select([self._handle], [], [])
        self._at = time.time()
        os.close(self._handle)


@pytest.fixture
def remote_worker(stranger):
    """Start workers that count as those of other machines; they end with the test."""
    running = []

    def start(cloud, url, name, cpus=1):
        token = cloud.data / "secrets" / "worker-token"
        command = [sys.executable, "-m", "apothic_worker.cli", "run", "--url", url, "--token-file", token]
        with (stranger.home / f"{name}.log").open("w") as log:
            data = stranger.home / f"worker-{name}"
            running.append(stranger.popen(*command, "--data", data, "--name", name, "--cpus", str(cpus), stderr=log))
        until(lambda: _is_live(cloud, name), f"worker {name} is linked")
        return running[-1]

    yield start
    for process in running:
        process.terminate()
    for process in running:
        process.wait(30)


@guarantee("G3.2", "self_fence_on_partition")
def test_user_code_of_a_worker_that_is_cut_off_is_dead_before_its_job_begins_again(own_cloud, stranger, remote_worker):
    cloud = own_cloud("--cpus", "0.1", "--disconnect-grace-s", str(GRACE_S))
    stranger.python(stranger.copy("tests/system/jobs_app.py")).ok()
    for number in range(ROUNDS):
        with closing(Proxy(cloud.url)) as proxy:
            first = remote_worker(cloud, proxy.url, f"first-{number}")
            job_id = cloud.spawn("jobs", "stubborn")
            cloud.wait_line(job_id, "waiting")
            died = Death(next(pid for pid in descendants(first.pid) if name_of(pid) == "stubborn"))
            second = remote_worker(cloud, cloud.url, f"second-{number}")
            proxy.cut()
            began = _second_start(cloud, job_id)
            died_at = died.at()
        below = [*descendants(first.pid), *descendants(second.pid)]
        cloud.request("POST", f"/v1/jobs/{job_id}/cancel")
        for process in (first, second):
            for _ in range(2):  # the second one waits for no user code
                process.send_signal(signal.SIGTERM)
            process.wait(60)
        wait_gone(below)

        assert died_at < began


@guarantee("G3.2", "self_fence_on_partition")
def test_a_function_with_a_long_grace_goes_on_while_its_worker_is_cut_off_and_its_neighbour_runs_elsewhere(
    own_cloud, stranger, remote_worker
):
    cloud = own_cloud("--cpus", "0.1", "--disconnect-grace-s", str(GRACE_S))
    stranger.python(stranger.copy("tests/system/jobs_app.py")).ok()
    with closing(Proxy(cloud.url)) as proxy:
        far = remote_worker(cloud, proxy.url, "far", cpus=2)
        kept, lost = cloud.spawn("jobs", "patient"), cloud.spawn("jobs", "stubborn")
        for job_id in (kept, lost):
            cloud.wait_line(job_id, "waiting")
        patient, stubborn = (_below(far, name) for name in ("patient", "stubborn"))
        died = Death(stubborn)
        remote_worker(cloud, cloud.url, "near")
        proxy.cut()
        began = _second_start(cloud, lost)
        died_at, during = died.at(), cloud.job(kept)
        is_same = _below(far, "patient") == patient
        proxy.mend()
        os.kill(patient, signal.SIGUSR1)
        outcome, after = cloud.outcome(kept), cloud.job(kept)
        cloud.request("POST", f"/v1/jobs/{lost}/cancel")

    assert died_at < began
    assert is_same
    assert (during["attempt"], during["status"]) == (1, "running")
    assert (outcome["result"], after["attempt"]) == ("opened", 1)


def _below(worker, name):
    """Return the process of user code that calls itself so."""
    return next(pid for pid in descendants(worker.pid) if name_of(pid) == name)


def _is_live(cloud, name):
    listed = cloud.request("GET", "/v1/workers").json["items"]
    return any(worker["name"] == name and worker["status"] == "live" for worker in listed)


def _second_start(cloud, job_id):
    """Wait until a job runs for the second time; return since when, in seconds since 1970."""

    def is_running():
        job = cloud.job(job_id)
        return job if (job["attempt"], job["status"]) == (2, "running") else None

    return datetime.fromisoformat(until(is_running, "the second attempt")["started_at"]).timestamp()
