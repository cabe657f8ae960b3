"""Everything a person can get wrong ends with a sentence, a stable code and the documented exit status."""

import json
import os
import socket

import pytest

from .clouds import RunningCloud
from .people import ROOT, Person, says_no_traceback

SAMPLE = ROOT / "examples/hello_world.py"
ANOTHER_KEY = "lk_" + "0" * 38


def test_an_unknown_function_is_answered_with_near_names(cloud, jobs_app, person):
    ran = person.apothic("run", "eho", "--app-name", jobs_app)
    answer = cloud.request("POST", f"/v1/apps/{jobs_app}/functions/eho/calls", {"args": []})

    assert (ran.status, says_no_traceback(ran)) == (5, True)
    assert "echo" in ran.err
    assert (answer.status, answer.json["code"], "echo" in answer.json["detail"]) == (404, "not_found", True)


def test_an_unknown_app_is_answered_with_near_names(cloud, jobs_app, person):
    ran = person.apothic("run", "echo", "--app-name", "jubs")
    answer = cloud.request("GET", "/v1/apps/jubs")

    assert (ran.status, says_no_traceback(ran), jobs_app in ran.err) == (5, True, True)
    assert (answer.status, answer.json["code"], jobs_app in answer.json["detail"]) == (404, "not_found", True)


def test_an_unknown_job_is_not_found(cloud, person):
    ran = person.apothic("job", "status", "jobs:" + "0" * 26, "--json")

    assert (ran.status, ran.error["code"]) == (5, "not_found")


@pytest.mark.parametrize("key", [ANOTHER_KEY, "nonsense"])
def test_a_wrong_key_is_refused(cloud, person, key):
    environment = {"APOTHIC_BASE_URL": cloud.url, "APOTHIC_API_KEY": key}
    ran = person.apothic("app", "list", "--json", env=environment)
    program = person.python("-c", "import apothic; apothic.RemoteFunction.from_name('a', 'b')", env=environment)

    assert (ran.status, ran.error["code"]) == (3, "unauthenticated")
    assert "AuthError" in program.err.strip().splitlines()[-1]


@pytest.mark.parametrize("arguments", [["app", "list"], ["status"], ["deploy", str(SAMPLE)]])
def test_without_a_cloud_every_command_says_how_to_start_one(stranger, arguments):
    ran = stranger.apothic(*arguments)

    assert (ran.status, says_no_traceback(ran)) == (9, True)
    assert "`apothic up`" in ran.err


def test_the_sample_without_a_cloud_says_how_to_start_one(stranger):
    ran = stranger.python(SAMPLE)

    assert ran.status == 1
    assert "CloudNotRunning" in ran.err
    assert "`apothic up`" in ran.err


@pytest.mark.parametrize(
    ("source", "code", "tells"),
    [
        ("app = (\n", "syntax_error", "bad.py:1"),
        ("x = 1\n", "no_app", "App("),
        ("from apothic import App\napp = App('bad')\n", "empty_app", "function"),
        ("from apothic import App\napp = App('bad')\nbroken = 1 / 0\n", "load_failed", "bad.py:3"),
        ("from apothic import App\nimport missing_module\napp = App('bad')\n", "load_failed", "missing_module"),
        ("from apothic import App\napp = App('not a name')\n", "invalid", "name"),
        ("from apothic import App\na = App('bad')\nb = App('worse')\n", "several_apps", "bad.py:a"),
    ],
)
def test_a_wrong_app_file_is_refused_before_anything_is_sent(cloud, person, source, code, tells):
    file = person.write("bad.py", source)
    ran = person.apothic("deploy", file, "--json")
    shown = person.apothic("deploy", file)

    assert (ran.status, ran.error["code"], tells in ran.error["detail"]) == (8, code, True), ran.err
    assert (shown.status, says_no_traceback(shown)) == (8, True)
    assert cloud.request("GET", "/v1/apps/bad").status == 404


@pytest.mark.parametrize(
    ("option", "tells"),
    [
        ("cpu=0", "cpu"),
        ("cpu='two'", "cpu"),
        ("memory_mb=1", "memory_mb"),
        ("timeout_s=-1", "timeout_s"),
        ("timeout_s=True", "timeout_s"),
        ("retries=101", "retries"),
        ("max_containers=0", "max_containers"),
        ("gpu=3", "gpu"),
        ("schedule='daily'", "schedule"),
    ],
)
def test_an_option_of_the_wrong_type_or_range_is_named(cloud, person, option, tells):
    source = f"from apothic import App\napp = App('bad')\n\n@app.function({option})\ndef work():\n    pass\n"
    ran = person.apothic("deploy", person.write("bad.py", source))

    assert (ran.status, says_no_traceback(ran), tells in ran.err) == (8, True, True), ran.err
    assert cloud.request("GET", "/v1/apps/bad").status == 404


def test_two_functions_of_one_name_are_refused(cloud, person):
    twice = "\n@app.function()\ndef work():\n    pass\n" * 2
    ran = person.apothic(
        "deploy", person.write("bad.py", f"from apothic import App\napp = App('bad')\n{twice}"), "--json"
    )

    assert (ran.status, ran.error["code"]) == (6, "duplicate_name")
    assert "work" in ran.error["detail"]


def test_a_file_that_is_not_there_is_wrong_usage(cloud, person):
    ran = person.apothic("deploy", "missing.py")

    assert (ran.status, says_no_traceback(ran), "missing.py" in ran.err) == (2, True, True)


@pytest.mark.parametrize("payload", ["{", "[1]", '{"arguments": []}', '{"args": 1}'])
def test_a_wrong_payload_is_refused(cloud, jobs_app, person, payload):
    ran = person.apothic("run", "echo", "--app-name", jobs_app, "--payload", payload, "--json")

    assert (ran.status, ran.error["code"]) == (8, "payload_invalid")


def test_wrong_arguments_fail_the_job_with_the_words_of_python(cloud, jobs_app, person):
    ran = person.apothic("run", "echo", "--app-name", jobs_app, "--json")

    assert (ran.status, ran.error["code"]) == (100, "exception")
    assert "missing 1 required positional argument" in ran.error["message"]


def test_a_module_that_runners_do_not_have_fails_the_job_and_names_the_line(cloud, person):
    source = """
        import os
        from apothic import App
        if "HOME" not in os.environ or os.environ["HOME"] != "{home}":
            import module_of_this_machine
        app = App("missing")

        @app.function()
        def work():
            return 1
        """
    person.apothic("deploy", person.write("missing.py", source.format(home=person.home))).ok()
    ran = person.apothic("run", "work", "--app-name", "missing", "--json")

    assert (ran.status, ran.error["code"]) == (100, "load_failed")
    assert ran.error["type"] == "builtins.ModuleNotFoundError"
    assert 'missing.py", line 4' in ran.error["traceback"]


def test_unknown_fields_and_broken_bodies_are_refused(cloud, jobs_app):
    path = f"/v1/apps/{jobs_app}/functions/echo/calls"
    unknown = cloud.request("POST", path, {"args": [1], "kwarg": {}})
    broken = cloud.request("POST", f"{path}?wait=1", {"args": [1]})

    assert (unknown.status, unknown.json["code"]) == (422, "invalid")
    assert (broken.status, broken.json["detail"][0]["type"]) == (422, "unknown_parameter")


@pytest.mark.parametrize("how", [(), ("--detach",)])
def test_a_port_in_use_is_named_and_nothing_is_made(stranger, how):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = stranger.apothic("up", "--port", port, *how)

    assert (ran.status, says_no_traceback(ran)) == (6, True)
    assert f"port {port}" in ran.err
    assert "[port_in_use]" in ran.err
    assert not (stranger.home / ".apothic").exists()


@pytest.mark.parametrize(
    ("arguments", "tells"),
    [
        (["--host", "0.0.0.0"], "--behind-proxy"),
        (["--host", "nowhere"], "IP address"),
        (["--port", "70000"], "--port"),
        (["--memory-mb", "lots"], "--memory-mb"),
        (["--cpus", "nan"], "not a finite number"),
        (["--cpus", "2000"], "--cpus"),
        (["--memory-mb", "20000000"], "--memory-mb"),
        (["--disconnect-grace-s", "nan"], "not a finite number"),
        (["--disconnect-grace-s", "inf", "--detach"], "--disconnect-grace-s"),
        (["--host", "0.0.0.0", "--detach"], "--behind-proxy"),
        (["--data", ""], "names no folder"),
    ],
)
def test_wrong_options_of_up_are_wrong_usage_and_make_nothing(stranger, arguments, tells):
    ran = stranger.apothic("up", *arguments)

    assert (ran.status, says_no_traceback(ran), tells in ran.err) == (2, True, True)
    assert not (stranger.home / ".apothic").exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--database-url", "mysql://here"], "store_url"),
        (["--pg-user", "nobody-at-all"], "store_identity"),
    ],
)
def test_a_database_that_cannot_be_is_refused_before_anything_is_made(stranger, arguments, code):
    ran = stranger.apothic("up", "--port", "0", *arguments, "--json")

    assert (ran.status, ran.error["code"]) == (1, code)
    assert not (stranger.home / ".apothic").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder of another user")
def test_a_data_folder_of_another_user_is_refused_and_not_touched(stranger):
    folder = stranger.home / "theirs"
    folder.mkdir(mode=0o755)
    os.chown(folder, 65534, 65534)
    ran = stranger.apothic("up", "--port", "0", "--data", folder)

    assert (ran.status, says_no_traceback(ran)) == (4, True)
    assert "[data_folder_owner]" in ran.err
    assert list(folder.iterdir()) == []


def test_a_database_that_is_away_at_the_start_is_said(stranger):
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    ran = stranger.apothic("up", "--port", "0", "--database-url", f"postgresql://me:secret@127.0.0.1:{port}/cloud")

    assert (ran.status, says_no_traceback(ran)) == (9, True)
    assert "[unavailable]" in ran.err
    assert "secret" not in ran.err


@pytest.mark.parametrize("place", ["a-folder", "a-file/endpoint.json", "/proc/nowhere/endpoint.json"])
def test_an_endpoint_file_that_cannot_be_written_is_said_before_anything_starts(stranger, place):
    (stranger.home / "a-folder").mkdir()
    (stranger.home / "a-file").touch()
    ran = stranger.apothic("up", "--port", "0", "--data", "made", "--endpoint", place)
    detached = stranger.apothic("up", "--port", "0", "--data", "made", "--endpoint", place, "--detach")

    for one in (ran, detached):
        assert (one.status != 0, says_no_traceback(one)) == (True, True)
        assert "endpoint" in one.err
    assert not (stranger.home / "made").exists()


def test_a_second_cloud_in_one_folder_is_refused(cloud, person):
    ran = person.apothic("up", "--port", "0", "--data", cloud.data)
    detached = person.apothic("up", "--port", "0", "--data", cloud.data, "--detach")

    for one in (ran, detached):
        assert (one.status, says_no_traceback(one)) == (6, True)
        assert "[data_folder_busy]" in one.err
        assert f"pid {cloud.pid}" in one.err
    assert json.loads((person.home / ".apothic/endpoint.json").read_text())["pid"] == cloud.pid


@pytest.mark.skipif(os.geteuid() != 0, reason="for other users the process executor needs no word")
def test_as_root_the_process_executor_needs_trust(stranger):
    refused = stranger.apothic("up", "--port", "0", "--executor", "process")

    assert (refused.status, says_no_traceback(refused)) == (2, True)
    assert not (stranger.home / ".apothic").exists()
    assert "--trust-user-code" in refused.err

    trusting = RunningCloud(Person(stranger.home), "--executor", "process", "--trust-user-code")
    try:
        assert "worker  process" in trusting.told
        assert stranger.python(SAMPLE).ok().out.endswith("hello, world\n")
    finally:
        trusting.close()
