"""What benchmarks have in common: options, a folder that goes away, interleaved rounds, and one report of each run."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from _contenders import INSTALLED, Broken, Contender, Driver, Started, start
from _environments import BENCH
from _machine import busy_reasons, machine_line, moment, stolen_reasons
from _verdict import Figures, Goal, figures, goal_table, table

RESULTS = BENCH / "results"
"""What `table.py` puts together: one file for each benchmark that ran, not for smoke runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a benchmark found.

    Attributes:
        title: Headline.
        text: What was done and measured, in Markdown.
        goals: What was to be reached.
        figures: Everything measured, for programs.
        invalid: Why the run does not count, if it does not.
        missing: Why contenders were not measured, by key.
    """

    title: str
    text: str
    goals: Sequence[Goal]
    figures: Mapping[str, Any]
    invalid: Sequence[str] = ()
    missing: Mapping[str, str] = field(default_factory=dict)


Measure = Callable[[argparse.Namespace, Path, ExitStack], Report]


class Options(argparse.ArgumentParser):
    """Options of a benchmark: `--quick`, `--json`, and numbers that are smaller in a quick run."""

    def __init__(self, described: str | None, quick: str) -> None:
        super().__init__(description=(described or "").partition("\n")[0])
        self.add_argument("--quick", action="store_true", help=f"a smoke run: {quick}")
        self.add_argument("--json", type=Path, metavar="FILE", help="write the result there too")
        self._numbers: dict[str, tuple[int, int]] = {}

    def number(self, name: str, default: int, quick: int, what: str) -> None:
        """Add an option that is a number, by default another one in a quick run."""
        self.add_argument(f"--{name}", type=int, metavar="N", help=f"{what} (default {default:,})")
        self._numbers[name.replace("-", "_")] = (default, quick)

    def read(self) -> argparse.Namespace:
        """Return what was given."""
        found = self.parse_args()
        for name, (default, quick) in self._numbers.items():
            if getattr(found, name) is None:
                setattr(found, name, quick if found.quick else default)
        return found


def run(measure: Measure, options: argparse.Namespace) -> int:
    """Measure, print the report, keep it, and return the exit code.

    Args:
        measure: Gets the options, a folder of its own, and what is undone at the end.
    """
    # Ends drivers and folder also when the terminal or a time limit ends this process.
    signal.signal(signal.SIGTERM, _leave)
    BENCH.mkdir(exist_ok=True)
    busy = ["a smoke run"] if options.quick else busy_reasons("before")
    before = moment()
    try:
        with ExitStack() as stack:
            folder = Path(tempfile.mkdtemp(prefix="run-", dir=BENCH))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            report = measure(options, folder, stack)
    except Broken as error:
        print(f"broken: {error}", file=sys.stderr)
        return 1
    after = moment()
    line = machine_line(before, after)
    busy += [] if options.quick else busy_reasons("after")
    invalid = [*busy, *stolen_reasons(before, after), *report.invalid]
    print(f"\n## {report.title}\n\n{line}\n\n{report.text}\n\n{goal_table(report.goals)}\n")
    print(_standing(invalid, report.missing))
    result = {
        "title": report.title,
        "machine": line,
        "invalid": invalid,
        "not_measured": dict(report.missing),
        "goals": [asdict(goal) for goal in report.goals],
        **report.figures,
    }
    text = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
    if options.json is not None:
        options.json.write_text(text)
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{Path(sys.argv[0]).stem}.json").write_text(text)
    return 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """What contenders took, and why the others were not measured."""

    contenders: tuple[Contender, ...]
    started: Started
    found: dict[str, Figures]
    reasons: dict[str, str]

    def table(self) -> str:
        """Return the table of those that make one call at a time."""
        return table(self.found, self.reasons, self.contenders)

    def p50(self, key: str) -> float | None:
        """Return the p50 in microseconds; None when it was not measured."""
        return self.found[key].p50 if key in self.found else None

    def figures(self, options: argparse.Namespace) -> dict[str, Any]:
        """Return what programs are told."""
        times = {key: asdict(value) for key, value in self.found.items()}
        return {"calls": options.calls, "rounds": options.rounds, "figures_us": times}


def compare(
    contenders: tuple[Contender, ...],
    options: argparse.Namespace,
    folder: Path,
    stack: ExitStack,
    measured: Callable[[Contender, Driver], list[int]],
) -> Comparison:
    """Start contenders and measure all of them in each of `options.rounds` rounds; a quick run leaves peers out.

    Args:
        measured: Returns the nanoseconds of each call of one round.
    """
    started = begin(contenders, options, folder, stack)
    there = [one for one in contenders if one.driver in started.drivers]
    times: dict[str, list[list[int]]] = {one.key: [] for one in there}
    for number in range(options.rounds):
        for one in there:
            times[one.key].append(measured(one, started.drivers[one.driver]))
        told_round(number, options)
    found = {key: figures(rounds) for key, rounds in times.items()}
    return Comparison(contenders, started, found, left_out(contenders, started))


def begin(contenders: tuple[Contender, ...], options: argparse.Namespace, folder: Path, stack: ExitStack) -> Started:
    """Start the drivers of contenders; of a quick run only of those that need no installation."""
    wanted = tuple(one for one in contenders if not options.quick or one.driver not in INSTALLED)
    return start(wanted, folder, stack.callback)


def left_out(contenders: tuple[Contender, ...], started: Started) -> dict[str, str]:
    """Return why contenders are not measured, by key."""
    missing = [one for one in contenders if one.driver not in started.drivers]
    return {one.key: started.reasons.get(one.driver, "--quick") for one in missing}


def told_round(number: int, options: argparse.Namespace) -> None:
    """Say how far the run is."""
    print(f"round {number + 1} of {options.rounds} is done", file=sys.stderr)


def _standing(invalid: Sequence[str], missing: Mapping[str, str]) -> str:
    lines: list[str] = []
    if invalid:
        lines.append(f"The run is **invalid**: {'; '.join(invalid)}.")
    if missing:
        lines.append(f"The run is **incomplete**: {', '.join(sorted(missing))} not measured.")
    return "\n\n".join(lines or ["The run is complete and valid."])


def _leave(_number: int, _frame: object) -> None:
    sys.exit(1)
