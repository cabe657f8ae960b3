"""What a run says in the end: its counts, its violations, and whether it was a run at all."""

from collections import Counter
from dataclasses import dataclass, field

FAULTS_SHARE_MIN = 0.8
OPERATIONS_PER_S_MIN = 50.0
"""Before the first fault, on a machine that is otherwise quiet; a slower one says what it did instead."""


@dataclass
class Report:
    """Everything about one run.

    Attributes:
        quiet_rate: Accepted calls a second before the first fault.
        rate_min: What `quiet_rate` must reach.
        unit: What `quiet_rate` counts.
        thin: What there was too little of, in words.
        violations: Broken invariants.
        extra: Further counts, in words.
    """

    title: str
    seed: int
    commit: str
    jobs: int
    planned: int
    faults: list = field(default_factory=list)
    quiet_rate: float = 0.0
    rate_min: float = OPERATIONS_PER_S_MIN
    unit: str = "calls"
    took_s: float = 0.0
    statuses: Counter = field(default_factory=Counter)
    attempts: int = 0
    executions: int = 0
    unanswered: int = 0
    refused: int = 0
    violations: list = field(default_factory=list)
    extra: list = field(default_factory=list)
    thin: list = field(default_factory=list)

    @property
    def invalid(self):
        """Why this run proves nothing; empty when it does."""
        hit = [fault for fault in self.faults if fault.has_hit]
        found = list(self.thin)
        if len(hit) < self.planned * FAULTS_SHARE_MIN:
            found.append(f"{len(hit)} of {self.planned} planned faults hit live work")
        if self.quiet_rate < self.rate_min:
            found.append(f"{self.quiet_rate:.1f} {self.unit}/s before the first fault, {self.rate_min:.0f} are needed")
        return found

    @property
    def exit_code(self):
        """0 for a good run, 1 for a violation, 2 for an invalid run."""
        return 1 if self.violations else 2 if self.invalid else 0

    def __str__(self):
        kinds = Counter(fault.place for fault in self.faults)
        missed = sum(not fault.has_hit for fault in self.faults)
        live = [fault.live for fault in self.faults]
        lines = [
            f"{self.title}: seed {self.seed}, commit {self.commit}, {self.took_s:.0f} s",
            f"  jobs       {self.jobs} accepted; {_words(self.statuses)}",
            f"  attempts   {self.attempts} granted, {self.executions} runs of user code",
            f"  clients    {self.unanswered} calls unanswered, {self.refused} refused, all tried again",
            f"  load       {self.quiet_rate:.1f} {self.unit}/s before the first fault",
            f"  faults     {len(self.faults)} of {self.planned} planned: {_words(kinds)}; {missed} met no live work",
        ]
        if live:
            lines.append(f"  live work  {min(live)} to {max(live)} jobs at the moment of a fault")
        lines += [f"  {line}" for line in self.extra]
        lines.append(f"  violations {len(self.violations)}")
        lines += [f"    {violation}" for violation in self.violations[:50]]
        verdict = "VIOLATED" if self.violations else "INVALID: " + "; ".join(self.invalid) if self.invalid else "GOOD"
        return "\n".join([*lines, f"  verdict    {verdict}"])


def _words(counts):
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"
