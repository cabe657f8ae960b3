"""What user code can see and do, per executor."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from apothic.wire import link
from apothic.wire.images import ImageSpec
from apothic_worker.executors.base import ExecutorUnavailable
from apothic_worker.executors.sandbox import SandboxExecutor
from apothic_worker.interpreters import find_interpreters
from apothic_worker.testing.scripted_server import ScriptedServer

from .conftest import OPTIONS, linked, start_worker

pytestmark = pytest.mark.anyio

APP = """
import json, os, sys

def command_of(pid):
    try:
        return open(f"/proc/{pid}/cmdline").read()
    except OSError:  # it ended after it was listed
        return ""

def look(paths):
    def can_write(path):
        try:
            open(path, "w").close()
            return True
        except OSError:
            return False
    status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines())
    return {
        "uid": os.getuid(),
        "cwd": os.getcwd(),
        "root": sorted(os.listdir("/")),
        "run": sorted(os.listdir("/run")) if os.path.exists("/run") else [],
        "seen": [path for path in paths if os.path.exists(path)],
        "environment": dict(os.environ),
        "writable": [path for path in ("/x", "/app/x", "/usr/x", "/apothic/x", "/etc/x", "/tmp/x") if can_write(path)],
        "capabilities": status["CapEff"],
        "no_new_privileges": status["NoNewPrivs"],
        "processes": sorted(int(name) for name in os.listdir("/proc") if name.isdigit())[:1],
        "commands": [command_of(name) for name in os.listdir("/proc") if name.isdigit()],
        "modules": sorted({name.partition(".")[0] for name in sys.modules}),
        "site": [path for path in sys.path if "site-packages" in path],
    }

def leave_a_file():
    with open("/tmp/left", "w") as file:
        file.write("secret")

def read_it():
    return os.path.exists("/tmp/left")
"""


async def look(server: ScriptedServer, *paths: Path | str) -> dict[str, object]:
    runner = await server.started_runner(server.deploy({"app.py": APP}), "look")
    return json.loads((await server.call(runner, [str(path) for path in paths])).value.data)


async def test_a_sandbox_shows_nothing_of_the_host_but_what_is_listed(tmp_path):
    data = tmp_path / "data"
    async with linked(data) as (server, _):
        other = await server.call(await server.started_runner(server.deploy({"app.py": APP + "#"}), "read_it"))
        archives = sorted((data / "archives" / "o1").iterdir())
        home = Path.home()
        hidden = [
            data,
            *archives,
            home / ".bashrc",
            home / ".ssh",
            "/etc/shadow",
            "/sys",
            "/work",
            "/var",
            *Path("/run").iterdir(),
            Path(__file__),
        ]
        found = await look(server, *hidden)

    assert other.outcome == "succeeded"
    assert found["seen"] == []
    assert found["run"] == ["apothic"]
    assert set(found["root"]) <= {
        "app",
        "apothic",
        "bin",
        "dev",
        "etc",
        "lib",
        "run",
        "lib32",
        "lib64",
        "libx32",
        "proc",
        "sbin",
        "tmp",
        "usr",
    } | {Path(sys.base_prefix).parts[1]}
    assert (found["uid"], found["cwd"]) == (1000, "/app")
    assert found["writable"] == ["/tmp/x"]
    assert (int(found["capabilities"], 16), found["no_new_privileges"]) == (0, "1")
    assert found["environment"] == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": "/tmp",
        "TMPDIR": "/tmp",
        "PWD": "/app",
        "APOTHIC_API_SOCKET": "/run/apothic/api.sock",
    }
    assert not any(server.token in command for command in found["commands"])
    assert found["site"] == []
    assert "apothic_worker" not in found["modules"]


async def test_two_organisations_share_neither_sandbox_nor_archive(tmp_path):
    async with linked(tmp_path / "data") as (server, worker):
        app = server.deploy({"app.py": APP})
        await server.call(await server.started_runner(app, "leave_a_file", org="o1"))
        same = await server.call(await server.started_runner(app, "read_it", org="o1"))
        other = await server.call(await server.started_runner(app, "read_it", org="o2"))
        kept = sorted(path.parent.name for path in (worker.data / "archives").glob("*/*"))

    assert (same.value.data, other.value.data) == (b"true", b"false")
    assert kept == ["o1", "o2"]


async def test_the_machine_report_says_what_is_applied(tmp_path):
    async with linked(tmp_path / "data", *OPTIONS, "--cpus", "3", "--memory-mb", "999") as (server, _):
        hello = await server.wait_for(link.Hello)

    assert (hello.name, hello.machine.cpus, hello.machine.memory_mb) == ("tester", 3.0, 999)
    assert hello.machine.isolation == ["user", "mount", "pid", "ipc", "uts", "cgroup"]
    assert set(hello.machine.enforced) | set(hello.machine.not_enforced) == {"cpu", "memory", "pids"}
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in hello.machine.pythons


async def test_the_process_executor_runs_trusted_code_and_cleans_up(tmp_path):
    async with linked(tmp_path / "data", "--local", "--executor", "process", "--trust-user-code") as (server, worker):
        found = await look(server)
        hello = await server.wait_for(link.Hello)
        scratch = worker.data / "scratch"
        during = len(list(scratch.iterdir()))

    assert (hello.machine.executor, hello.machine.isolation) == ("process", [])
    assert found["uid"] == os.getuid()
    assert set(found["environment"]) - {"PWD"} == {"PATH", "LANG", "HOME", "TMPDIR", "APOTHIC_API_SOCKET"}
    assert during == 2  # the folder of the runner, and that of its API socket
    assert list(scratch.iterdir()) == []


async def test_user_code_runs_under_the_interpreter_it_was_deployed_from(tmp_path):
    programs = sorted(Path.home().glob(".pyenv/versions/3.1[0-9].*/bin/python3.1[0-9]"))
    path = os.pathsep.join([*(str(program.parent) for program in programs), os.environ["PATH"]])
    expected = {program.name.removeprefix("python") for program in programs}
    async with ScriptedServer() as server:
        worker = await start_worker(server, tmp_path / "data", *OPTIONS, path=path)
        hello = await server.wait_for_hello(worker.process)
        app = server.deploy({"app.py": "import sys\ndef version():\n    return '%d.%d' % sys.version_info[:2]\n"})
        found = {
            version: (await server.call(await server.started_runner(app, "version", python=version))).value
            for version in hello.machine.pythons
        }
        code = await worker.stop()

    assert expected <= set(hello.machine.pythons)
    assert {version: json.loads(value.data) for version, value in found.items()} == {
        v: v for v in hello.machine.pythons
    }
    assert code == 0


@pytest.mark.parametrize(
    ("executor", "mounts", "says"),
    [
        ("sandbox", {"/data/x": "there.py"}, None),
        ("sandbox", {"/data/x": "missing.csv"}, "no missing.csv, to be found at /data/x"),
        ("sandbox", {"/mnt": "app.py", "/srv/x": "../app.py"}, "no ../app.py"),
        ("process", {"/data/x": "there.py"}, "need the executor `sandbox`"),
    ],
    ids=["shown", "missing", "outside", "not in a sandbox"],
)
async def test_files_of_an_image_are_shown_or_the_start_fails_in_words(tmp_path, executor, mounts, says):
    files = {"app.py": "def read():\n    return open('/data/x').read()\n", "there.py": "# here"}
    image = ImageSpec("3.11", mounts=mounts)
    async with linked(tmp_path / "data", *OPTIONS, "--executor", executor, "--trust-user-code") as (server, _):
        end = await server.call(await server.started_runner(server.deploy(files), "read", image=image))

    if says is None:
        assert json.loads(end.value.data) == "# here"
    else:
        assert end.error.code == "load_failed"
        assert says in end.error.message


def test_what_a_sandbox_shows_in_any_case_is_not_covered(tmp_path):
    code = (
        "import pathlib; from apothic_worker.executors.sandbox import SandboxExecutor, find_bubblewrap\n"
        "from apothic_worker.interpreters import Interpreter, find_interpreters\n"
        "own = list(find_interpreters().values())[-1]\n"
        f"(prefix := pathlib.Path({str(tmp_path)!r}, 'py/bin')).mkdir(parents=True)\n"
        "other = Interpreter('3.99', prefix / 'python', prefix.parent)\n"
        "sandbox = SandboxExecutor(find_bubblewrap(), [own, other], [])\n"
        "for place in (prefix.parent.parent, prefix, prefix.parent / 'x', '/srv/x', '/tmp/x'):\n"
        "    print(sandbox.mount_problem(str(place)) is None)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", "False", "False", "True", "True"]


def test_the_process_executor_serves_one_organisation_only():
    code = (
        "import os, pathlib; from apothic_worker.executors.process import ProcessExecutor\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "executor = ProcessExecutor(pathlib.Path('/nonexistent'), trust_user_code=False)\n"
        "print(executor.refusal('o1'), executor.refusal('o1'), executor.refusal('o2'), sep='\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    first, again, second = done.stdout.splitlines()
    assert (first, again) == ("None", "None")
    assert "one organisation only" in second


def test_a_sandbox_that_does_not_work_says_what_to_do():
    with pytest.raises(ExecutorUnavailable, match="--executor process --trust-user-code"):
        SandboxExecutor("/bin/false", find_interpreters().values(), [])
