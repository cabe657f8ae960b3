"""From measured times to the table, the goals and whether the run counts."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from _contenders import Contender

REFERENCE_SHARE = 0.7
"""A peer that is slower than this share of its reference ratio was not measured fairly."""

GOAL_HEAD = "| goal | what | measured | beside | times that | goal | stretch | |\n|---|---|---|---|---|---|---|---|"


@dataclass(frozen=True, slots=True)
class Figures:
    """Medians over the rounds, in microseconds, and the spread of the rounds' p50."""

    p50: float
    p99: float
    p50_min: float
    p50_max: float


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of the last table: what was measured, beside what, and what came of its goals.

    Attributes:
        name: Id of the goal, or `peer`.
        what: What was measured.
        figure: How much it was.
        beside: The peer or yardstick and its figure; empty when the goal is a plain number.
        ratio: The figure as a multiple of that.
        bound: What is asked, of the ratio when there is one; empty when only a stretch goal is.
        stretch: The stretch goal, or nothing.
        is_met: Whether the goal is met; None when there is none or its yardstick is missing.
        is_stretch_met: The same of the stretch goal.
    """

    name: str
    what: str
    figure: str
    beside: str
    ratio: str
    bound: str
    stretch: str
    is_met: bool | None
    is_stretch_met: bool | None

    @property
    def word(self) -> str:
        """What came of it."""
        if self.is_met is None and self.is_stretch_met is None:
            return "not measured"
        if self.is_met is False or (self.is_met is None and not self.is_stretch_met):
            return "**missed**"
        return "met, the stretch too" if self.stretch and self.is_stretch_met and self.bound else "met"

    def row(self) -> str:
        """Return it as a row of a Markdown table."""
        cells = (self.name, self.what, self.figure, self.beside, self.ratio, self.bound, self.stretch, self.word)
        return "| " + " | ".join(cells) + " |"


Beside = tuple[str, float | None]
"""Name and figure of what is compared with; None when it could not be measured."""


def micros(value: float) -> str:
    """Write microseconds for people."""
    if value >= 1_000_000:
        return f"{value / 1_000_000:,.2f} s"
    return f"{value:,.0f} µs" if value < 10_000 else f"{value / 1_000:,.1f} ms"


def seconds(value: float) -> str:
    """Write seconds for people."""
    return f"{value:,.2f} s"


def per_second(value: float) -> str:
    """Write a rate for people."""
    return f"{value:,.0f}/s"


def megabytes(value: float) -> str:
    """Write bytes for people."""
    return f"{value / 1_000_000:,.1f} MB"


def plain(value: float) -> str:
    """Write a number for people."""
    return f"{value:,.3g}" if value < 100 else f"{value:,.0f}"


def at_most(
    name: str,
    what: str,
    figure: float,
    goal: float | None,
    stretch: float | None = None,
    *,
    beside: Beside | None = None,
    show: Callable[[float], str] = micros,
) -> Goal:
    """Return a goal that is met by few: by the figure, or beside something by its multiple of that."""
    return _goal(name, what, figure, ("≤", goal, stretch), beside, show)


def at_least(
    name: str,
    what: str,
    figure: float,
    goal: float | None,
    stretch: float | None = None,
    *,
    beside: Beside | None = None,
    show: Callable[[float], str] = per_second,
) -> Goal:
    """Return a goal that is met by many: by the figure, or beside something by its multiple of that."""
    return _goal(name, what, figure, ("≥", goal, stretch), beside, show)


def _goal(
    name: str,
    what: str,
    figure: float,
    asked: tuple[str, float | None, float | None],
    beside: Beside | None,
    show: Callable[[float], str],
) -> Goal:
    sign, *bounds = asked
    show_bound, value, label, ratio = show, figure, "", ""
    if beside is not None:
        label, base = beside
        show_bound = plain
        if base is None:
            texts = ["" if bound is None else f"{sign} {plain(bound)}" for bound in bounds]
            return Goal(name, what, show(figure), f"{label}: not measured", "", texts[0], texts[1], None, None)
        value = figure / base if base else 0.0
        label, ratio = f"{label}: {show(base)}", f"{value:,.2f}"
    texts = ["" if bound is None else f"{sign} {show_bound(bound)}" for bound in bounds]
    met = [None if bound is None else (value <= bound if sign == "≤" else value >= bound) for bound in bounds]
    return Goal(name, what, show(figure), label, ratio, texts[0], texts[1], met[0], met[1])


def goal_table(found: Sequence[Goal]) -> str:
    """Return the goals as a Markdown table."""
    return "\n".join([GOAL_HEAD, *(goal.row() for goal in found)])


def figures(rounds: list[list[int]]) -> Figures:
    """Return the figures of the rounds of one contender, given in nanoseconds."""
    p50s = [_percentile(times, 50) / 1000 for times in rounds]
    p99s = [_percentile(times, 99) / 1000 for times in rounds]
    return Figures(statistics.median(p50s), statistics.median(p99s), min(p50s), max(p50s))


def invalid_reasons(found: Mapping[str, float], contenders: Sequence[Contender]) -> list[str]:
    """Name the peers that fall below `REFERENCE_SHARE` of their reference ratio to both E and F.

    Args:
        found: Microseconds of a call or an item by contender, those of E and F among them.
        contenders: Who was measured, with their references.
    """
    reasons: list[str] = []
    for contender in contenders:
        reference, measured = contender.reference_us, found.get(contender.key)
        if reference is None or measured is None:
            continue
        shares = {
            name: (found[name] / measured) / (base / reference)
            for name, base in (("E", contender.e_us), ("F", contender.f_us))
        }
        if max(shares.values()) < REFERENCE_SHARE:
            text = ", ".join(f"{share:.2f} to {name}" for name, share in shares.items())
            reasons.append(f"{contender.key} reached {text} of its reference ratio, {REFERENCE_SHARE} is needed")
    return reasons


def table(found: Mapping[str, Figures], reasons: Mapping[str, str], contenders: Sequence[Contender]) -> str:
    """Return the Markdown table of contenders that make one call at a time."""
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


def _percentile(times: list[int], share: int) -> int:
    return sorted(times)[min(len(times) - 1, len(times) * share // 100)]
