"""The judge of maps: pure functions from what clients, user code and the store say to violations.

The ids of invariants are those of `tests.chaos.checker`, and I18: what a group says of itself, and what `map` returned,
are the outcomes of its items, each in its place.
"""

from collections import Counter
from dataclasses import dataclass

from ..checker import Violation
from ..load import USER_DEATHS
from ..stored import TERMINAL
from . import work
from .outcomes import NEVER, outcomes_of

FEW = 5
"""Violations of one kind that are told of one group."""

REACH_S = 3.0
"""An outcome is on disk so long after its item ended: chunks are taken back after half a second."""

COUNTED = ("queued", "running", "retrying", *TERMINAL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Met:
    """One fault, as far as it may cost runs.

    Attributes:
        at, ended: Monotonic seconds; `ended` with the time that others need to notice.
        pids: Processes of user code that it hit; None when it hit all of them.
        is_freeze: Something slept, and may go on behind the back of the others.
    """

    at: float
    ended: float
    place: str = ""
    pids: frozenset[int] | None = None
    is_freeze: bool = False

    def reaches(self, run, reach_s=REACH_S):
        """Whether the outcome of a run may have been in flight when it happened."""
        is_near = self.pids is None or run.pid in self.pids
        return is_near and self.at <= run.ended + reach_s and run.began <= self.ended


class Judge:
    """Everything about one run of maps, judged item by item.

    Args:
        world: What the store holds.
        maps: What became of the clients of each map, by its tag.
        history: Cancels that were asked for and answered.
        executions: Runs of user code.
        faults: As `Met`.
        offset_s: Wall clock minus monotonic clock.
    """

    def __init__(self, world, maps, history, executions, faults, offset_s=0.0):
        self.world, self.maps, self.history = world, maps, history
        self.faults, self.offset_s = faults, offset_s
        self.user_deaths = sum(fault.place == "user" for fault in faults)
        self.asked = {told.job for told in history.asked}
        self.runs = {}
        for run in sorted(executions, key=lambda run: run.began):
            self.runs.setdefault(run.token, []).append(run)
        self.outcomes, self._rows = {}, []
        for group in world.groups:
            self.outcomes[group.id], wrong = outcomes_of(group)
            self._rows += wrong

    def spec(self, group):
        """Return the map that made a group; None for a group without items that has no key."""
        mapped = self.maps.get(group.tag) or next(
            (one for one in self.maps.values() if group.key and one.spec.key == group.key), None
        )
        return None if mapped is None else mapped.spec

    def judged(self):
        """Return all violations."""
        checks = (
            self.groups_are_those_of_maps,
            self.groups_have_ended,
            self.groups_agree_with_their_items,
            self.items_ended_as_they_should,
            self.failures_are_no_more_than_kills,
            self.cancels_hold,
            self.clients_were_told_what_is_stored,
            self.items_ran_as_often_as_they_may,
            self.output_is_there_once,
        )
        return [*self._rows, *(violation for check in checks for violation in check())]

    def groups_are_those_of_maps(self):
        """I11, I1: a map with a key has one group, one without at most one, and it has the map's items in order."""
        made = Counter(spec.tag for group in self.world.groups if (spec := self.spec(group)) is not None)
        for tag, mapped in self.maps.items():
            if made[tag] > 1 or (mapped.told is not None and not made[tag]):
                yield Violation("I11", f"map {tag}", f"has {made[tag]} groups")
        for group in self.world.groups:
            if any(one != (group.tag, number) for number, one in enumerate(group.inputs)):
                yield Violation("I1", group.id, "has inputs of another map, or not in their order")
            if len(group.inputs) != group.uploaded:
                yield Violation("I1", group.id, f"has {group.uploaded} items and {len(group.inputs)} inputs")

    def groups_have_ended(self):
        """I2: each group has ended, and nothing is left to do in it."""
        for group in self.world.groups:
            if group.status not in TERMINAL:
                yield Violation("I2", group.id, f"is still {group.status}: {self._spec_words(group)}")
            for row in group.rows:
                if not row.is_final:
                    yield Violation("I2", row.id, f"is still {row.status} (attempt {row.attempt})")

    def groups_agree_with_their_items(self):
        """I18: status, counts and total of a group are those of its items."""
        for group in self.world.groups:
            for what in self._group_faults(group, self.spec(group)) if group.status in TERMINAL else ():
                yield Violation("I18", group.id, what)

    def _group_faults(self, group, spec):
        found = Counter(outcome.status for outcome in self.outcomes[group.id])
        counts = group.counts or {}
        if any(counts.get(name, 0) != found[name] for name in COUNTED):
            yield f"counts {_some(counts)}, its items are {_some(found)}"
        if group.total not in (None, group.uploaded):
            yield f"has {group.uploaded} items of {group.total}"
        if group.status in ("succeeded", "failed"):
            if group.total is None:
                yield f"{group.status} without having been closed"
            if (group.status == "succeeded") != (found["succeeded"] == group.uploaded):
                yield f"{group.status} with {_some(found)}"
        is_stopped = group.code == "stopped_after_failures"
        if is_stopped and (spec is None or spec.stop_after is None or found["failed"] < spec.stop_after):
            yield f"was stopped after {found['failed']} failures"
        if group.status == "cancelled" and not is_stopped and group.id not in self.asked:
            yield "was cancelled by nobody"
        ends = [event for event in group.stream.events if event.kind == "group.end"]
        if [end.data.get("status") for end in ends] != [group.status]:
            yield f"is {group.status}, and its stream ends with {[end.data for end in ends]}"
        counted = [event.data["counts"]["succeeded"] for event in group.stream.events if "counts" in event.data]
        if counted != sorted(counted):
            yield f"takes successes back in its stream: {counted}"
        if any(end.data.get("counts") != group.counts for end in ends):
            yield f"counts {counts}, and its stream ends with {ends[0].data}"

    def items_ended_as_they_should(self):
        """I1: the value is that of the item; a failure has a reason, and was tried as often as its function says."""
        for group in self.world.groups:
            spec = self.spec(group)
            if spec is not None:
                wrong = (
                    (number, what)
                    for number, outcome in enumerate(self.outcomes[group.id])
                    if (what := self._item_fault(group, spec, number, outcome))
                )
                yield from (Violation("I1", f"{group.id}.{number}", what) for number, what in _first(wrong))

    def _item_fault(self, group, spec, number, outcome):
        does = work.does(spec, number)
        if outcome.status == "succeeded":
            if does == "fail":
                return "succeeded although it cannot"
            if outcome.value != work.value(spec, number):
                return f"gives {outcome.value!r}, not {work.value(spec, number)}"
            if not any(run.has_finished for run in self.runs.get(work.token(spec, number), ())):
                return "succeeded without having run to its end"
        elif outcome.status == "failed":
            return self._failure_fault(spec, number, outcome, does)
        elif outcome.status == "cancelled":
            if group.status != "cancelled" and f"{group.id}.{number}" not in self.asked:
                return "was cancelled by nobody"
            if outcome.code not in NEVER:
                return f"is cancelled with the code {outcome.code}"
        elif outcome.status == "timed_out":
            return f"timed out with the code {outcome.code}"
        return None

    def _failure_fault(self, spec, number, outcome, does):
        if outcome.code == "exception" and does == "fail":
            stops = sum(not run.has_finished for run in self.runs.get(work.token(spec, number), ()))
            return None if stops > work.RETRIES[spec.function] else f"failed for good after {stops} runs"
        if outcome.code in USER_DEATHS and work.RETRIES[spec.function] < 2:
            return None  # counted by `failures_are_no_more_than_kills`
        return f"failed with the code {outcome.code}, and it does {does!r}"

    def failures_are_no_more_than_kills(self):
        """I1: no more items ended because their process died than processes of user code were killed."""
        died = [f"{key}.{n}" for key, all_ in self.outcomes.items() for n, one in enumerate(all_) if _has_died(one)]
        if len(died) > self.user_deaths:
            yield Violation("I1", died[0], f"and {len(died) - 1} more died, {self.user_deaths} processes were killed")

    def cancels_hold(self):
        """G4.1: what was answered `cancelling` or `cancelled` never succeeds; an end that was answered is the end."""
        groups = {group.id: group for group in self.world.groups}
        for told in self.history.cancels:
            key, _, number = told.job.partition(".")
            group = groups.get(key)
            if group is not None:
                now = self.outcomes[key][int(number)].status if number else group.status
                is_other = told.status in TERMINAL and now != told.status
                if is_other or (told.status == "cancelling" and now == "succeeded"):
                    yield Violation("I1", told.job, f"a cancel was answered {told.status} and it {now}")

    def clients_were_told_what_is_stored(self):
        """I18: `map` gave the outcome of each item in its place, whichever client it was that asked last."""
        for group in self.world.groups:
            spec = self.spec(group)
            mapped = None if spec is None else self.maps[spec.tag]
            if mapped is not None and mapped.told is not None:
                wrong = _told_faults(mapped.told, self.outcomes[group.id])
                yield from (Violation("I18", f"map {spec.tag} {group.id}", what) for what in _first(wrong))

    def items_ran_as_often_as_they_may(self):
        """I3: nothing begins after its outcome is on disk, nor again after its end unless a fault met it in flight."""
        for group in self.world.groups:
            spec = self.spec(group)
            if spec is not None:
                wrong = (
                    Violation("I3", f"{group.id}.{number}", what)
                    for number, outcome in enumerate(self.outcomes[group.id])
                    for what in self._run_faults(self.runs.get(work.token(spec, number), ()), outcome)
                )
                yield from _first(wrong)

    def _run_faults(self, runs, outcome):
        if len(runs) < 2 and outcome.since is None:
            return
        for run in runs:
            began = run.began + self.offset_s
            is_late = outcome.since is not None and began > outcome.since + REACH_S
            if is_late and not any(fault.is_freeze and fault.at <= run.began <= fault.ended for fault in self.faults):
                yield f"began {began - outcome.since:.3f} s after {outcome.row or 'its group'} had its outcome"
        for run in runs[:-1]:
            if run.has_finished and not any(fault.reaches(run) for fault in self.faults):
                again = next(one for one in runs if one.began > run.began)
                yield f"ran to its end at {run.ended:.3f} and again from {again.began:.3f}, and no fault met it"

    def output_is_there_once(self):
        """I19: an item that wrote output has each line of the run that counts, and no line of any run twice."""
        for group in self.world.groups:
            spec = self.spec(group)
            for number in range(group.uploaded if spec is not None and spec.says else 0):
                if work.does(spec, number) == "say":
                    for what in self._output_faults(group, spec, number):
                        yield Violation("I19", f"{group.id}.{number}", what)

    def _output_faults(self, group, spec, number):
        job = self.world.items.get(f"{group.id}.{number}")
        events = [event for event in job.events if event.kind == "job.log"] if job is not None else []
        lines = [event.data["line"] for event in events if event.data.get("stream") == "stdout"]
        token = work.token(spec, number)
        runs = self.runs.get(token, ())
        written = {f"{token} {count + 1} {line}" for count in range(len(runs)) for line in range(work.LINES)}
        if len(lines) != len(set(lines)) or not written.issuperset(lines):
            yield f"has the lines {lines} of {len(runs)} runs"
        whole = {f"{token} {count + 1}" for count, run in enumerate(runs) if run.has_finished}
        ends = (line.rpartition(" ")[0] for line in lines if line.endswith(f" {work.LINES - 1}"))
        if self.outcomes[group.id][number].status == "succeeded" and not whole.intersection(ends):
            yield f"succeeded, and none of its {len(runs)} runs has its output: {lines}"

    def reruns(self):
        """Return how many items ran to their end more than once."""
        return sum(sum(run.has_finished for run in runs) > 1 for runs in self.runs.values())

    def _spec_words(self, group):
        spec = self.spec(group)
        return f"{group.uploaded} of {group.total} items, {spec and spec.function}"


def _told_faults(told, outcomes):
    """Yield what is wrong with what a client got."""
    if told.get("twice"):
        yield f"the items {told['twice'][:FEW]} came twice"
    failed = [number for number, one in enumerate(outcomes) if one.status not in ("succeeded", "cancelled")]
    if "raised" in told:
        first = (failed or [number for number, one in enumerate(outcomes) if one.status == "cancelled"])[:1]
        if [told["raised"]] != first:
            yield f"the failure of item {told['raised']} was raised, {first} is the first"
        return
    values = told["values"]
    if len(values) != len(outcomes):
        yield f"{len(values)} results came of {len(outcomes)} items"
    for number, (value, outcome) in enumerate(zip(values, outcomes, strict=False)):
        if outcome.status == "succeeded":
            is_right = value == outcome.value
        else:
            code = value.get("code") if isinstance(value, dict) else None
            is_right = code in NEVER if outcome.status == "cancelled" else code == outcome.code
        if not is_right:
            yield f"item {number} came as {value}, and is {outcome.status} {outcome.value or outcome.code}"


def _has_died(outcome):
    return outcome.status == "failed" and outcome.code in USER_DEATHS


def _some(counts):
    return {name: count for name, count in counts.items() if count}


def _first(found):
    return [one for one, _ in zip(found, range(FEW), strict=False)]
