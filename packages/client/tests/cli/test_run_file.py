"""`apothic run FILE::NAME`: parameters of a function as options, from a file, a module or standard input."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TYPED = """\
import enum
from typing import Literal, Optional

from apothic import App

app = App("hello-world")


class Size(enum.Enum):
    SMALL = 1
    BIG = 2


@app.function()
def greet(
    name: str, count: int = 1, rate: float = 0.5, fast: bool = True, tags: list[int] = [], extra: Optional[dict] = None,
    kind: Literal["a", "b"] = "a", quiet: bool = False, plain=None,
):
    "Greets somebody."


@app.function()
def sized(size: Size): ...


@app.function()
def many(*names): ...


@app.function()
def placed(first: int, second: int = 2, /): ...


@app.local_entrypoint()
def main(who: str = "you"):
    return greet.spawn(who).job_id
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "work" / "typed_app.py"
    path.parent.mkdir()
    path.write_text(TYPED)
    return path


@pytest.fixture
def deployed(connected, shapes):
    """The scripted cloud, which has every archive and the functions of the file."""

    class Script(dict):
        def get(self, key, default=None):
            return shapes.Answer(200) if key[1].startswith("/v1/archives/") else super().get(key, default)

    connected.script = Script(connected.script)
    functions = [shapes.function_document(name) for name in ("greet", "sized", "many", "placed")]
    connected.script["POST", "/v1/apps/hello-world/deployments"] = shapes.Answer(
        201, shapes.deployment_document(functions=functions)
    )
    connected.script["GET", f"/v1/functions/{shapes.FUNCTION}"] = shapes.Answer(document=shapes.function_document())
    return connected


@pytest.fixture
def called(deployed, shapes):
    """Return the arguments of the last call."""

    def arguments():
        head, data = deployed.last("POST", f"/v1/functions/{shapes.FUNCTION}/calls").frame
        return json.loads(data) if head["encoding"] == "json" else head["encoding"]

    return arguments


@pytest.mark.parametrize(
    ("options", "kwargs"),
    [
        (["--name", "x"], {"name": "x"}),
        (["--name=x", "--count", "3", "--rate", "2"], {"name": "x", "count": 3, "rate": 2.0}),
        (["--name", "x", "--no-fast", "--kind", "b"], {"name": "x", "fast": False, "kind": "b"}),
        (["--name", "x", "--tags", "1", "--tags", "2"], {"name": "x", "tags": [1, 2]}),
        (["--name", "x", "--extra", '{"a": [1]}', "--plain", "5"], {"name": "x", "extra": {"a": [1]}, "plain": "5"}),
        (["--name", "x", "--quiet", "-q"], {"name": "x", "quiet": True}),
    ],
    ids=" ".join,
)
def test_parameters_are_options_with_types(called, run_process, file, options, kwargs):
    found = run_process("run", f"{file}::greet", *options)

    assert (found.code, found.out) == (0, "hello, world\n")
    assert ("hello-world version 3 is live now." in found.err) == ("-q" not in options)
    assert called() == [[], kwargs]


def test_places_members_and_payloads_reach_the_function(called, run_process, file):
    run_process("run", f"{file}::placed", "--first", "1")
    placed = called()
    run_process("run", f"{file}::many", "--payload", '{"args": [1, 2]}')
    paid = called()
    run_process("run", f"{file}::sized", "--size", "BIG")

    assert (placed, paid) == ([[1], {}], [[1, 2], {}])
    assert str(called()).startswith("pickle")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["::gret"], 8, "did you mean greet?"),
        (["::nothing_like_it"], 8, "it has greet, sized, many, placed, main"),
        (["::greet"], 2, "Missing option '--name'"),
        (["::greet", "--name", "x", "--count", "two"], 2, "'two' is not a valid integer"),
        (["::greet", "--name", "x", "--kind", "c"], 2, "'c' is not one of 'a', 'b'"),
        (["::greet", "--name", "x", "--extra", "{"], 2, "is not JSON"),
        (["::greet", "--name", "x", "--nme", "y"], 2, "No such option"),
        (["::greet", "--name", "x", "--app-name", "y"], 2, "No such option"),
        (["::sized", "--size", "HUGE"], 2, "'HUGE' is not one of 'SMALL', 'BIG'"),
        (["::many"], 8, "any number of arguments (*names)"),
        (["::placed", "--second", "2"], 2, "Missing option '--first'"),
        (["::main", "--watch"], 2, "A local entrypoint runs here"),
        (["::greet", "--name", "x", "--watch", "-d"], 2, "Give one of them"),
    ],
    ids=str,
)
def test_what_cannot_be_run_is_refused_before_anything_is_called(deployed, run_process, file, words, code, says):
    found = run_process("run", f"{file}{words[0]}", *words[1:])

    assert (found.code, found.out) == (code, "")
    assert says in found.err
    assert not any(asked.path.endswith("/calls") for asked in deployed.asked)


def test_help_shows_the_function_and_asks_nobody(deployed, run_process, file):
    found = run_process("run", f"{file}::greet", "--help")

    assert found.code == 0
    for text in ("Greets somebody.", "--name TEXT", "--fast / --no-fast", "[a|b]", "By default 0.5.", "--timeout-s"):
        assert text in found.out
    assert deployed.asked == []


def test_a_local_entrypoint_runs_here_and_is_the_default(called, run_process, file, shapes):
    found = run_process("run", str(file), "--who", "me")

    assert (found.code, found.out) == (0, f"{shapes.JOB}\n")
    assert called() == [["me"], {}]


def test_modules_and_standard_input_are_run_as_files_are(called, run_process, file, monkeypatch):
    monkeypatch.chdir(file.parent)
    module = run_process("run", "-m", "typed_app::greet", "--name", "m")
    by_module = called()
    piped = subprocess.run(
        [sys.executable, "-m", "apothic", "run", "-::greet", "--name", "p"],
        input=TYPED, capture_output=True, text=True,
    )  # fmt: skip

    assert (module.out, by_module) == ("hello, world\n", [[], {"name": "m"}])
    assert (piped.stdout, called()) == ("hello, world\n", [[], {"name": "p"}])
    assert "no module nowhere" in run_process("run", "-m", "nowhere").err
    assert "there is no file nowhere.py" in run_process("run", "nowhere.py").err


def test_a_result_is_written_to_a_file(deployed, run_process, file, shapes):
    target = file.parent / "result.txt"

    found = run_process("run", f"{file}::greet", "--name", "x", "-w", str(target))
    calls = [request for request in deployed.requests() if request.startswith("POST") and "/calls" in request]
    refused = [
        run_process("run", f"{file}::greet", "--name", "x", "-w", str(target / "below")),
        run_process("run", f"{file}::greet", "--name", "x", "-w", str(file.parent)),
    ]
    later = [request for request in deployed.requests() if request.startswith("POST") and "/calls" in request]
    deployed.script["GET", f"/v1/jobs/{shapes.JOB}/outcome"] = shapes.outcome(data=b"\x80\x05N.", encoding="pickle")
    pickled = run_process("run", f"{file}::greet", "--name", "x", "-w", str(file.parent / "other"))

    assert (found.code, found.out, target.read_text()) == (0, "", "hello, world")
    assert [(one.code, "Cannot write" in one.err) for one in refused] == [(8, True), (8, True)]
    assert (len(calls), later) == (1, calls), "a result that nothing can take is not asked for"
    assert (pickled.code, "no JSON value" in pickled.err) == (8, True)
    assert not (file.parent / "other").exists()


def test_a_name_without_an_app_says_what_is_missing(connected, run):
    found = run("run", "greet")

    assert found.code == 2
    assert "--app-name" in found.err
