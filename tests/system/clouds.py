"""Clouds as the tests run them: `apothic up` in a process, and requests to it."""

import http.client
import json
import os
import select
import signal
import subprocess
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from .people import APOTHIC
from .processes import descendants, wait_gone

READY_S = 90.0
STOP_S = 45.0
TICK_S = 0.02
DISK_FLOOR_MB = 64
"""Not the default, whose ballast would take 512 MiB from the disk for each cloud of a test."""


class Answer:
    """One answer of the API."""

    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self):
        return json.loads(self.body)


class RunningCloud:
    """One `apothic up` of a person."""

    def __init__(self, person, *options, data=None, endpoint=None):
        self.person = person
        self.data = data or person.home / ".apothic" / "data"
        began = time.monotonic()
        self.process = person.popen(
            *(APOTHIC, "up", "--port", "0", "--data", self.data, "--disk-floor-mb", DISK_FLOOR_MB, *options),
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.told = self._hear("Ctrl-C stops it.")
        self.ready_s = time.monotonic() - began
        where = json.loads((endpoint or person.home / ".apothic" / "endpoint.json").read_text())
        self.url, self.key = where["url"], where["key"]

    @property
    def pid(self):
        return self.process.pid

    def request(self, method, path, body=None, *, key=None, headers=None, deadline_s=70.0):
        """Send one request; `body` is sent as JSON."""
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=deadline_s)
        sent = {"Authorization": f"Bearer {key or self.key}", **(headers or {})}
        if body is not None:
            sent["Content-Type"] = "application/json"
        try:
            connection.request(method, path, None if body is None else json.dumps(body), sent)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def spawn(self, app, function, *args, **kwargs):
        """Start a job and return its id."""
        path = f"/v1/apps/{app}/functions/{function}/calls?wait_s=0"
        answer = self.request("POST", path, {"args": args, "kwargs": kwargs})
        assert answer.status == 202, answer.body
        return answer.json["job_id"]

    def job(self, job_id):
        """Return a job as the API has it."""
        return self.request("GET", f"/v1/jobs/{job_id}").json

    def outcome(self, job_id):
        """Wait for the end of a job."""
        answer = self.request("GET", f"/v1/jobs/{job_id}/outcome?wait_s=50")
        assert answer.status == 200, (answer.body, self.request("GET", f"/v1/jobs/{job_id}/events").body)
        return answer.json

    def lines(self, job_id):
        """Return what a job has written so far."""
        return [line["line"] for line in self.request("GET", f"/v1/jobs/{job_id}/logs").json["lines"]]

    def events_of(self, job_id, kind):
        """Return what the events of one kind say that a job has had so far, in order."""
        page = self.request("GET", f"/v1/jobs/{job_id}/events?types={kind}", headers={"Accept": "application/json"})
        return [event["data"] for event in page.json["events"]]

    def wait_line(self, job_id, text):
        """Wait until a job has written a line that holds `text`, and return that line."""
        return until(lambda: next((line for line in self.lines(job_id) if text in line), None), f"{job_id}: {text}")

    def stop(self):
        """Stop it as Ctrl-C does; return its exit status and what it said since it was ready."""
        self.process.send_signal(signal.SIGINT)
        return self.end()

    def end(self):
        """Wait for its end; return its exit status and what it said since it was ready."""
        try:
            _, said = self.process.communicate(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return self.process.returncode, said

    def kill(self):
        """Kill this process and no other; return the processes that were below it."""
        below = descendants(self.pid)
        self.process.kill()
        self.process.communicate(timeout=STOP_S)
        return below

    def kill_everything(self):
        """Kill it with everything below it, at once."""
        below = descendants(self.pid)
        for pid in [self.pid, *below]:
            with_pid(pid, signal.SIGKILL)
        self.process.communicate(timeout=STOP_S)
        wait_gone(below)

    def close(self):
        """Leave nothing, whatever a test did."""
        if self.process.poll() is None:
            self.stop()
        elif not self.process.stderr.closed:
            self.process.stderr.close()
        self.person.apothic("down", "--data", self.data)

    def _hear(self, last):
        """Read what the process says until a line that holds `last`."""
        heard, deadline = b"", time.monotonic() + READY_S
        descriptor = self.process.stderr.fileno()
        while last.encode() not in heard:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(descriptor, 65536) if ready else b""
            if not chunk:
                self.process.kill()
                self.process.communicate()
                raise AssertionError(f"the cloud did not start: {heard.decode()}")
            heard += chunk
        return heard.decode()


def with_pid(pid, number):
    """Send a signal to a process that may be gone already."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def until(condition, what, deadline_s=30.0):
    """Ask until the answer is true, and return it; for what the outside can only ask for."""
    pause, deadline = threading.Event(), time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {deadline_s:g} s: {what}"
        pause.wait(TICK_S)
    return found


def server_log(data: Path):
    """Return the events that the server has logged."""
    return [json.loads(line) for line in (data / "server.log").read_text().splitlines()]
