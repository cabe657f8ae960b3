"""Names after the Tab key, asked for as shells do."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMPLETE = r"""
source "$1"
COMP_LINE="$2" COMP_POINT=${#2}
_apothic_complete
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def in_bash(connected, home: Path, run):
    """Return what a real bash offers for a line."""
    script = home / "completion.bash"
    script.write_text(run("completion", "show", "bash").out)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    def offered(line: str) -> list[str]:
        command = ["bash", "--norc", "-c", COMPLETE, "bash", str(script), line]
        return subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True).stdout.split()

    return offered


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("apothic deploym", ["deployment"]),
        ("apothic job st", ["status"]),
        ("apothic job status --js", ["--json", "--jsonl"]),
        ("apothic logs hel", ["hello-world"]),
        ("apothic stats hello-world::gr", ["greet"]),
        ("apothic job status jobs:01", ["01jc5v0000000000000000job1"]),
        ("apothic deployment list --app ", ["hello-world"]),
        ("apothic run gr", ["greet"]),
        ("apothic schedule pause hello-world::", ["greet"]),
        ("apothic logs nothing", []),
    ],
)
def test_bash_offers_what_may_stand_there(in_bash, line, offered):
    assert in_bash(line) == offered


def test_zsh_and_fish_get_candidates_of_their_own_form(connected, home):
    for shell, variables in {
        "zsh": {"COMP_WORDS": "apothic logs hel", "COMP_CWORD": "2"},
        "fish": {"COMP_WORDS": "apothic logs hel", "COMP_CWORD": "hel"},
    }.items():
        env = {**os.environ, **variables, "_APOTHIC_COMPLETE": f"{shell}_complete"}
        program = str(Path(sys.executable).with_name("apothic"))
        ended = subprocess.run([program], env=env, capture_output=True, text=True)

        assert "hello-world" in ended.stdout


def test_names_are_asked_for_once_a_minute(connected, in_bash, home):
    in_bash("apothic logs hel")
    asked = len(connected.asked)
    in_bash("apothic logs hel")
    (file,) = (home / ".cache" / "apothic").iterdir()

    assert len(connected.asked) == asked
    assert json.loads(file.read_text())["apps"] == {"hello-world": ["greet"]}
    os.utime(file, (time.time() - 61, time.time() - 61))
    in_bash("apothic logs hel")
    assert len(connected.asked) == 2 * asked


def test_old_names_are_offered_while_the_cloud_does_not_answer(connected, in_bash, home):
    in_bash("apothic logs hel")
    (file,) = (home / ".cache" / "apothic").iterdir()
    os.utime(file, (0, 0))
    connected.script = {}

    assert in_bash("apothic logs hel") == ["hello-world"]


def test_without_a_cloud_nothing_is_offered_and_nothing_said(home, in_bash, monkeypatch):
    monkeypatch.delenv("APOTHIC_BASE_URL")

    assert in_bash("apothic logs hel") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_installed_once_and_can_be_read(run, home, shell):
    first = run("completion", "install", shell, "--json").json
    second = run("completion", "install", shell, "--json").json

    assert (first["is_new"], second["is_new"]) == (shell != "fish", False)
    assert Path(first["script"]).read_text() == run("completion", "show", shell, "--json").json["script"]
    if shell != "fish":
        line = f'source "{first["script"]}"\n'
        assert Path(first["startup"]).read_text() == line
    if shutil.which(shell):
        assert subprocess.run([shell, "-n", first["script"]]).returncode == 0


def test_a_startup_file_keeps_what_it_has(run, home):
    (home / ".bashrc").write_text("alias a=b")

    run("completion", "install", "bash")

    assert (home / ".bashrc").read_text().startswith("alias a=b\nsource ")


def test_the_shell_in_use_is_taken_or_asked_for(run, home, monkeypatch):
    monkeypatch.setenv("SHELL", "/bin/zsh")
    assert run("completion", "install", "--json").json["shell"] == "zsh"
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    assert run("completion", "install").code == 2
