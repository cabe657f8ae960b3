"""From measured times to the table, the goals and whether the run counts."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from _contenders import CONTENDERS, Contender

REFERENCE_SHARE = 0.7
"""A peer that is slower than this share of its reference ratio was not measured fairly."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Medians over the rounds, in microseconds, and the spread of the rounds' p50."""

    p50: float
    p99: float
    p50_min: float
    p50_max: float


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal and what came of it; `is_met` is None when a yardstick is missing."""

    name: str
    bound: str
    measured: str
    is_met: bool | None


def figures(rounds: list[list[int]]) -> Figures:
    """Return the figures of the rounds of one contender, given in nanoseconds."""
    p50s = [_percentile(times, 50) / 1000 for times in rounds]
    p99s = [_percentile(times, 99) / 1000 for times in rounds]
    return Figures(statistics.median(p50s), statistics.median(p99s), min(p50s), max(p50s))


def invalid_reasons(found: Mapping[str, Figures]) -> list[str]:
    """Name the peers that fall below `REFERENCE_SHARE` of their reference ratio to both E and F."""
    reasons: list[str] = []
    for contender in CONTENDERS:
        reference, measured = contender.reference_us, found.get(contender.key)
        if reference is None or measured is None:
            continue
        shares = {
            name: (found[name].p50 / measured.p50) / (base / reference)
            for name, base in (("E", contender.e_us), ("F", contender.f_us))
        }
        if max(shares.values()) < REFERENCE_SHARE:
            text = ", ".join(f"{share:.2f} to {name}" for name, share in shares.items())
            reasons.append(f"{contender.key} reached {text} of its reference ratio, {REFERENCE_SHARE} is needed")
    return reasons


def goals(found: Mapping[str, Figures], counted: Mapping[str, float]) -> list[Goal]:
    """Return P1, P2 and P6 with their stretch goals."""
    ours = found["ours"]
    p50 = {key: value.p50 for key, value in found.items()}
    fsync_p99 = found["F"].p99
    return [
        _at_most("P1", "5 U + 3 T", ours.p50, _sum(p50, U=5, T=3)),
        _at_most("P1", "0.6 C", ours.p50, _sum(p50, C=0.6)),
        _at_most("P1", "1 RT", ours.p50, _sum(p50, RT=1)),
        _at_most("P1 stretch", "2 U + 1.5 T", ours.p50, _sum(p50, U=2, T=1.5)),
        _at_most("P1 stretch", "1 RA", ours.p50, _sum(p50, RA=1)),
        _at_most("P2", "4 p50 + 2 p99 of F", ours.p99, 4 * ours.p50 + 2 * fsync_p99),
        _at_most("P2 stretch", "2.5 p50", ours.p99, 2.5 * ours.p50),
        *_commit_goals(counted),
    ]


def table(found: Mapping[str, Figures], reasons: Mapping[str, str], contenders: tuple[Contender, ...]) -> str:
    """Return the Markdown table."""
    lines = ["| | what | p50 | p99 | p50 of the rounds | times E | durability |", "|---|---|---|---|---|---|---|"]
    for contender in contenders:
        measured = found.get(contender.key)
        start = f"| {contender.key} | {contender.label} |"
        if measured is None:
            lines.append(f"{start} not measured: {reasons[contender.key]} | | | | |")
            continue
        spread = f"{micros(measured.p50_min)} to {micros(measured.p50_max)}"
        times_e = f"{measured.p50 / found['E'].p50:.1f}"
        lines.append(
            f"{start} {micros(measured.p50)} | {micros(measured.p99)} | {spread} | {times_e} | {contender.durability} |"
        )
    return "\n".join(lines)


def goal_table(found: list[Goal]) -> str:
    """Return the goals as a Markdown table."""
    words = {True: "met", False: "**missed**", None: "not measured"}
    rows = [f"| {goal.name} | {goal.bound} | {goal.measured} | {words[goal.is_met]} |" for goal in found]
    return "\n".join(["| goal | at most | measured | |", "|---|---|---|---|", *rows])


def as_json(goal: Goal) -> dict[str, Any]:
    """Return a goal for `--json`."""
    return {"goal": goal.name, "bound": goal.bound, "measured": goal.measured, "met": goal.is_met}


def micros(value: float) -> str:
    """Write microseconds for people."""
    return f"{value:,.0f} µs" if value < 10_000 else f"{value / 1000:,.1f} ms"


def _commit_goals(counted: Mapping[str, float]) -> list[Goal]:
    singles, many = counted["commits_per_job"], counted["commits_per_job_in_flight"]
    return [
        Goal("P6", "2 commits a job, one at a time", f"{singles:.2f}", singles <= 2),
        Goal("P6 stretch", "1 commit a job, one at a time", f"{singles:.2f}", singles <= 1.02),
        Goal("P6", "0.2 commits a job, 64 in flight", f"{many:.3f}", many <= 0.2),
        Goal("P6 stretch", "0.05 commits a job, 64 in flight", f"{many:.3f}", many <= 0.05),
    ]


def _at_most(name: str, bound: str, measured: float, limit: float | None) -> Goal:
    if limit is None:
        return Goal(name, bound, micros(measured), None)
    return Goal(name, f"{bound} = {micros(limit)}", micros(measured), measured <= limit)


def _sum(p50: Mapping[str, float], **weights: float) -> float | None:
    if any(key not in p50 for key in weights):
        return None
    return sum(p50[key] * weight for key, weight in weights.items())


def _percentile(times: list[int], share: int) -> int:
    return sorted(times)[min(len(times) - 1, len(times) * share // 100)]
