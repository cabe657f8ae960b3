"""The client of the release before, out of the history, against this server: it works, or is refused by name."""

import io
import os
import subprocess
import sys
import sysconfig
import tarfile

import pytest

from apothic_server.testing.skips import note

from .people import ROOT

PREVIOUS = "ec1089efab5b807c2de712932572b9cf46495e48"
"""Commit of the release before; step 1 of docs/handbook/releasing.md sets it."""

PROGRAM = """
import asyncio, json, sys, time
import apothic
from apothic import _serialize
from apothic import (
    App, ConflictError, Deployment, InvalidRequestError, JobCancelledError, NotFoundError, RemoteExecutionError,
    RemoteFunction,
)

app = App("previous")

@app.function()
def add(a, b=1):
    print("adding")
    return a + b

@app.function()
def count(n):
    yield from range(n)

@app.function()
def fail():
    raise ValueError("as expected")

@app.function(schedule=apothic.Cron("0 0 29 2 *"))
def hold():
    time.sleep(60)

@app.function()
def apply(function, value):
    return function(value)

def refusal(kind, act):
    try:
        act()
    except kind as error:
        return [type(error).__name__, error.code]

def main():
    assert apothic.__file__.startswith(sys.argv[1]), apothic.__file__
    first = app.deploy()
    told = {"remote": [add.remote(1), add.remote((1,), b=(2,))]}
    job = add.spawn(2)
    told["job"] = [job.wait(), job.status(), job.logs(), [event.event for event in job.watch()]]
    told["items"] = [list(count.remote_gen(3)), list(count.spawn(2).wait_gen())]
    told["aio"] = asyncio.run(add.aio.remote(5))
    told["failed"] = refusal(RemoteExecutionError, fail.remote)
    held = hold.spawn()
    held.cancel()
    told["cancelled"] = refusal(JobCancelledError, held.wait)
    told["retried"] = job.retry().wait()
    looked_up = RemoteFunction.from_name("previous", "add")
    told["looked up"] = [looked_up.remote(1), looked_up.timeout_s]
    told["missing"] = refusal(NotFoundError, lambda: RemoteFunction.from_name("previous", "ad"))
    client = app.client
    told["schedules"] = [one.function for one in client.list_schedules("previous")]
    told["apps"] = [one.name for one in client.list_apps() if one.name == "previous"]
    told["live"] = App.lookup("previous").deployment.deployment_id == first
    told["rollback"] = refusal(ConflictError, lambda: client.rollback("previous"))
    _serialize.PYTHON_MINOR = "3.99"
    told["other python"] = refusal(InvalidRequestError, lambda: apply.remote(lambda value: value, 1))
    told["stopped"] = Deployment(first, client).stop()
    told["closed"] = refusal(ConflictError, lambda: add.remote(1))
    print(json.dumps(told))

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def previous(tmp_path, request):
    """The source of the previous client; None where the history is not there."""
    command = ["git", "-C", str(ROOT), "archive", "--format=tar", PREVIOUS, "packages/client/src"]
    found = subprocess.run(command, capture_output=True)
    if found.returncode:
        note(request.config, f"the previous client is not tested: commit {PREVIOUS[:7]} is not in this history")
        return None
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as archive:
        archive.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return tmp_path / "packages" / "client" / "src"


def test_the_previous_client_works_with_this_server(cloud, person, previous):
    if previous is None:
        return
    path = os.pathsep.join([str(previous), sysconfig.get_path("purelib")])
    environment = {"PYTHONPATH": path, "APOTHIC_QUIET": "1"}
    program = person.write("previous.py", PROGRAM)
    told = person.run(sys.executable, "-S", program, previous, env=environment).ok().json
    listed = person.run(
        sys.executable, "-S", "-m", "apothic", "job", "list", "--app", "previous", "--json", env=environment
    ).ok()

    told["job"][3] = [kind for kind in told["job"][3] if kind != "job.status"]  # a cold start has one more
    assert told == {
        "remote": [2, [1, 2]],
        "job": [3, "succeeded", ["adding"], ["job.queued", "job.running", "job.log", "job.result", "job.end"]],
        "items": [[0, 1, 2], [0, 1]],
        "aio": 6,
        "failed": ["RemoteExecutionError", "exception"],
        "cancelled": ["JobCancelledError", "cancelled"],
        "retried": 3,
        "looked up": [2, 600],
        "missing": ["NotFoundError", "not_found"],
        "schedules": ["hold"],
        "apps": ["previous"],
        "live": True,
        "rollback": ["ConflictError", "no_earlier_version"],
        "other python": ["InvalidRequestError", "python_mismatch"],
        "stopped": 0,
        "closed": ["ConflictError", "app_stopped"],
    }
    assert len(listed.json["items"]) >= 8
