"""What a job costs while many others wait, and what a cloud costs that has nothing to do, in one run (P8, P20).

Each step submits a job to a function with one runner and lets its running job end. So as many wait all the time: 10 in
one cloud, 10,000 in another, and with `--queued N` so many in a third. A claim is the time from the end of one job to
the first line of the next.

Usage: scale.py [--quick] [--json FILE] [--deep N] [--queued N] [--steps N] [--rounds N] [--idle-s N]

Exits with 0 also when a goal is missed, and with 1 when the run is broken.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from _contenders import Driver
from _measuring import Options, Report, run, told_round
from _processes import below, pss, roles, schedule
from _verdict import Goal, at_most, figures, micros
from children import child, wait_until
from clouds import PROGRAM, cloud, deploy

FEW, WARM = 10, 20
QUEUED_MAX = 999_000
"""An org may have a million; the steps need room."""

SETTLE_S = 5.0


@dataclass(slots=True)
class Depth:
    """What was measured while so many jobs waited: nanoseconds of each round, and of each role's processors."""

    submit_ns: list[list[int]] = field(default_factory=list)
    claim_ns: list[list[int]] = field(default_factory=list)
    ran_ns: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    steps: int = 0
    memory: int = 0

    def times(self) -> dict[str, float]:
        """Return the p50 of a submit and of a claim, and processor time for each job, in microseconds."""
        spent = sum(self.ran_ns.values()) / self.steps / 1_000
        return {"submit": figures(self.submit_ns).p50, "claim": figures(self.claim_ns).p50, "cpu": spent}


def main() -> int:
    """Measure, print, and return the exit code."""
    options = Options(__doc__, "few jobs, two seconds of rest")
    options.number("deep", 10_000, 500, "jobs that wait in the second cloud")
    options.number("queued", 0, 0, "jobs that wait in a third cloud, 0 for none")
    options.number("steps", 200, 20, "jobs submitted and ended in a round")
    options.number("rounds", 5, 1, "rounds")
    options.number("idle-s", 60, 2, "seconds of rest")
    return run(_measure, options.read())


def _measure(options: argparse.Namespace, folder: Path, stack: ExitStack) -> Report:
    idle = _idle(folder, options.idle_s)
    wanted = [FEW, options.deep, *([min(options.queued, QUEUED_MAX)] if options.queued else [])]
    drivers = {depth: _driver(depth, folder, stack) for depth in wanted}
    found = {depth: Depth() for depth in wanted}
    for depth, driver in drivers.items():
        driver.ask({"extra": "steps", "steps": WARM})
        found[depth].memory = pss([driver.ready["pid"]])
    for number in range(options.rounds):
        for depth, driver in drivers.items():
            _round(driver, found[depth], options.steps)
        told_round(number, options)
    each = {depth: (one.memory - found[FEW].memory) / depth for depth, one in found.items() if depth != FEW}
    return Report(
        title="Many waiting jobs, and none at all",
        text=f"{options.rounds} interleaved rounds of {options.steps} jobs.\n\n{_table(found, each)}\n\n"
        f"At rest, with one app, two workers and no calls, in {options.idle_s} s, of one processor: "
        + ", ".join(f"{name} {share:.2%}" for name, share in idle.items())
        + ".",
        goals=[*_goals(found, each), at_most("P20", "a cloud at rest", sum(idle.values()), 0.01, 0.002, show=_percent)],
        figures={
            "times_us": {depth: one.times() for depth, one in found.items()},
            "cpu_us": {
                depth: {role: ran / one.steps / 1_000 for role, ran in one.ran_ns.items()}
                for depth, one in found.items()
            },
            "bytes_a_job": each,
            "idle_shares": idle,
        },
    )


def _driver(depth: int, folder: Path, stack: ExitStack) -> Driver:
    place = folder / f"queue-{depth}"
    place.mkdir()
    script = Path(__file__).with_name("_drivers") / "queue_cloud.py"
    driver = Driver(place.name, [sys.executable, str(script), str(place), str(depth)], folder)
    stack.callback(driver.stop)
    return driver


def _round(driver: Driver, into: Depth, steps: int) -> None:
    kinds = roles(driver.ready["pid"])
    before = {role: schedule(pids)[0] for role, pids in kinds.items()}
    told = driver.ask({"extra": "steps", "steps": steps})
    for role, pids in kinds.items():
        into.ran_ns[role] += schedule(pids)[0] - before[role]
    into.submit_ns.append(told["submit_ns"])
    into.claim_ns.append(told["claim_ns"])
    into.steps += steps


def _idle(folder: Path, seconds: int) -> dict[str, float]:
    """Return the shares of one processor that a cloud at rest takes, by role."""
    (folder / "idle").mkdir()
    with cloud(folder / "idle") as place:
        deploy("noop")
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(subprocess.check_output([PROGRAM, "worker", "token"], text=True))
        join = [PROGRAM, "worker", "join", "--server", place["url"], "--token-file", token, "--name", "second"]
        with child([str(word) for word in [*join, "--data", folder / "second"]]) as second:
            wait_until(_are_live, "the second worker", second)
            time.sleep(min(seconds, SETTLE_S))
            kinds = roles(place["pid"])
            kinds["second worker"] = [second.pid, *below(second.pid)]
            before = {role: schedule(pids)[0] for role, pids in kinds.items()}
            began = time.perf_counter()
            time.sleep(seconds)
            lasted = time.perf_counter() - began
            return {role: (schedule(pids)[0] - before[role]) / lasted / 1e9 for role, pids in kinds.items()}


def _are_live() -> bool:
    from apothic import ControlPlaneClient

    return [one.status for one in ControlPlaneClient.from_env().list_workers()].count("live") == 2


def _goals(found: dict[int, Depth], each: dict[int, float]) -> list[Goal]:
    few = found[FEW].times()
    words = {"submit": "a submit, p50", "claim": "a claim, p50", "cpu": "processor time a job"}
    goals: list[Goal] = []
    for place, depth in enumerate(each):
        bounds = (1.3, 1.1) if place == 0 else (2.0, None)
        times = found[depth].times()
        goals += [
            at_most("P8", f"{what}, {depth:,} wait", times[key], *bounds, beside=(f"{FEW} wait", few[key]))
            for key, what in words.items()
        ]
    deep, *deeper = each
    beside = (f"{deep:,} wait", each[deep])
    goals += [
        at_most("P8", f"memory a job, {depth:,} wait", each[depth], 2, beside=beside, show=_bytes) for depth in deeper
    ]
    return goals


def _table(found: dict[int, Depth], each: dict[int, float]) -> str:
    lines = [
        "| jobs that wait | submit, p50 | claim, p50 | processor time a job | of it the server | memory a job |",
        "|---|---|---|---|---|---|",
    ]
    for depth, one in found.items():
        times, memory = one.times(), _bytes(each[depth]) if depth in each else ""
        server = micros(one.ran_ns["server"] / one.steps / 1_000)
        middle = " | ".join(micros(times[key]) for key in ("submit", "claim", "cpu"))
        lines.append(f"| {depth:,} | {middle} | {server} | {memory} |")
    return "\n".join(lines)


def _bytes(value: float) -> str:
    return f"{value:,.0f} B"


def _percent(value: float) -> str:
    return f"{value:.2%}"


if __name__ == "__main__":
    sys.exit(main())
