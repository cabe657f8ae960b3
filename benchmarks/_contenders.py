"""What is measured: each contender is a driver process that makes calls when it is told to."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _environments import NotMeasured, environment, redis_server

DRIVERS = Path(__file__).with_name("_drivers")
sys.path.append(str(DRIVERS))  # what drivers share, such as a cloud, serves benchmarks without contenders too
STOP_S = 45
ERROR_LINES = 15


class Broken(Exception):
    """A driver ended or answered nonsense; the text holds what it said last."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One row of the table.

    Attributes:
        key: Short name used in goals: `ours`, `E`, `U`, `F`, `T`, `C`, `C*`, `RT`, `RA`.
        driver: Drivers with equal names are one process with several cells.
        reference_us: Its p50 in the reference table, beside that of E (`e_us`) and F (`f_us`) of that table.
    """

    key: str
    label: str
    durability: str
    driver: str
    cell: str = "call"
    reference_us: float | None = None
    e_us: float = 24
    f_us: float = 135


INSTALLED = ("starlette", "broadcast-starlette", "celery", "celery-aof", "redeploy-celery", "ray", "taskiq", "dbos")
"""Drivers in environments of their own, which a quick run leaves out; any other one that fails breaks the run."""


def commands(folder: Path) -> dict[str, Callable[[], list[str]]]:
    """Return the command of each driver; asking for one makes its environment, or raises `NotMeasured`."""
    ours = sys.executable

    def python(name: str) -> str:
        return str(environment(name) / "bin" / "python")

    def driver(name: str, *arguments: str) -> list[str]:
        return [str(DRIVERS / f"{name}.py"), *arguments]

    return {
        "cloud": lambda: [ours, *driver("cloud", _sub(folder, "cloud"))],
        "map": lambda: [ours, *driver("map_cloud", _sub(folder, "map"))],
        "map-slow": lambda: [ours, *driver("map_cloud", _sub(folder, "map-slow"), "--commit-delay-ms", "5")],
        "pool": lambda: [ours, *driver("pool_calls")],
        "taskiq": lambda: [python("taskiq"), *driver("taskiq_calls", _sub(folder, "taskiq"), redis_server())],
        "dbos": lambda: [python("dbos"), *driver("dbos_calls", _sub(folder, "dbos"), ours)],
        "redeploy": lambda: [ours, *driver("redeploy_cloud", _sub(folder, "redeploy"))],
        "redeploy-celery": lambda: [
            python("celery"),
            *driver("redeploy_celery", _sub(folder, "redeploy-celery"), redis_server()),
        ],
        "httptools": lambda: [ours, *driver("echo", "httptools")],
        "disk": lambda: [ours, *driver("disk", _sub(folder, "disk"))],
        "postgres": lambda: [ours, *driver("postgres", _sub(folder, "postgres"))],
        "starlette": lambda: [python("web"), *driver("echo", "starlette")],
        "broadcast": lambda: [ours, *driver("broadcast", "httptools")],
        "broadcast-starlette": lambda: [python("web"), *driver("broadcast", "starlette")],
        "celery": lambda: [python("celery"), *driver("celery_calls", _sub(folder, "redis"), redis_server(), "memory")],
        "celery-aof": lambda: [python("celery"), *driver("celery_calls", _sub(folder, "aof"), redis_server(), "aof")],
        "ray": lambda: [python("ray"), *driver("ray_calls")],
    }


class Driver:
    """A running driver.

    Raises:
        Broken: It did not start.
    """

    def __init__(self, name: str, command: list[str], folder: Path) -> None:
        self.name = name
        self._errors = folder / f"{name}.err"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        self.pid = self._process.pid
        self.ready: dict[str, Any] = self._answer()["ready"]

    def round(self, cell: str, calls: int, warm: int) -> list[int]:
        """Return the nanoseconds of each of `calls` calls, one at a time, after `warm` more."""
        return self.ask({"cell": cell, "calls": calls, "warm": warm})["ns"]

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and return its answer."""
        self.tell(request)
        return self._answer()

    def tell(self, request: dict[str, Any]) -> None:
        """Send a request; `hear` returns its answer."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """Wait for the answer to the request before."""
        return self._answer()

    def stop(self) -> None:
        """End it and everything it started."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.terminate()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.stop()
            said = "\n".join(self._errors.read_text(errors="replace").strip().splitlines()[-ERROR_LINES:])
            raise Broken(f"the driver {self.name} ended:\n{said}")
        return json.loads(line)


def start(
    contenders: tuple[Contender, ...], folder: Path, stop_later: Callable[[Callable[[], None]], object]
) -> Started:
    """Start the drivers of `contenders`, each at once usable; a peer that fails becomes a reason, ours raises.

    Raises:
        Broken: One that every run needs does not start.
    """
    started = Started({}, {})
    every = commands(folder)
    for contender in contenders:
        name = contender.driver
        if name in started.drivers or name in started.reasons:
            continue
        try:
            driver = Driver(name, every[name](), folder)
        except NotMeasured as reason:
            started.reasons[name] = str(reason)
        except Broken as error:
            if name not in INSTALLED:
                raise
            started.reasons[name] = str(error).replace("\n", " ")[:200]
        else:
            stop_later(driver.stop)
            started.drivers[name] = driver
    return started


@dataclass(frozen=True, slots=True)
class Started:
    """Drivers that run, and why the others do not, by name."""

    drivers: dict[str, Driver]
    reasons: dict[str, str]


def _sub(folder: Path, name: str) -> str:
    (folder / name).mkdir()
    return str(folder / name)
