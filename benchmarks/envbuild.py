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
from typing import Any

from _contenders import Broken
from _machine import machine_line, moment
from _measuring import run
from _verdict import Goal, as_json, goal_table

from apothic.wire.images import ImageSpec
from apothic_worker.builds import build_environment, uv_program
from apothic_worker.failures import StartFailed
from apothic_worker.images import Environments
from apothic_worker.interpreters import find_interpreters

PACKAGES = ("fastapi==0.115.6", "uvicorn==0.34.0", "httpx==0.28.1", "numpy==2.2.1")
QUICK = ("idna==3.10",)
ROUNDS = 5
AGAIN_MS_MAX = 50.0
LABELS = {
    "ours": "Apothic: a worker builds it, bytecode compiled",
    "again": "Apothic: the same again",
    "U": "`uv venv`, `uv pip install --compile-bytecode`",
    "u": "`uv venv`, `uv pip install`",
    "P": "`python -m venv`, `pip install`",
}


def main() -> int:
    """Measure, print, and return the exit code."""
    return run(_measured, _options())


def _measured(options: argparse.Namespace, folder: Path, _: ExitStack) -> dict[str, Any]:
    try:
        return asyncio.run(_measure(options, folder))
    except StartFailed as error:
        raise Broken(str(error)) from error


async def _measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
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
    before = moment()
    for number in range(options.rounds + 1):  # the first fills the caches
        found = {key: _timed(partial(work, folder / f"{key}{number}")) for key, work in plain.items()}
        found["ours"] = await _taken(environments, f"o{number}", image)
        found["again"] = await _taken(environments, f"o{number}", image)
        if number:
            for key, value in found.items():
                times[key].append(value)
        print(f"round {number} of {options.rounds} is done", file=sys.stderr)
    await environments.close()
    line = machine_line(before, moment())
    medians = {key: statistics.median(values) for key, values in times.items() if values}
    goals = _goals(medians)
    print(f"\n## An environment\n\n{line}\n\n{options.rounds} interleaved rounds of {', '.join(packages)}.\n")
    print("| | what | median | rounds |\n|---|---|---|---|")
    for key, value in medians.items():
        print(f"| {key} | {LABELS[key]} | {_ms(value)} | {_ms(min(times[key]))} to {_ms(max(times[key]))} |")
    print(f"\n{goal_table(goals)}")
    return {"machine": line, "packages": packages, "times_ms": times, "goals": [as_json(goal) for goal in goals]}


def _goals(medians: dict[str, float]) -> list[Goal]:
    ours, again = medians["ours"], medians["again"]
    found = [
        Goal(name, f"{factor} U = {_ms(factor * medians['U'])}", _ms(ours), ours <= factor * medians["U"])
        for name, factor in (("P18", 1.5), ("P18 stretch", 1.1))
    ]
    return [*found, Goal("P18", f"{AGAIN_MS_MAX:.0f} ms, the same again", _ms(again), again <= AGAIN_MS_MAX)]


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


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How long a worker builds an environment, beside uv and pip.")
    parser.add_argument("--quick", action="store_true", help="a smoke run: one small package, without pip")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there too")
    parser.add_argument("--rounds", type=int, help=f"rounds (default {ROUNDS})")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else ROUNDS)
    return options


if __name__ == "__main__":
    sys.exit(main())
