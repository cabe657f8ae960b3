"""`make demo`: what it shows and what it leaves, which is nothing."""

import json
import os
import re
from pathlib import Path

import pytest

from .people import ROOT, Person
from .processes import adopting, command_of, descendants, newcomers, parents

SHARED_MEMORY = Path("/dev/shm")


@pytest.mark.alone
def test_the_demo_shows_the_sample_and_leaves_nothing(stranger):
    before = _traces(stranger)
    with adopting():
        others = set(descendants(os.getpid()))
        ran = stranger.python("-m", "apothic_server.demo", cwd=ROOT, deadline_s=120).ok()
        left = [command_of(pid) for pid in newcomers(others)]

    assert left == []
    assert re.search(r"^deployments:[0-9a-z]{26}$", ran.out, re.M)
    assert re.search(r"^job: jobs:[0-9a-z]{26}$", ran.out, re.M)
    assert "\nhello, world\n" in ran.out
    assert len(re.findall(r"^  took [0-9.]+ s$", ran.out, re.M)) == 4
    assert _new(before, _traces(stranger)) == {}


def test_the_demo_of_the_tool_deploys_twice_runs_both_ways_and_goes_back(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    ran = Person(home, installs=True).python("tools/demo_tool.py", cwd=ROOT, deadline_s=240).ok()

    assert re.findall(r"^\$ apothic (\w+)", ran.out, re.M) == [
        *("deploy", "deploy", "run", "diff", "deploy", "run", "rollback", "history", "diff", "run"),
    ]
    assert re.findall(r"^ +\d+  (sales/\w+\.py)$", ran.out, re.M) == [
        *("sales/__init__.py", "sales/app.py", "sales/figures.py", "sales/orders.py"),
    ]
    assert re.findall(r"^packages    numpy==\S+, pydantic==\S+$", ran.out, re.M) != []
    (sent, packed) = re.findall(r"; ([0-9,]+) of the ([0-9,]+) bytes they are packed into were sent$", ran.out, re.M)[0]
    unchanged = sum((ROOT / "examples/sales/sales" / name).stat().st_size for name in ("app.py", "orders.py"))
    assert int(sent.replace(",", "")) + unchanged < int(packed.replace(",", ""))
    assert re.search(r"the second deploy took [0-9.]+ s; promised is less than 1 s: (met|missed)\)$", ran.out, re.M)
    assert re.findall(r"^~ file (\S+)$", ran.out, re.M) == ["sales/figures.py"] * 2
    assert [set(json.loads(line)) for line in re.findall(r"^\{.*\}$", ran.out, re.M)] == [
        {"count", "sum", "median", "refused"},
        {"count", "sum", "median", "largest", "refused"},
        {"count", "sum", "median", "refused"},
    ]
    assert re.search(
        r"^deployments:\w+ \(app sales version 3 with the content of version 1\) is active$", ran.out, re.M
    )
    assert list(home.rglob("*")) == []


@pytest.mark.parametrize(
    ("command", "program"), [("demo", "-m apothic_server.demo"), ("demo-tool", "tools/demo_tool.py")]
)
def test_make_runs_those_programs(command, program):
    rule = re.search(rf"^{command}: .*\n\t@(.*)$", (ROOT / "Makefile").read_text(), re.M)

    assert rule is not None
    assert rule[1] == f"$(BIN)/python {program}"


def _traces(person):
    """Return what a program may leave on this machine: mounts, files, shared memory, control groups."""
    mounts = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    groups = {str(path) for path in Path("/sys/fs/cgroup").glob("**/apothic-*") if path.is_dir()}
    folders = (person.home, person.tmp)
    files = {str(path) for folder in folders for path in folder.rglob("*")}
    sockets = {str(path) for path in Path("/tmp").glob(f"apothic-{os.geteuid()}-*")}
    return {"mounts": mounts, "groups": groups, "files": files, "sockets": sockets, "memory": _memory()}


def _new(before, after):
    """Return what is new and in use by no living process: others work on this machine as well."""
    found = {kind: sorted(after[kind] - before[kind]) for kind in before}
    found["groups"] = [group for group in found["groups"] if not _is_used(Path(group))]
    listened = Path("/proc/net/unix").read_text()
    found["sockets"] = [path for path in found["sockets"] if path not in listened and Path(path).exists()]
    used = _mapped() if found["memory"] else set()
    found["memory"] = [name for name in found["memory"] if name not in used]
    return {kind: names for kind, names in found.items() if names}


def _memory():
    return {str(path) for path in SHARED_MEMORY.iterdir() if path.is_file()} if SHARED_MEMORY.is_dir() else set()


def _is_used(group):
    files = [group / "cgroup.procs", *group.rglob("cgroup.procs")]
    return not group.exists() or any(file.exists() and file.read_text() for file in files)


def _mapped():
    """Return the shared memory that a living process has mapped, and what is gone by now."""
    maps = [Path(f"/proc/{pid}/maps") for pid in parents()]
    text = "\n".join(_text(path) for path in maps)
    return {name for name in _memory() if name in text} | {name for name in _memory() if not Path(name).exists()}


def _text(path):
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
