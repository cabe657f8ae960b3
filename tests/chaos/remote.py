"""Workers of other machines: each dials through a way of its own, and is started again when it ends."""

import asyncio
import signal
import subprocess
import sys

from .cloudrun import ROOT, below, send
from .faultproxy import FaultProxy

NAMES = ("left", "right")
CPUS = "10"
STOP_S = 45.0
POLL_S = 0.02
RESTART_S = 0.3


class RemoteWorker:
    """One worker process with its way to the server.

    Attributes:
        ends: Exit statuses so far.
    """

    def __init__(self, cloud, name, chance):
        self.name = name
        self.data = cloud.folder / f"worker-{name}"
        self.proxy = FaultProxy(cloud.port, chance)
        self.ends = []
        self._cloud = cloud
        self._process = None
        self._task = None

    async def start(self):
        """Start it and keep it running."""
        await self.proxy.start()
        self._spawn()
        self._task = asyncio.create_task(self._keep(), name=f"worker {self.name}")

    async def stop(self):
        """Stop it as a service manager does; it lets jobs finish."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._process is not None and self._process.poll() is None:
            send(self._process.pid, signal.SIGTERM)
            await asyncio.to_thread(self._process.wait, STOP_S)
        await self.proxy.stop()

    def abandon(self):
        """Start it no more; whoever sweeps the folder kills it."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def drain(self):
        """Tell it to stop; what comes next is a new start. Returns its process id."""
        pid = self.pid
        send(pid, signal.SIGTERM)
        while self.pid == pid:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        return pid

    @property
    def pid(self):
        """Process id of its newest start."""
        return self._process.pid

    def user_code(self, running):
        """Return those of the processes `running` that are below this worker."""
        return sorted(set(running) & below({self.pid}))

    def _spawn(self):
        command = [sys.executable, "-m", "tests.chaos.launcher", "worker", "run"]
        command += ["--url", f"http://127.0.0.1:{self.proxy.port}"]
        command += ["--token-file", str(self._cloud.data / "secrets" / "worker-token")]
        command += ["--data", str(self.data), "--name", self.name, "--cpus", CPUS, "--memory-mb", "2048"]
        with (self._cloud.folder / f"worker-{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=self._cloud.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    async def _keep(self):
        while True:
            status = self._process.poll()
            if status is not None:
                self.ends.append(status)
                await asyncio.sleep(RESTART_S)
                self._spawn()
            await asyncio.sleep(POLL_S)
