"""How long a worker takes to build an environment, beside plain uv and pip, in one run and one table.

All install the same packages, with a warm cache each, into a new folder. A worker's build ends with compiled bytecode,
so its yardstick is uv that compiles too; uv that leaves it to the first import is shown beside it.

Usage: envbuild.py [--quick] [--json FILE] [--rounds N]

Exits with 0 also when a goal is missed, and with 1 when the run is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from _contenders import Broken
from _measuring import Options, Report, run, told_round
from _verdict import at_most

from apothic.wire.images import ImageSpec
from apothic_worker.builds import build_environment, uv_program
from apothic_worker.failures import StartFailed
from apothic_worker.images import Environments
from apothic_worker.interpreters import find_interpreters

PACKAGES = ("fastapi==0.115.6", "uvicorn==0.34.0", "httpx==0.28.1", "numpy==2.2.1")
QUICK = ("idna==3.10",)
LABELS = {
    "ours": "Apothic: a worker builds it, bytecode compiled",
    "again": "Apothic: the same again",
    "U": "`uv venv`, `uv pip install --compile-bytecode`",
    "u": "`uv venv`, `uv pip install`",
    "P": "`python -m venv`, `pip install`",
}


def main() -> int:
    """Measure, print, and return the exit code."""
    options = Options(__doc__, "one small package, without pip")
    options.number("rounds", 5, 1, "rounds")
    return run(_measured, options.read())


def _measured(options: argparse.Namespace, folder: Path, _: ExitStack) -> Report:
    try:
        return asyncio.run(_measure(options, folder))
    except StartFailed as error:
        raise Broken(str(error)) from error


async def _measure(options: argparse.Namespace, folder: Path) -> Report:
    packages = QUICK if options.quick else PACKAGES
    interpreters = find_interpreters()
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    base = str(interpreters[python].executable)
    (folder / "scratch").mkdir()
    environments = Environments(folder / "environments", folder / "scratch", interpreters)
    image = ImageSpec(python, packages)
    plain: dict[str, Callable[[Path], None]] = {
        "U": lambda into: _uv(base, into, folder / "uv-cache", packages, "--compile-bytecode"),
        "u": lambda into: _uv(base, into, folder / "uv-cache", packages),
        "P": lambda into: _pip(base, into, folder / "pip-cache", packages),
    }
    if options.quick:
        del plain["P"]
    times: dict[str, list[float]] = {key: [] for key in LABELS}
    for number in range(options.rounds + 1):  # the first fills the caches
        found = {key: _timed(partial(work, folder / f"{key}{number}")) for key, work in plain.items()}
        found["ours"] = await _taken(environments, f"o{number}", image)
        found["again"] = await _taken(environments, f"o{number}", image)
        if number:
            for key, value in found.items():
                times[key].append(value)
            told_round(number - 1, options)
    await environments.close()
    medians = {key: statistics.median(values) for key, values in times.items() if values}
    lines = ["| | what | median | rounds |", "|---|---|---|---|"]
    for key, value in medians.items():
        lines.append(f"| {key} | {LABELS[key]} | {_ms(value)} | {_ms(min(times[key]))} to {_ms(max(times[key]))} |")
    uv = ("U", medians["U"])
    return Report(
        title="An environment",
        text=f"{options.rounds} interleaved rounds of {', '.join(packages)}.\n\n" + "\n".join(lines),
        goals=[
            at_most("P18", "an environment, wheels cached", medians["ours"], 1.5, 1.1, beside=uv, show=_ms),
            at_most("P18", "the same again", medians["again"], 50, show=_ms),
        ],
        figures={"packages": packages, "times_ms": times},
    )


async def _taken(environments: Environments, org: str, image: ImageSpec) -> float:
    """Return the milliseconds until an organisation has the environment; each has its own, over one cache."""
    began = time.perf_counter()
    environments.give_back(await environments.take(org, "d1", image))
    return (time.perf_counter() - began) * 1000


def _timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def _uv(python: str, into: Path, cache: Path, packages: tuple[str, ...], *options: str) -> None:
    common = ["--quiet", "--cache-dir", str(cache), "--no-python-downloads"]
    _run([uv_program(), "venv", "--no-project", "--python", python, *common, str(into)])
    _run([uv_program(), "pip", "install", "--python", str(into / "bin/python"), *common, *options, *packages])


def _pip(python: str, into: Path, cache: Path, packages: tuple[str, ...]) -> None:
    _run([python, "-m", "venv", str(into)])
    options = ["--quiet", "--cache-dir", str(cache), "--disable-pip-version-check"]
    _run([str(into / "bin/python"), "-m", "pip", "install", *options, *packages])


def _run(command: list[str]) -> None:
    pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    done = subprocess.run(command, env={**build_environment(os.environ), **pip}, capture_output=True, text=True)
    if done.returncode:
        raise Broken(f"{' '.join(command[:4])} … failed: {done.stderr.strip()[-500:]}")


def _ms(value: float) -> str:
    return f"{value:,.1f} ms" if value < 100 else f"{value / 1000:,.2f} s"


if __name__ == "__main__":
    sys.exit(main())
