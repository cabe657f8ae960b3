"""What reaches a terminal, a pipe and a program."""

import array
import collections
import datetime as dt
import decimal
import enum
import os
import pickle
import pty
import subprocess
import sys
from pathlib import Path

import cloudpickle
import pytest

from apothic.cli.machine import cgroups, disk_space, private_file, python_version
from apothic.cli.pickled import type_name


class Colour(enum.Enum):
    RED = 1


class Thing:
    def __init__(self) -> None:
        self.own = {"me": self, "n": [1, 2]}


class Reduced:
    def __reduce__(self):
        return collections.OrderedDict, ([("a", 1)],)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ((1, 2), "tuple"),
        ([1, (2,)], "list"),
        ({"a": {1, 2}}, "dict"),
        ({1, 2}, "set"),
        (frozenset({1}), "frozenset"),
        (b"x", "bytes"),
        (bytearray(b"x"), "bytearray"),
        (1, "int"),
        (2**80, "int"),
        (1.5, "float"),
        (True, "bool"),
        (None, "None"),
        ("text", "str"),
        (1j, "complex"),
        (int, "type"),
        (decimal.Decimal("1.5"), "decimal.Decimal"),
        (dt.datetime(2026, 1, 2), "datetime.datetime"),  # noqa: DTZ001 - any value does
        (Thing(), f"{__name__}.Thing"),
        (Colour.RED, f"{__name__}.Colour"),
        (Reduced(), "collections.OrderedDict"),
        (array.array("i", [1]), "array.array"),
        (ValueError("x"), "ValueError"),
    ],
)
@pytest.mark.parametrize("protocol", [4, 5])
def test_the_type_of_a_pickle_is_told_without_unpickling(value, name, protocol):
    assert type_name(pickle.dumps(value, protocol)) == name


@pytest.mark.parametrize("data", [b"", b"\x80", b"garbage", b"\x80\x05.", pickle.dumps((1, 2))[:-1], b"\x80\x05h\x07."])
def test_bytes_that_are_no_pickle_have_an_unknown_type(data):
    assert type_name(data) == "object"


def test_a_poisoned_pickle_is_only_named(tmp_path: Path):
    class Poison:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "poisoned"),)

    assert type_name(pickle.dumps(Poison())).endswith(".mkdir")
    assert type_name(cloudpickle.dumps(Poison)) != ""
    assert list(tmp_path.iterdir()) == []


def on_terminal(arguments: list[str], **variables: str) -> str:
    """Run a command whose standard output is a terminal and return what it wrote."""
    ours, theirs = pty.openpty()
    env = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "CI", "TERM", "COLORTERM"}}
    process = subprocess.Popen(
        [sys.executable, "-m", "apothic", *arguments], stdout=theirs, env={**env, "TERM": "xterm", **variables}
    )
    os.close(theirs)
    found = b""
    try:
        while piece := os.read(ours, 65_536):
            found += piece
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0
    return found.decode()


def test_a_terminal_gets_colours(connected):
    assert "\x1b[" in on_terminal(["app", "list"])


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"CI": "true"}, {"TERM": "dumb"}])
def test_a_terminal_that_wants_none_gets_no_colours(connected, variables):
    found = on_terminal(["app", "list"], **variables)

    assert "\x1b" not in found
    assert "hello-world" in found


@pytest.mark.parametrize(
    ("variables", "is_coloured"),
    [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)],
)
def test_a_pipe_gets_colours_only_when_they_are_forced(connected, variables, is_coloured):
    env = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "FORCE_COLOR", "CI", "TERM"}}
    command = [sys.executable, "-m", "apothic", "app", "list"]

    found = subprocess.run(command, capture_output=True, text=True, env={**env, "TERM": "xterm", **variables})

    assert ("\x1b[" in found.stdout, "hello-world" in found.stdout) == (is_coloured, True)


def test_output_that_the_encoding_lacks_is_escaped(connected, shapes):
    connected.script["GET", f"/v1/jobs/{shapes.JOB}/outcome"] = shapes.outcome(data='"ä\\u20ac"'.encode())
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "apothic", "run", "greet", "--app-name", "hello-world", "-q"]

    found = subprocess.run(command, capture_output=True, text=True, env=env)

    assert (found.returncode, found.stdout) == (0, "\\xe4\\u20ac\n")
    found = subprocess.run([*command, "--json"], capture_output=True, text=True, env=env)
    assert (found.returncode, '"result": "\\u00e4\\u20ac"' in found.stdout) == (0, True)


def test_old_pythons_and_full_disks_fail_the_check(tmp_path: Path):
    assert python_version((3, 9, 18)).state == "failed"
    assert python_version((3, 10, 0)).state == "ok"
    assert disk_space(tmp_path, 10).state == "failed"
    assert disk_space(tmp_path, 2**40).state == "ok"


@pytest.mark.parametrize(("mode", "state"), [(0o600, "ok"), (0o400, "ok"), (0o640, "failed"), (0o602, "failed")])
def test_files_with_keys_must_be_private(tmp_path: Path, mode: int, state: str):
    (tmp_path / "endpoint.json").touch()
    (tmp_path / "endpoint.json").chmod(mode)

    assert private_file(tmp_path / "endpoint.json").state == state
    assert private_file(tmp_path / "missing.json").state == "skipped"


def test_control_groups_of_both_versions_are_understood(tmp_path: Path):
    (tmp_path / "unified" / "me").mkdir(parents=True)
    (tmp_path / "unified" / "me" / "cgroup.controllers").write_text("cpu memory\n")
    for name in ("cpu,cpuacct", "memory", "pids"):
        (tmp_path / "legacy" / name / "me").mkdir(parents=True)
    (tmp_path / "two").write_text("0::/me\n")
    (tmp_path / "one").write_text("4:cpu,cpuacct:/me\n3:memory:/me\n2:pids:/me\n")

    second = cgroups(tmp_path / "two", tmp_path / "unified")
    first = cgroups(tmp_path / "one", tmp_path / "legacy")

    assert (second.state, second.detail) == ("warning", "cannot be enforced with control groups here: pids")
    assert first.state == "ok"
    assert cgroups(tmp_path / "none", tmp_path).state == "skipped"


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_streams_that_the_caller_closed_are_devnull(closed, home):
    """A socket or file that got the number of standard output would be written to."""
    line = [str(Path(sys.executable).with_name("apothic")), "version"]
    shell = f'exec "$@" {" ".join(f"{descriptor}>&-" for descriptor in closed)}'

    done = subprocess.run(["sh", "-c", shell, "sh", *line], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) is (1 not in closed)
