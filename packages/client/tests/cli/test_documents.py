"""The JSON of every command: what it prints is what docs/reference/cli.md says, before and after a failure."""

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from apothic._profiles import Profile, Profiles, write_profiles
from apothic.cli.main import cli
from apothic.wire.tokens import new_token

REFERENCE = Path(__file__).parents[4] / "docs/reference/cli.md"
ELSEWHERE = {
    "up": "tests/system/test_up.py",
    "down": "tests/system/test_up.py",
    "app watch": "test_deployments.py",
    "worker join": "test_workers.py",
    "backup": "tests/system/test_backup.py",
    "restore": "tests/system/test_backup.py",
}
"""Commands whose documents are tested with real clouds, or by Ctrl-C, or that become another program."""

RUN = "run greet --app-name hello-world"
COMMANDS = {
    "version": ["version"],
    "doctor": ["doctor"],
    "status": ["status"],
    "app list": ["app list"],
    "api": ["api GET /v1/apps"],
    "deploy": ["deploy APP_FILE", "deploy APP_FILE --wait", "deploy APP_FILE --dry-run"],
    "diff": ["diff hello-world", "diff APP_FILE"],
    "history": ["history hello-world"],
    "rollback": ["rollback hello-world", "rollback hello-world --to 2"],
    "deployment list": ["deployment list"],
    "deployment inspect": ["deployment inspect DEPLOYMENT"],
    "deployment stop": ["deployment stop DEPLOYMENT --yes"],
    "deployment delete": ["deployment delete DEPLOYMENT --yes"],
    "deployment watch": ["deployment watch DEPLOYMENT"],
    "group list": ["group list"],
    "group status": ["group status GROUP"],
    "group watch": ["group watch GROUP"],
    "group cancel": ["group cancel GROUP", "group cancel GROUP --item 3"],
    "image list": ["image list", "image list hello-world"],
    "image logs": ["image logs hello-world", "image logs DEPLOYMENT"],
    "job list": ["job list"],
    "job status": ["job status JOB"],
    "job cancel": ["job cancel JOB"],
    "job retry": ["job retry JOB", "job retry JOB --watch"],
    "job watch": ["job watch JOB", "job watch JOB --snapshot"],
    "logs": ["logs JOB", "logs JOB --follow", "logs hello-world", "logs DEPLOYMENT"],
    "login": ["login URL --key-file KEY_FILE"],
    "whoami": ["whoami"],
    "profile list": ["profile list"],
    "profile show": ["profile show", "profile show work"],
    "profile use": ["profile use work", "profile use --none"],
    "profile remove": ["profile remove work --yes"],
    "ps": ["ps"],
    "top": ["top --once"],
    "function list": ["function list"],
    "function show": ["function show hello-world::greet"],
    "open": ["open", "open JOB"],
    "dump": ["dump DUMP"],
    "stats": ["stats hello-world", "stats hello-world::greet"],
    "completion show": ["completion show bash"],
    "completion install": ["completion install fish", "completion install bash"],
    "schedule list": ["schedule list"],
    "schedule status": ["schedule status SCHEDULE"],
    "schedule pause": ["schedule pause hello-world::greet"],
    "schedule resume": ["schedule resume SCHEDULE"],
    "schedule run": ["schedule run SCHEDULE"],
    "worker token": ["worker token", "worker token --list", "worker token --revoke JOIN_TOKEN"],
    "image prune": ["image prune --yes", "image prune --dry-run"],
    "worker list": ["worker list"],
    "worker drain": ["worker drain box"],
    "worker resume": ["worker resume box"],
    "worker remove": ["worker remove box --yes"],
    "run": [RUN, f"{RUN} --detach", f"{RUN} --watch", f"{RUN} --quiet"],
}
API = {
    "deployment inspect": "deployment_document",
    "job status": "job_document",
    "group status": "group_document",
    "function show": "function_document",
}
"""Commands that print what the API answered, and what makes that answer."""

JOIN_TOKEN = f"join_tokens:{'0' * 26}"
APP = "from apothic import App\napp = App('hello-world')\n@app.function()\ndef greet(): return 1\n"


def names(group: click.Group, prefix: str = "") -> Iterator[str]:
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        found = group.get_command(ctx, name) if prefix or name not in {"up", "down", "backup", "restore"} else None
        if isinstance(found, click.Group):
            yield from names(found, f"{name} ")
        else:
            yield f"{prefix}{name}"


def section(name: str) -> str:
    """Return what the reference says of a command, without examples."""
    text = re.sub(r"```.*?```", "", REFERENCE.read_text(), flags=re.DOTALL)
    return re.split(r"\n##+ ", text.split(f"### `apothic {name}", 1)[1], maxsplit=1)[0]


def documented(name: str) -> set[str]:
    """Return the names of fields that a command's paragraph about JSON has, with those of the command it points to."""
    said = " ".join(section(name).split("JSON:", 1)[1].split("\n\n")[0].split())
    pointed = re.findall(r"as `([a-z ]+)`", said)
    return set(re.findall(r"`([a-z0-9_]+)`", said)).union(*(documented(other) for other in pointed))


@pytest.fixture
def words(shapes, connected, home: Path, tmp_path: Path):
    """Make the arguments of a line: ids and files stand in capitals. There is a profile `work`, which is in use."""
    file, key_file = tmp_path / "shop.py", tmp_path / "key"
    file.write_text(APP)
    key_file.write_text(new_token("lk"))
    known = {
        "JOB": shapes.JOB,
        "DEPLOYMENT": shapes.DEPLOYMENT,
        "SCHEDULE": shapes.SCHEDULE,
        "APP_FILE": str(file),
        "GROUP": shapes.GROUP,
    }
    known |= {"URL": connected.url, "KEY_FILE": str(key_file), "JOIN_TOKEN": JOIN_TOKEN}
    profile, numbers = Profile("work", connected.url, new_token("lk")), itertools.count()

    def arguments(line):
        write_profiles(home / ".config/apothic/config.toml", Profiles("work", {"work": profile}))
        known["DUMP"] = str(tmp_path / f"{next(numbers)}.tar.gz")
        return [known.get(word, word) for word in line.split()]

    return arguments


@pytest.fixture
def answering(connected, shapes):
    """The scripted cloud; it has every archive and one worker that joined."""

    class Script(dict):
        def get(self, key, default=None):
            return shapes.Answer(200) if key[1].startswith("/v1/archives/") else super().get(key, default)

    connected.script = Script(connected.script)
    made = {"join_token_id": JOIN_TOKEN, "created_at": shapes.TIME, "expires_at": shapes.TIME}
    connected.script["GET", "/v1/openapi.json"] = shapes.Answer(document={})
    connected.script["GET", "/v1/apps/hello-world"] = shapes.Answer(document=shapes.app_document())
    line = {"worker": "local", "environment": "0" * 32, "time": shapes.TIME, "line": "Resolved 1 package"}
    events = ("GET", f"/v1/deployments/{shapes.DEPLOYMENT}/events")
    whole = connected.script[events]
    page = {"events": [{"index": 1, "event": "deployment.build_log", "data": line}], "last_index": 1, "is_final": True}
    connected.script[events] = lambda _, asked: shapes.Answer(document=page) if "build_log" in asked.query else whole
    ready = {"environment": None, "functions": ["greet"], "status": "ready", "worker": "a", "reason": None}
    connected.script["PUT", f"/v1/deployments/{shapes.DEPLOYMENT}/preparation"] = shapes.Answer(
        document={
            "deployment_id": shapes.DEPLOYMENT,
            "status": "ready",
            "environments": [{**ready, "error": None}],
        }
    )
    connected.script["POST", "/v1/join-tokens"] = shapes.Answer(201, {"token": "li_0", "expires_at": shapes.TIME})
    connected.script["GET", "/v1/join-tokens"] = shapes.Answer(document={"items": [made]})
    connected.script["DELETE", f"/v1/join-tokens/{JOIN_TOKEN}"] = shapes.Answer(document=made)
    box = {"name": "box", "status": "live", "draining": False, "jobs": 2, "joined_at": shapes.TIME, "worker_id": None}
    for place in (("POST", "/v1/workers/box/drain"), ("POST", "/v1/workers/box/resume"), ("DELETE", "/v1/workers/box")):
        connected.script[place] = shapes.Answer(document=box)
    return connected


@pytest.fixture
def do(run, run_process, words):
    """Run a line; one that loads a file runs in a process of its own."""
    return lambda line, *options: (run_process if line.startswith(("deploy ", "diff APP_FILE")) else run)(
        *words(line), *options
    )


NOTHING_REFUSED = {"version", "doctor", "dump", "deploy APP_FILE --dry-run", "diff APP_FILE"} | {
    name for name in COMMANDS if name.startswith(("profile", "completion"))
}
"""Commands that ask nothing, or that take it as an answer when there is no such thing."""
CASES = [(name, line) for name, lines in COMMANDS.items() for line in lines]


def test_every_command_is_tested():
    assert sorted(names(cli)) == sorted([*COMMANDS, *ELSEWHERE])


@pytest.mark.parametrize(("name", "line"), CASES)
def test_the_document_has_the_fields_of_the_reference(answering, do, shapes, name, line):
    found = do(line, "--json")

    assert found.err == ""
    if name in API:
        assert found.json == getattr(shapes, API[name])() | found.json
        assert "as the API has it" in section(name)
    else:
        assert set(found.json) <= documented(name)
    assert len(found.json) > 0


@pytest.mark.parametrize(("name", "line"), CASES)
def test_a_document_in_one_line_is_the_same(answering, do, name, line):
    document = do(line, "--json").json
    lines = [json.loads(text) for text in do(line, "--jsonl").out.splitlines()]

    several = next((document[key] for key in ("items", "events", "lines") if isinstance(document.get(key), list)), None)
    if name in ("doctor", "completion install", "dump"):  # what they find changes
        assert [set(one) for one in lines] == [set(document)]
    else:
        assert lines == ([document] if several is None else several)


@pytest.mark.parametrize(("name", "line"), [case for case in CASES if not NOTHING_REFUSED & {case[0], case[1]}])
@pytest.mark.parametrize("form", ["--json", "--jsonl"])
def test_an_error_is_one_line_with_the_fields_of_the_reference(connected, do, name, line, form):
    connected.script = {}
    said = re.sub(r"\s+", " ", REFERENCE.read_text().split("Programs read `{", 1)[1].split("\n\n")[0])
    known = set(re.findall(r"`([a-z_]+)`", said))

    found = do(line, form)

    assert (found.code, found.out, found.err.count("\n")) == (5, "", 1)
    assert set(found.error) <= known
    assert {"code", "detail", "exit_code"} <= set(found.error)
    assert found.error["exit_code"] == 5
