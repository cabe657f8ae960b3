"""The sample of the front page, in every way a person may run it."""

import re
import shlex

import pytest

from apothic_server.testing.skips import needs

from .people import ROOT

SAMPLE = ROOT / "examples/hello_world.py"
DEPLOYMENT = re.compile(r"deployments:[0-9a-z]{26}")
JOB = re.compile(r"jobs:[0-9a-z]{26}")
CALL = '{"args":["world"],"kwargs":{}}'


def test_the_sample_runs_as_a_plain_script_with_nothing_exported(cloud, person):
    ran = person.python(SAMPLE).ok()

    deployment_id, greeting = ran.out.splitlines()
    assert DEPLOYMENT.fullmatch(deployment_id)
    assert greeting == "hello, world"


def test_the_command_line_deploys_the_sample_once_and_runs_it(cloud, person):
    deployed = person.apothic("deploy", SAMPLE, "--json").ok().json
    again = person.apothic("deploy", SAMPLE, "--json").ok().json
    ran = person.apothic("run", "greet", "--app-name", "hello-world", "--payload", CALL).ok()

    assert DEPLOYMENT.fullmatch(deployed["deployment_id"])
    assert (deployed["functions"], len(deployed["files"])) == (["greet"], 1)
    assert (again["version"], again["deployment_id"]) == (deployed["version"], deployed["deployment_id"])
    assert again["archive_was_present"]
    assert ran.out == "hello, world\n"


def test_the_line_of_the_readme_calls_the_sample_with_curl(cloud, person):
    curl = needs("curl", package="curl")
    person.python(SAMPLE).ok()
    lines = next(
        block for block in re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.S) if "curl" in block
    )
    lines = lines.replace("http://127.0.0.1:8400", cloud.url).replace("curl ", f"{shlex.quote(curl)} -sS ", 1)
    answer = person.run("sh", "-ec", lines, cwd=ROOT).ok().json

    assert (answer["status"], answer["result"], answer["error"]) == ("succeeded", "hello, world", None)
    assert JOB.fullmatch(answer["job_id"])


def test_a_job_has_the_same_id_on_every_way_to_it(cloud, person):
    person.python(SAMPLE).ok()
    arguments = ("run", "greet", "--app-name", "hello-world", "--payload", CALL)
    job_id = person.apothic(*arguments, "--detach").ok().out.strip()

    assert JOB.fullmatch(job_id)
    assert cloud.outcome(job_id)["result"] == "hello, world"
    assert person.apothic("job", "status", job_id, "--json").ok().json["status"] == "succeeded"


def test_functions_of_two_apps_with_one_name_do_not_meet(cloud, person):
    for app in ("left", "right"):
        file = person.write(
            f"{app}.py",
            f"""
            from apothic import App
            app = App("{app}")

            @app.function()
            def name():
                return "{app}"

            @app.function()
            def shout():
                return name().upper() + "!"
            """,
        )
        person.apothic("deploy", file).ok()

    results = {
        (app, function): person.apothic("run", function, "--app-name", app).ok().out.strip()
        for app in ("left", "right")
        for function in ("name", "shout")
    }
    assert results == {
        ("left", "name"): "left",
        ("left", "shout"): "LEFT!",
        ("right", "name"): "right",
        ("right", "shout"): "RIGHT!",
    }


@pytest.mark.parametrize("example", ["word_count.py"])
def test_the_other_examples_run(cloud, person, example):
    ran = person.python(ROOT / "examples" / example).ok()

    assert "status: succeeded" in ran.out
