"""A real cloud in a folder of its own: server, database, worker. Only processes of this folder are touched."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from apothic_server.store.address import StoreAddress
from apothic_server.store.postmaster import find_postmaster

from .wire import Api, Broken

ROOT = Path(__file__).parents[2]
READY_S = 120.0
STOP_S = 60.0
POLL_S = 0.02
STORE_GONE = 9
"""Exit status of a cloud whose database died three times within ten minutes; it is started again, as anybody would."""


class CloudFailed(Exception):
    """The cloud did what no fault explains: it did not start, or ended by itself."""


class CloudRun:
    """One data folder and the processes that work in it.

    Args:
        folder: Home of everything.
        environment: Added to that of the server.
        options: Added to the command line of `apothic up`.
        cpus: What the worker beside the server offers.
    """

    def __init__(self, folder, *, environment=None, data=None, options=(), cpus=8.0):
        self.folder = folder
        self.data = data or folder / "data"
        self.port = _free_port()
        self.key = ""
        self.ends = []
        self.starts = 0
        self.environment = {**_clean_environment(folder), **(environment or {})}
        self.worker_folders = [self.data / "worker"]
        self._options = (*options, "--cpus", str(cpus), "--memory-mb", "4096")
        self._failpoint = None
        self._process = None
        self._task = None
        self._is_stopping = False
        self._may_end = False

    # --- its life

    async def start(self):
        """Start it and keep it running from then on, whatever kills it."""
        self._is_stopping = False
        self._spawn()
        await self.ready()
        self._task = asyncio.create_task(self._keep(), name="cloud")

    async def ready(self, deadline_s=READY_S):
        """Wait until it answers that it is ready."""
        deadline = time.monotonic() + deadline_s
        while not await self.is_ready():
            if self._task is not None and self._task.done():
                self._task.result()
            if time.monotonic() > deadline:
                raise CloudFailed(f"not ready within {deadline_s:g} s; said:\n{self._said()}")
            await asyncio.sleep(POLL_S)

    async def is_ready(self):
        """Whether it answers that it is ready."""
        with suppress(OSError, ValueError, Broken):
            self.key = json.loads((self.folder / "endpoint.json").read_text())["key"]
            return (await self.api.ask("GET", "/readyz", deadline_s=5.0)).status == 200
        return False

    async def die_at(self, failpoint, within_s):
        """Kill the server; the next one dies where `failpoint` says. Return its process id, None when it never did."""
        starts, self._failpoint = self.starts, failpoint
        send(self.server, signal.SIGKILL)
        while self.starts == starts:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        armed = self.server
        await self.ready()
        deadline = time.monotonic() + within_s
        while self.starts == starts + 1:
            if time.monotonic() > deadline:
                send(armed, signal.SIGKILL)
                return None
            await asyncio.sleep(POLL_S)
        return armed

    async def restart(self):
        """Stop it as Ctrl-C does, and start it again. Return the process id of the one that ended."""
        pid, starts, self._may_end = self.server, self.starts, True
        send(pid, signal.SIGINT)
        while self.starts == starts:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        return pid

    async def stop(self):
        """Stop it as Ctrl-C does."""
        self._is_stopping = True
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            await asyncio.to_thread(self._process.wait, STOP_S)
            self.ends.append(self._process.returncode)
        if self._task is not None:
            await self._task
            self._task = None

    def sweep(self):
        """Whatever happened, leave nothing: every process of this folder is killed."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        for pid in [*self.processes(), *([self._process.pid] if self._process else [])]:
            send(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def _spawn(self):
        self.starts += 1
        self._may_end = False
        command = [
            sys.executable,
            "-m",
            "tests.chaos.launcher",
            "up",
            "--port",
            str(self.port),
            "--data",
            str(self.data),
        ]
        command += ["--endpoint", str(self.folder / "endpoint.json"), *self._options]
        environment = {**self.environment, **self._armed()}
        with (self.folder / "up.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _armed(self):
        failpoint, self._failpoint = self._failpoint, None
        return {} if failpoint is None else {"APOTHIC_TEST_ONLY": "1", "APOTHIC_FAILPOINTS": failpoint}

    async def _keep(self):
        while not self._is_stopping:
            status = self._process.poll()
            if status is None:
                await asyncio.sleep(POLL_S)
                continue
            if self._is_stopping:
                return
            if status not in (-signal.SIGKILL, STORE_GONE) and not self._may_end:
                raise CloudFailed(f"the server ended by itself with status {status}; said:\n{self._said()}")
            self._spawn()

    def _said(self):
        with suppress(OSError):
            return (self.folder / "up.log").read_text()[-3000:]
        return ""

    # --- what there is

    @property
    def api(self):
        """The cloud's API with its owner's key."""
        return Api("127.0.0.1", self.port, self.key)

    @property
    def server(self):
        """Process id of the server."""
        return self._process.pid

    def worker(self):
        """Return the process id of the worker, or None."""
        mine = f"--data\0{self.data / 'worker'}\0".encode()
        return next((pid for pid in _pids() if b"apothic_worker.cli" in (line := command(pid)) and mine in line), None)

    def postmaster(self):
        """Return the process id of the database's first process, or None."""
        found = find_postmaster(self.data / "postgres" / "data")
        return None if found is None else found.pid

    def backends(self):
        """Return the processes that serve one connection of the database each."""
        master = self.postmaster()
        if master is None:
            return []
        return [pid for pid in _pids() if parent(pid) == master and b"apothic" in command(pid)]

    def processes(self):
        """Return every process of this folder: its server, its database, its worker, and all below them."""
        known = {pid for pid in _pids() if str(self.folder).encode() in command(pid)} - {os.getpid()}
        return sorted(known | below(known))

    def address(self):
        """Return where the database is; it must run."""
        found = find_postmaster(self.data / "postgres" / "data")
        if found is None:
            raise CloudFailed("the database does not run")
        password = (self.data / "postgres" / "password").read_text().strip()
        return StoreAddress(host=found.socket_folder, user="apothic", password=password, database="apothic")

    def logs(self):
        """Return the lines of every log of the cloud."""
        paths = [*sorted(self.folder.glob("*.log")), *sorted(self.data.glob("*.log*"))]
        return {path.name: path.read_text(errors="replace").splitlines() for path in paths if path.exists()}

    async def deploy(self, source, name="chaos_app"):
        """Deploy an app from its text, with the SDK."""
        path = self.folder / f"{name}.py"
        path.write_text(source)
        environment = {
            **self.environment,
            "APOTHIC_BASE_URL": f"http://127.0.0.1:{self.port}",
            "APOTHIC_API_KEY": self.key,
        }
        done = await asyncio.create_subprocess_exec(
            sys.executable,
            str(path),
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said, _ = await done.communicate()
        if done.returncode != 0:
            raise CloudFailed(f"the deploy failed: {said.decode()}")


def send(pid, number):
    """Send a signal; return whether the process was there."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def command(pid):
    """Return the command line of a process, its parts ended by zero bytes; empty when it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def parent(pid):
    """Return the parent of a process; 0 when it is gone or a zombie."""
    with suppress(OSError):
        state, number = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
        return 0 if state == "Z" else int(number)
    return 0


def below(pids):
    """Return all processes that descend from these."""
    parents = {pid: parent(pid) for pid in _pids()}
    found = set()
    while further := {pid for pid, above in parents.items() if above in pids or above in found} - found:
        found |= further
    return found - set(pids)


def _pids():
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _clean_environment(folder):
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    (folder / "tmp").mkdir(exist_ok=True)
    return {
        **kept,
        "HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder / ".config"),
        "TMPDIR": str(folder / "tmp"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
