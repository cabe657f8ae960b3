"""How long the command line and the import of the SDK take, beside those of peers.

Each run is a process of its own, from its start to its end, as somebody at a terminal waits for it. Rounds are
interleaved: ours, the interpreter alone, each peer, then again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from _contenders import Broken
from _environments import BENCH, NotMeasured, environment
from _measuring import Options, Report, run
from _verdict import Goal, at_most

READY_S = 60.0
BIN = Path(sys.executable).parent
APP = Path(__file__).parent / "_noop" / "noop.py"


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that is run; `home` is the environment of a peer, None for our own."""

    key: str
    label: str
    words: tuple[str, ...]
    home: str | None = None


ROWS = (
    Row("I", "Python alone", ("python", "-c", "pass")),
    Row("import", "`import apothic`", ("python", "-c", "import apothic")),
    Row("app", "`from apothic import App`", ("python", "-c", "from apothic import App")),
    Row("help", "`apothic --help`", ("apothic", "--help")),
    Row("ps", "`apothic ps`, local cloud", ("apothic", "ps")),
    Row("tab", "`apothic logs ben` and the Tab key, names remembered", ("apothic",)),
    Row("modal import", "`import modal`", ("python", "-c", "import modal"), "modal"),
    Row("modal help", "`modal --help`", ("modal", "--help"), "modal"),
    Row("beta9 import", "`import beta9`", ("python", "-c", "import beta9"), "beta9"),
    Row("beta9 help", "`beta9 --help`", ("beta9", "--help"), "beta9"),
    Row("prefect import", "`import prefect`", ("python", "-c", "import prefect"), "prefect"),
    Row("prefect help", "`prefect --help`", ("prefect", "--help"), "prefect"),
    Row("ray import", "`import ray`", ("python", "-c", "import ray"), "ray"),
    Row("ray help", "`ray --help`", ("ray", "--help"), "ray"),
)
TAB = {"_APOTHIC_COMPLETE": "bash_complete", "COMP_LINE": "apothic logs ben"}


def main() -> int:
    """Measure, print, and return the exit code."""
    options = Options(__doc__, "few rounds without peers")
    options.number("rounds", 15, 3, "rounds")
    return run(_measure, options.read())


def _measure(options: argparse.Namespace, folder: Path, stack: ExitStack) -> Report:
    rows, reasons = _measurable(quick=options.quick)
    env = _cloud(folder, stack)
    for row in rows:
        if _run(row, env) is None and row.home is None:
            raise Broken(f"{row.label} fails")
    times: dict[str, list[float]] = {row.key: [] for row in rows}
    for _ in range(options.rounds):
        for row in rows:
            took = _run(row, env)
            if took is None:
                reasons[row.key] = "it fails here"
            else:
                times[row.key].append(took)
    middle = {key: statistics.median(found) for key, found in times.items() if found}
    lines = ["| what | p50 | fastest | slowest | times I |", "|---|---|---|---|---|"]
    for row in ROWS:
        if row.key in middle:
            found = times[row.key]
            low, high, many = min(found), max(found), middle[row.key] / middle["I"]
            lines.append(f"| {row.label} | {middle[row.key]:.0f} ms | {low:.0f} ms | {high:.0f} ms | {many:.1f} |")
        else:
            lines.append(f"| {row.label} | not measured: {reasons.get(row.key, 'left out')} | | | |")
    return Report(
        title="The command line",
        text=f"{options.rounds} interleaved rounds\n\n" + "\n".join(lines),
        goals=_goals(middle),
        figures={"p50_ms": middle},
        missing=reasons,
    )


def _measurable(*, quick: bool) -> tuple[list[Row], dict[str, str]]:
    found: list[Row] = []
    reasons: dict[str, str] = {}
    for row in ROWS:
        if row.home is not None and quick:
            reasons[row.key] = "a quick run installs nothing"
            continue
        try:
            if row.home is not None:
                environment(row.home)
        except NotMeasured as reason:
            reasons[row.key] = str(reason)
        else:
            found.append(row)
    return found, reasons


def _cloud(folder: Path, stack: ExitStack) -> dict[str, str]:
    """Start a cloud with one app; return the variables under which commands find it."""
    home = folder / "home"
    home.mkdir()
    place = folder / "endpoint.json"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("APOTHIC_")}
    env = {**kept, "HOME": str(home)}
    data = ["--data", str(folder / "data"), "--port", "0", "--endpoint", str(place)]
    stack.callback(subprocess.run, [str(BIN / "apothic"), "down", *data[:2]], env=env, capture_output=True, check=False)
    up = subprocess.run(
        [str(BIN / "apothic"), "up", "--detach", *data], env=env, capture_output=True, text=True, timeout=READY_S
    )
    if up.returncode:
        raise Broken(f"apothic up ended\n{up.stderr[-2000:]}")
    told = json.loads(place.read_text())
    env |= {"APOTHIC_BASE_URL": told["url"], "APOTHIC_API_KEY": told["key"]}
    subprocess.run([sys.executable, APP], env=env, check=True, cwd=APP.parent, capture_output=True)
    return env


def _run(row: Row, env: dict[str, str]) -> float | None:
    """Return the milliseconds of one run; None when it failed."""
    folder = BIN if row.home is None else BENCH / row.home / "bin"
    command = [str(folder / row.words[0]), *row.words[1:]]
    began = time.perf_counter()
    done = subprocess.run(
        command, env={**env, **(TAB if row.key == "tab" else {})}, capture_output=True, stdin=subprocess.DEVNULL
    )
    took = (time.perf_counter() - began) * 1000
    is_good = done.returncode == 0 and (row.key != "tab" or b"bench-call" in done.stdout)
    return took if is_good else None


def _goals(middle: dict[str, float]) -> list[Goal]:
    return [
        at_most("P22", "`import apothic`", middle["import"], 7, 4, beside=("I", middle["I"]), show=_ms),
        at_most("--help", "`apothic --help`", middle["help"], 150, show=_ms),
        at_most("ps", "`apothic ps`, local cloud", middle["ps"], 400, show=_ms),
        at_most("Tab", "names after the Tab key", middle["tab"], 100, show=_ms),
    ]


def _ms(value: float) -> str:
    return f"{value:.0f} ms"


if __name__ == "__main__":
    sys.exit(main())
