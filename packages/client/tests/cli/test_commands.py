"""What each command asks of the cloud and prints."""

import io
import json
from pathlib import Path

import pytest


def test_app_list_prints_a_plain_table(connected, run):
    found = run("app", "list")

    assert found.code == 0
    assert found.out.splitlines()[0].split() == ["APP", "VERSION", "DEPLOYMENT", "FUNCTIONS", "CREATED"]
    assert found.out.splitlines()[1].split()[:2] == ["hello-world", "3"]
    assert connected.asked[0].headers["authorization"] == "Bearer lk_scripted"


def test_app_list_of_an_empty_cloud_says_what_to_do(connected, run, shapes):
    connected.script["GET", "/v1/apps"] = shapes.Answer(document={"items": [], "next_cursor": None})

    found = run("app", "list")

    assert (found.code, found.out) == (0, "")
    assert "apothic deploy FILE" in found.err


def test_deployment_inspect_prints_fields_and_functions(connected, run, shapes):
    found = run("deployment", "inspect", shapes.DEPLOYMENT)

    assert found.code == 0
    assert "app            hello-world version 3" in found.out
    assert "greet     1    1024 MiB" in found.out


def test_job_status_prints_why_a_job_waits(connected, run, shapes):
    waiting = shapes.job_document(status="queued", started_at=None, waiting_reason="no worker is connected")
    connected.script["GET", f"/v1/jobs/{shapes.JOB}"] = shapes.Answer(document=waiting)

    found = run("job", "status", shapes.JOB)

    assert "waits because  no worker is connected" in found.out
    assert "started" not in found.out


def test_job_cancel_says_what_the_job_is_now(connected, run, shapes):
    assert run("job", "cancel", shapes.JOB).out == f"{shapes.JOB} is cancelled\n"


def test_job_retry_prints_the_new_job(connected, run, shapes):
    other = shapes.JOB[:-1] + "1"
    made = shapes.Answer(status=202, document={"job_id": other, "status": "queued"})
    connected.script["POST", f"/v1/jobs/{shapes.JOB}/retry"] = made

    assert run("job", "retry", shapes.JOB).out == f"{other}\n"
    assert run("job", "retry", shapes.JOB, "--json").json == {"job_id": other, "retry_of": shapes.JOB}


def test_job_retry_of_a_job_that_has_not_ended_says_so(connected, run, shapes):
    refusal = shapes.refused(409, "job_not_ended", "the job is running; only one that has ended is retried")
    connected.script["POST", f"/v1/jobs/{shapes.JOB}/retry"] = refusal

    found = run("job", "retry", shapes.JOB)

    assert (found.code, found.out) == (6, "")
    assert "only one that has ended is retried" in found.err


def test_logs_reads_every_page(connected, run, shapes):
    pages = {
        "-1": shapes.log_document(0, "one", "two", is_final=False),
        "1": shapes.log_document(2, "three", is_final=False),
        "2": shapes.log_document(3, is_final=True),
    }
    connected.script["GET", f"/v1/jobs/{shapes.JOB}/logs"] = lambda _, asked: shapes.Answer(
        document=pages[asked.query.split("&")[0].removeprefix("after=")]
    )

    assert run("logs", shapes.JOB).out == "one\ntwo\nthree\n"
    assert [line["line"] for line in run("logs", shapes.JOB, "--json").json["lines"]] == ["one", "two", "three"]


def test_api_sends_fields_as_query_and_prints_the_body_as_it_is(connected, run, shapes):
    connected.script["GET", "/v1/raw"] = shapes.Answer(body=b"\x00raw")

    found = run("api", "GET", "/v1/raw", "-f", "a=1", "-f", "b=x=y")

    assert (found.code, found.out) == (0, "\x00raw")
    assert connected.asked[-1].query == "a=1&b=x%3Dy"


def test_api_sends_fields_as_body_of_a_post(connected, run, shapes):
    connected.script["POST", "/v1/things"] = shapes.Answer(201, {"made": True})

    assert run("api", "post", "/v1/things", "-f", "name=x").out == '{"made": true}'
    assert connected.asked[-1].json == {"name": "x"}


def test_api_sends_data_as_body_and_fields_as_query(connected, run, shapes, tmp_path: Path):
    (tmp_path / "body.json").write_text('{"n": [1]}')
    connected.script["POST", "/v1/things"] = shapes.Answer(200, {})

    run("api", "POST", "/v1/things", "--data", f"@{tmp_path / 'body.json'}", "-f", "dry=1")

    assert (connected.asked[-1].json, connected.asked[-1].query) == ({"n": [1]}, "dry=1")


@pytest.mark.parametrize("arguments", [("GET", "v1/apps"), ("GET", "http://evil/"), ("GET", "/v1/apps", "-f", "x")])
def test_api_refuses_what_is_no_path_or_field(connected, run, arguments):
    assert run("api", *arguments).code == 2
    assert connected.asked == []


def test_status_shows_what_is_enforced_and_what_is_not(connected, run):
    found = run("status")

    assert found.code == 0
    assert f"cloud     {connected.url}, version 0.1.0" in found.out
    assert "identity  owner of main, key lk_ab…wxyz (main)" in found.out
    assert "executor           sandbox; isolated: user, pid" in found.out
    assert "enforced           memory" in found.out
    assert "not enforced: cpu  no cpu controller" in found.out


def test_status_of_a_cloud_that_is_not_ready_ends_with_9(connected, run, shapes):
    checks = {"ready": False, "role": "standby", "checks": {"store": {"ok": False, "detail": "cannot connect"}}}
    connected.script["GET", "/readyz"] = shapes.Answer(503, checks)

    found = run("status")

    assert found.code == 9
    assert "store is not ready: cannot connect" in found.out


def test_status_without_the_right_to_see_workers_shows_the_rest(connected, run, shapes):
    connected.script["GET", "/v1/workers"] = shapes.refused(403, "forbidden", "Operators only.")

    assert run("status", "--json").json["workers"] is None
    assert "workers   not shown to this key" in run("status").out


@pytest.mark.parametrize(
    ("result", "printed"),
    [
        ("hello, ä", "hello, ä\n"),
        (None, "null\n"),
        ({"a": [1, 2.5, True]}, '{"a": [1, 2.5, true]}\n'),
        ("", "\n"),
    ],
)
def test_run_prints_text_as_text_and_the_rest_as_json(connected, run, shapes, result, printed):
    connected.script["GET", f"/v1/jobs/{shapes.JOB}/outcome"] = shapes.outcome(data=json.dumps(result).encode())

    found = run("run", "greet", "--app-name", "hello-world")

    assert (found.code, found.out) == (0, printed)
    assert found.err.splitlines() == shapes.told("queued", "running, attempt 1", "first", "second", "succeeded")


def test_run_sends_the_payload_as_json_arguments(connected, run, shapes):
    run("run", "greet", "--app-name", "hello-world", "--payload", '{"args": ["wörld"], "kwargs": {"n": 1}}', "-q")

    head, body = connected.last("POST", f"/v1/functions/{shapes.FUNCTION}/calls").frame
    assert head["encoding"] == "json"
    assert json.loads(body) == [["wörld"], {"n": 1}]


@pytest.mark.parametrize("form", ["@file", "-"])
def test_run_reads_the_payload_from_a_file_or_standard_input(connected, run, shapes, tmp_path, monkeypatch, form):
    (tmp_path / "p.json").write_text('{"args": [1]}')
    monkeypatch.setattr("sys.stdin", io.StringIO('{"args": [1]}'))

    run("run", "greet", "--app-name", "hello-world", "--payload", f"@{tmp_path / 'p.json'}" if form == "@file" else "-")

    assert json.loads(connected.last("POST", f"/v1/functions/{shapes.FUNCTION}/calls").frame[1]) == [[1], {}]


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        ("[1]", "it is a JSON list"),
        ("world", "it is not JSON"),
        ('{"args": "x"}', "`args` is a JSON string"),
        ('{"kwargs": [1]}', "`kwargs` is a JSON list"),
        ('{"arg": [1]}', "unknown key 'arg'"),
        ('{"args": [NaN]}', "NaN is no JSON number"),
        ('{"args": [1e999]}', "1e999 is too large a number"),
        ("[" * 100_000, "it is not JSON"),
    ],
)
def test_run_refuses_a_wrong_payload_with_an_example(connected, run, payload, why):
    found = run("run", "greet", "--app-name", "hello-world", "--payload", payload)

    assert found.code == 8
    assert why in found.err
    assert """Example: '{"args": ["world"], "kwargs": {}}'""" in found.err
    assert connected.asked == []


def test_run_detached_prints_the_id_and_waits_for_nothing(connected, run, shapes):
    found = run("run", "greet", "--app-name", "hello-world", "--detach")

    assert (found.code, found.out) == (0, f"{shapes.JOB}\n")
    assert connected.requests()[-1] == f"POST /v1/functions/{shapes.FUNCTION}/calls"
    assert connected.asked[-1].query == "wait_s=0"


def test_run_names_the_type_of_a_result_that_is_no_json(connected, run, shapes):
    import decimal
    import pickle

    connected.script["GET", f"/v1/jobs/{shapes.JOB}/outcome"] = shapes.outcome(
        data=pickle.dumps(decimal.Decimal(1), 5), encoding="pickle"
    )

    found = run("run", "greet", "--app-name", "hello-world")

    assert (found.code, found.out) == (0, "decimal.Decimal\n")
    assert run("run", "greet", "--app-name", "hello-world", "--json").json["not_json"]["type"] == "decimal.Decimal"


ERROR = {
    "type": "builtins.ValueError", "message": "no", "traceback": "Traceback: line 3 of app.py", "code": "exception",
    "causes": [{"type": "builtins.KeyError", "message": "'k'", "traceback": "", "code": "exception", "causes": []}],
}  # fmt: skip


@pytest.mark.parametrize("status", ["failed", "timed_out"])
def test_run_ends_with_100_and_the_remote_traceback_when_the_function_failed(connected, run, shapes, status):
    connected.script["GET", f"/v1/jobs/{shapes.JOB}/outcome"] = shapes.outcome(status, error=ERROR)

    found = run("run", "greet", "--app-name", "hello-world")

    assert (found.code, found.out) == (100, "")
    assert "first\nsecond\n" in found.err
    assert f"{shapes.JOB}: succeeded\nTraceback: line 3 of app.py\n" in found.err
    assert "Caused by:\nbuiltins.KeyError: 'k'" in found.err
    assert f"the function failed in {shapes.JOB}: builtins.ValueError: no" in found.err


def test_a_limit_that_ended_a_job_is_told_once_and_not_as_the_functions_fault(connected, run, shapes):
    reason = "the job waited longer than 2 s for a runner (queue_timeout_s)"
    limit = {"type": "apothic.JobTimedOut", "message": reason, "traceback": "", "code": "queue_timeout", "causes": []}
    connected.script["GET", f"/v1/jobs/{shapes.JOB}/outcome"] = shapes.outcome("timed_out", error=limit)

    found = run("run", "greet", "--app-name", "hello-world", "--quiet")

    assert found.code == 100
    assert found.err == f"Error: {shapes.JOB} ended without a result: {reason} [queue_timeout]\n"


def test_a_remote_failure_as_json_holds_the_whole_chain(connected, run, shapes):
    connected.script["GET", f"/v1/jobs/{shapes.JOB}/outcome"] = shapes.outcome("failed", error=ERROR)

    error = run("run", "greet", "--app-name", "hello-world", "--json").error

    assert (error["code"], error["type"], error["job_id"]) == ("exception", "builtins.ValueError", shapes.JOB)
    assert error["causes"][0]["type"] == "builtins.KeyError"


def test_run_ends_with_103_when_the_job_was_cancelled(connected, run, shapes):
    connected.script["GET", f"/v1/jobs/{shapes.JOB}/outcome"] = shapes.outcome("cancelled")

    assert run("run", "greet", "--app-name", "hello-world").code == 103


def test_run_prints_the_result_even_when_the_output_cannot_be_read(connected, run, shapes):
    connected.script["GET", f"/v1/jobs/{shapes.JOB}/events"] = shapes.refused(404, "not_found", "Gone.")

    found = run("run", "greet", "--app-name", "hello-world")

    assert (found.code, found.out) == (0, "hello, world\n")
    assert "cannot be read: Gone." in found.err


def test_doctor_passes_on_a_sound_machine(connected, run):
    found = run("doctor", "--json")

    states = {check["name"]: check["state"] for check in found.json["checks"]}
    assert {states[name] for name in ("python", "address", "reachable", "clock", "cloud ready", "key")} == {"ok"}
    assert found.code == (0 if found.json["ok"] else 1)


@pytest.mark.parametrize(
    ("path", "answer", "name", "fix"),
    [
        ("/v1/identity", (401, "unauthenticated"), "key", "APOTHIC_API_KEY"),
        ("/healthz", (404, "not_found"), "reachable", "check that this is a cloud"),
        ("/readyz", (500, "internal"), "cloud ready", "log"),
    ],
)
def test_doctor_names_what_fails_and_the_fix(connected, run, shapes, path, answer, name, fix):
    connected.script["GET", path] = shapes.refused(*answer, "Broken.")

    found = run("doctor", "--json")

    check = next(check for check in found.json["checks"] if check["name"] == name)
    assert found.code == 1
    assert found.json["ok"] is False
    assert check["state"] == "failed"
    assert fix in check["fix"]


def test_doctor_sees_a_clock_that_is_wrong(connected, run):
    connected.now = 1_000_000_000.0

    found = run("doctor")

    assert found.code == 1
    assert "ahead of the cloud's" in found.out
    assert "fix: let NTP set the clocks" in found.out


def test_doctor_without_a_cloud_says_how_to_start_one(home, run):
    found = run("doctor")

    assert found.code == 1
    assert "fix: `apothic up`" in found.out


def test_doctor_wants_files_with_keys_to_be_private(connected, run, home):
    file = home / ".config" / "apothic" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text("")
    file.chmod(0o644)

    found = run("doctor")

    assert found.code == 1
    assert f"fix: chmod 600 {file}" in found.out
