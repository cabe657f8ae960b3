"""What can happen to a job, from outside: SDK and API on one side, the sandbox on the other."""

import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from apothic_server.testing.guarantees import guarantee

from .clouds import until
from .processes import parents

FAR_FUTURE_S = 300


@guarantee("G4.1", "cancel_linearizable")
def test_a_running_job_is_cancelled_and_the_next_one_runs(cloud, jobs_app):
    job_id = cloud.spawn(jobs_app, "wait", FAR_FUTURE_S)
    cloud.wait_line(job_id, "waiting")

    answers = [cloud.request("POST", f"/v1/jobs/{job_id}/cancel").status for _ in range(2)]

    assert answers == [200, 200]
    assert cloud.outcome(job_id)["status"] == "cancelled"
    assert cloud.outcome(cloud.spawn(jobs_app, "wait", 0))["result"] == "waited"


def test_a_queued_job_is_cancelled_before_it_ran(cloud, jobs_app):
    running = cloud.spawn(jobs_app, "wait", FAR_FUTURE_S)
    cloud.wait_line(running, "waiting")
    queued = cloud.spawn(jobs_app, "wait", FAR_FUTURE_S)

    answer = cloud.request("POST", f"/v1/jobs/{queued}/cancel").json
    outcome = cloud.outcome(queued)
    cloud.request("POST", f"/v1/jobs/{running}/cancel")

    assert answer == {"job_id": queued, "status": "cancelled"}
    assert (outcome["status"], outcome["attempt"], cloud.lines(queued)) == ("cancelled", 0, [])
    assert cloud.outcome(running)["status"] == "cancelled"


@guarantee("G4.2", "cancel_spares_neighbours")
def test_cancelling_one_of_two_calls_in_a_runner_spares_the_other(cloud, jobs_app):
    spared, cancelled = (cloud.spawn(jobs_app, "neighbours", seconds) for seconds in (2, FAR_FUTURE_S))
    for job_id in (spared, cancelled):
        cloud.wait_line(job_id, "waiting")
    cloud.request("POST", f"/v1/jobs/{cancelled}/cancel")

    assert cloud.outcome(cancelled)["status"] == "cancelled"
    assert cloud.outcome(spared)["result"] == "undisturbed"


def test_a_job_that_runs_too_long_times_out_with_its_output_kept(cloud, jobs_app, person):
    job_id = cloud.spawn(jobs_app, "too_long")
    outcome = cloud.outcome(job_id)
    ran = person.apothic("run", "too_long", "--app-name", jobs_app, "--json")

    assert (outcome["status"], outcome["error"]["code"]) == ("timed_out", "timeout")
    assert cloud.lines(job_id) == ["waiting"]
    assert (ran.status, ran.error["code"]) == (100, "timeout")


def test_an_exception_arrives_with_its_cause_and_the_remote_traceback(cloud, jobs_app, person):
    ran = person.script(
        """
        from apothic import RemoteFunction
        from apothic.errors import RemoteExecutionError
        try:
            RemoteFunction.from_name("jobs", "fail").remote("parcel")
        except RemoteExecutionError as error:
            print(error.type_name, error.message, error.code, sep="|")
            print("raise ValueError" in error.traceback, "_runtime" in error.traceback)
            print(type(error.__cause__).__name__, error.__cause__.type_name, error.__cause__.message, sep="|")
        """
    ).ok()
    shown = person.apothic("run", "fail", "--app-name", jobs_app, "--payload", '{"args": ["parcel"]}')

    assert ran.out.splitlines() == [
        "builtins.ValueError|no parcel here|exception",
        "True False",
        "RemoteExecutionError|builtins.KeyError|'parcel'",
    ]
    assert shown.status == 100
    assert "jobs_app.py" in shown.err
    assert "Caused by:" in shown.err


def test_an_async_function_runs(cloud, jobs_app):
    assert cloud.outcome(cloud.spawn(jobs_app, "double", 21))["result"] == 42


def test_the_output_of_calls_in_one_runner_is_kept_apart_and_in_order(cloud, jobs_app):
    spoken = {name: cloud.spawn(jobs_app, "speak", name, 300) for name in ("first", "second", "third")}

    for name, job_id in spoken.items():
        assert cloud.outcome(job_id)["result"] == 300
        logs = cloud.request("GET", f"/v1/jobs/{job_id}/logs").json
        by_stream = {
            stream: [line["line"] for line in logs["lines"] if line["stream"] == stream]
            for stream in ("stdout", "stderr")
        }
        assert by_stream["stdout"] == [*(f"{name} {number}" for number in range(300)), f"{name} without Python"]
        assert by_stream["stderr"] == [f"{name} complains"]
        assert [line["index"] for line in logs["lines"]] == sorted({line["index"] for line in logs["lines"]})
        assert logs["is_final"]


@pytest.mark.parametrize(
    ("function", "arguments", "code"),
    [
        ("die", [int(signal.SIGKILL)], "killed_by_signal"),
        ("die", [int(signal.SIGSEGV)], "killed_by_signal"),
        ("leave", [], "exited"),
        ("grow", [512], "out_of_memory"),
        ("unsendable", [], "result_unserializable"),
    ],
)
def test_a_call_that_ends_badly_says_why_and_harms_no_other(cloud, jobs_app, function, arguments, code):
    machine = cloud.request("GET", "/v1/workers").json["items"][0]["machine"]
    if code == "out_of_memory" and "memory" not in machine["enforced"]:
        pytest.skip(f"memory is not limited here: {machine['not_enforced'].get('memory')}")

    outcome = cloud.outcome(cloud.spawn(jobs_app, function, *arguments))

    assert (outcome["status"], outcome["error"]["code"]) == ("failed", code)
    assert cloud.outcome(cloud.spawn(jobs_app, "echo", "fine"))["result"] == "fine"


@guarantee("G4.2", "no_process_left")
def test_processes_that_a_call_detached_are_gone_when_it_has_ended(cloud, jobs_app):
    outcome = cloud.outcome(cloud.spawn(jobs_app, "crowd"))
    left = [pid for pid in parents() if _name_of(pid) == "crowd"]

    assert outcome["result"] == "left"
    assert left == []


def test_a_new_deployment_runs_for_new_calls_and_the_old_one_ends_what_it_began(cloud, person):
    source = """
        import threading
        from apothic import App
        app = App("versions")

        @app.function()
        def version(seconds=0):
            print("waiting", flush=True)
            threading.Event().wait(seconds)
            return {number}
        """
    person.apothic("deploy", person.write("versions.py", source.format(number=1))).ok()
    assert cloud.outcome(cloud.spawn("versions", "version"))["result"] == 1
    began_before = cloud.spawn("versions", "version", 2)
    cloud.wait_line(began_before, "waiting")
    person.apothic("deploy", person.write("versions.py", source.format(number=2))).ok()

    assert cloud.outcome(cloud.spawn("versions", "version"))["result"] == 2
    assert cloud.outcome(began_before)["result"] == 1


def test_ctrl_c_in_a_remote_call_cancels_the_job(cloud, jobs_app, person):
    script = person.write(
        "interrupted.py",
        """
        from apothic import RemoteFunction
        RemoteFunction.from_name("jobs", "wait").remote(300)
        """,
    )
    assert _jobs_that_run(cloud) == 0
    process = person.popen(sys.executable, script, stderr=subprocess.PIPE)
    until(lambda: _jobs_that_run(cloud), "the call runs")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)

    assert process.returncode == -signal.SIGINT
    assert said.rstrip().splitlines()[-1].startswith("KeyboardInterrupt")
    until(lambda: _jobs_that_run(cloud) == 0, "the job has ended")


def _jobs_that_run(cloud):
    text = cloud.request("GET", "/metrics").body.decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("apothic_jobs_unfinished{"))


def _name_of(pid):
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
