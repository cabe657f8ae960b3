"""The judge: pure functions from what clients saw, what user code said and what the store holds to violations.

Each check names the invariant it stands for (I1 … I17 of the fault plan in `docs/chaos.md`).
"""

import itertools
import json
import re
from dataclasses import dataclass

from apothic.wire.limits import INFRASTRUCTURE_LOSSES_MAX

from .history import History
from .stored import STATUSES, TERMINAL, Stored

UNCERTAIN_CODES = frozenset({"worker_lost"})
"""Failures that only lost machines explain."""


@dataclass(frozen=True)
class Violation:
    """One broken invariant."""

    invariant: str
    where: str
    what: str

    def __str__(self):
        return f"{self.invariant} {self.where}: {self.what}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Execution:
    """One run of user code for one call, from its own first words to its last ones or the death of its process.

    Attributes:
        has_finished: It said that it was done; otherwise its process went away.
        ended: None while it may still run.
    """

    token: str
    pid: int
    began: float
    ended: float | None = None
    has_finished: bool = False


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """How the jobs of one function may end.

    Attributes:
        ends: Statuses allowed without a cancel.
        codes: Error codes allowed when it fails.
        is_once: Declared `at_most_once`.
        answers_token: A success returns the token.
        outlives_leases: A call may last longer than a lease, so that faults may use up all the losses it has (G2.3).
    """

    ends: frozenset[str] = frozenset({"succeeded"})
    codes: frozenset[str] = frozenset()
    is_once: bool = False
    answers_token: bool = True
    outlives_leases: bool = False


def acknowledged_jobs_exist(history: History, stored: Stored) -> list[Violation]:
    """I1: what was answered 2xx is in the store, as the call it was."""
    found = []
    for told in history.accepted:
        job = stored.get(told.job)
        if job is None:
            found.append(Violation("I1", told.job, f"was acknowledged for {told.token!r} and does not exist"))
        elif job.token != told.token:
            found.append(Violation("I1", told.job, f"was acknowledged for {told.token!r} and holds {job.token!r}"))
    return found


def rows_are_whole(stored: Stored) -> list[Violation]:
    """I1: one of nine statuses; an end has exactly one end event, a success its result, a failure its error."""
    return [Violation("I1", job.id, what) for job in stored.values() for what in _row_faults(job)]


def _row_faults(job):
    kinds = [event.kind for event in job.events]
    if job.status not in STATUSES:
        yield f"has the status {job.status!r}"
    if kinds.count("job.end") != (job.status in TERMINAL):
        yield f"is {job.status} with {kinds.count('job.end')} end events"
    if "job.end" in kinds and kinds[-1] != "job.end":
        yield f"has {kinds[-1]} after its end"
    ends = [event.data.get("status") for event in job.events if event.kind == "job.end"]
    if job.status in TERMINAL and any(end not in (None, job.status) for end in ends):
        yield f"is {job.status} and its end event says {ends[0]}"
    if kinds.count("job.result") != (job.status == "succeeded"):
        yield f"is {job.status} with {kinds.count('job.result')} result events"
    if job.status in ("failed", "timed_out") and "job.error" not in kinds:
        yield f"is {job.status} without an error event"


def ends_never_change(history: History, stored: Stored) -> list[Violation]:
    """I1: every end that a client was told is the one in the store, and the only one ever told."""
    found = []
    for told in history.ended:
        job = stored.get(told.job)
        if job is None:
            found.append(Violation("I1", told.job, f"was told to be {told.status} and does not exist"))
        elif job.status != told.status:
            found.append(Violation("I1", told.job, f"was told to be {told.status} and is {job.status}"))
        elif told.result is not None and job.result is not None and _differ(told.result, job.result):
            found.append(Violation("I1", told.job, f"was told to give {told.result} and holds {job.result}"))
    return found


def cancels_hold(history: History, stored: Stored) -> list[Violation]:
    """G4.1: after `cancelling` or `cancelled` was answered a job never succeeds; a terminal answer is the last word."""
    found = []
    for told in history.cancels:
        job = stored.get(told.job)
        status = job.status if job is not None else "missing"
        if told.status in TERMINAL and status != told.status:
            found.append(Violation("I1", told.job, f"a cancel was answered {told.status} and it is {status}"))
        if told.status == "cancelling" and status == "succeeded":
            found.append(Violation("I1", told.job, "a cancel was answered cancelling and it succeeded"))
    return found


def nothing_is_stuck(stored: Stored) -> list[Violation]:
    """I2, once all faults are over and time was given: nothing is unfinished."""
    return [
        Violation("I2", job.id, f"is still {job.status} (attempt {job.attempt})")
        for job in stored.values()
        if not job.is_final
    ]


def attempts_are_dense(stored: Stored) -> list[Violation]:
    """I3: grants are numbered 1..n in order, fences never fall behind them, the result is the newest attempt's.

    A grant that never reached user code uses no number: the next one has the same.
    """
    found = []
    for job in stored.values():
        if not job.first_index and (numbers := _numbers_out_of_order(job)):
            found.append(Violation("I3", job.id, f"has {job.attempt} attempts and was granted as {numbers}"))
        if job.fence < job.attempt:
            found.append(Violation("I3", job.id, f"has fence {job.fence} below attempt {job.attempt}"))
        results = [event.data.get("attempt") for event in job.events if event.kind == "job.result"]
        if any(attempt != job.attempt for attempt in results):
            found.append(Violation("I3", job.id, f"took the result of attempt {results} at attempt {job.attempt}"))
    return found


def _numbers_out_of_order(job):
    """Return the numbers of the grants of a job when they are wrong, else nothing."""
    numbers, last, begun, is_right = [], 0, 0, True
    for event in job.events:
        if event.kind == "job.running":
            begun = last
        elif event.kind == "job.status" and event.data.get("status") == "starting":
            number = event.data.get("attempt")
            is_right &= number == last + 1 or begun < number == last
            numbers.append(last := number)
    is_right &= job.attempt == last or begun < last == job.attempt + 1
    return [] if is_right else [*numbers, "begun", begun]


def executions_fit_attempts(executions: list[Execution], stored: Stored) -> list[Violation]:
    """I3: user code of a job never began more often than the job was granted."""
    began, jobs = {}, _by_token(stored)
    for run in executions:
        began[run.token] = began.get(run.token, 0) + 1
    return [
        Violation("I3", job.id, f"ran {began[token]} times in {job.attempt} attempts")
        for token, job in jobs.items()
        if began.get(token, 0) > job.attempt
    ]


def ends_are_explained(
    executions: list[Execution], stored: Stored, history: History, expected: dict[str, Expectation]
) -> list[Violation]:
    """I1, I3: a success ran to its end and gives its own token; a failure has a reason; a once-only call ran once."""
    began, finished = {}, set()
    for run in executions:
        began[run.token] = began.get(run.token, 0) + 1
        if run.has_finished:
            finished.add(run.token)
    cancelled = {told.job for told in history.asked}
    functions = {told.job: told.function for told in history.accepted}
    found = []
    for job in stored.values():
        rule = expected.get(functions.get(job.id, ""))
        if rule is not None:
            faults = _end_faults(job, rule, began.get(job.token, 0), job.token in finished, job.id in cancelled)
            found += [Violation(invariant, job.id, what) for invariant, what in faults]
    return found


def _end_faults(job, rule, began, has_finished, was_cancelled):
    if job.status == "succeeded":
        if "succeeded" not in rule.ends:
            yield "I1", "succeeded although it cannot"
        if rule.answers_token and not _is_token(job.result, job.token):
            yield "I1", f"gives {job.result} for {job.token!r}"
        if not has_finished:
            yield "I3", "succeeded without having run to its end"
    elif job.status == "cancelled" and not was_cancelled:
        yield "I1", "was cancelled by nobody"
    elif job.status in ("failed", "timed_out") and job.code not in rule.codes and not _is_spent(job, rule):
        yield "I1", f"{job.status} with the code {job.code} after {job.attempt} attempts, {job.losses} of them lost"
    if rule.is_once and began > 1:
        yield "I3", f"may run once and ran {began} times"


def _is_spent(job, rule):
    """Whether every grant it may have was lost, which nothing but its length explains."""
    grants = INFRASTRUCTURE_LOSSES_MAX + 1
    return rule.outlives_leases and job.code == "worker_lost" and job.losses == job.attempt == grants


def executions_do_not_overlap(executions: list[Execution], excused: list[tuple[float, float]] = ()) -> list[Violation]:
    """I4: two runs of one call never overlap, but while a machine was frozen or cut off (`excused`, from and to)."""
    found = []
    for token, runs in _runs_by_token(executions).items():
        for first, second in itertools.pairwise(runs):
            if first.ended is not None and first.ended <= second.began:
                continue
            if not any(start <= second.began <= end for start, end in excused):
                what = f"pid {second.pid} began at {second.began:.3f} while pid {first.pid} ran until {first.ended}"
                found.append(Violation("I4", token, what))
    return found


def short_cuts_cost_nothing(
    executions: list[Execution], cuts: list[tuple[float, float, frozenset[int]]], spared: frozenset[str]
) -> list[Violation]:
    """G3.2: what ran on a machine that was cut off for less than its grace went on to its end.

    Args:
        cuts: From and to, and the processes of user code that it met.
        spared: Tokens of calls that may end otherwise: cancelled ones, and those that fail by themselves.
    """
    return [
        Violation(
            "G3.2", run.token, f"pid {run.pid} was stopped at {run.ended:.3f}, cut off from {since:.3f} to {to:.3f}"
        )
        for since, to, met in cuts
        for run in executions
        if run.pid in met and run.ended is not None and not run.has_finished and run.token not in spared
        if run.began <= since <= run.ended <= to
    ]


def streams_are_dense(stored: Stored, first: str = "job.queued") -> list[Violation]:
    """I5: indexes 0..n without a gap; what was trimmed lies at the beginning and leaves results, errors and ends."""
    found = []
    for job in stored.values():
        indexes = [event.index for event in job.events if event.index >= job.first_index]
        if indexes != list(range(job.first_index, job.next_index)):
            found.append(Violation("I5", job.id, f"has the indexes {indexes} below {job.next_index}"))
        if job.events and not job.first_index and job.events[0].kind != first:
            found.append(Violation("I5", job.id, f"begins with {job.events[0].kind}"))
    return found


def readers_saw_the_stream(history: History, stored: Stored) -> list[Violation]:
    """I5: what each connection got is the stored stream from where it asked, in order, whole, or a reset at the cut."""
    return [
        Violation("I5", f"{read.job} reader {read.reader}", what)
        for read in history.reads
        for what in _read_faults(read, stored.get(read.job))
    ]


def _read_faults(read, job):
    if job is None:
        yield "read the events of a job that does not exist"
        return
    kinds = {event.index: event.kind for event in job.events}
    expected = read.after + 1
    for index, kind in read.events:
        if kind.endswith((".reset", ".snapshot")):
            expected = index + 1
            continue
        if index != expected:
            yield f"got index {index} instead of {expected}"
        elif index in kinds and kinds[index] != kind:
            yield f"got {kind} as index {index}, which is {kinds[index]}"
        elif index >= job.next_index:
            yield f"got index {index}, which was never written"
        expected = index + 1
    if read.is_whole and expected != job.next_index:
        yield f"was told the stream is over after index {expected - 1} of {job.next_index - 1}"


def one_job_per_key(history: History, stored: Stored) -> list[Violation]:
    """I11: all answers to one idempotency key name one job, and the store holds no second one for it."""
    found, told, keyed = [], {}, set()
    for one in history.accepted:
        if one.key:
            keyed.add(one.token)
            told.setdefault(one.key, set()).add(one.job)
    for key, jobs in told.items():
        if len(jobs) > 1:
            found.append(Violation("I11", key, f"was answered with {len(jobs)} jobs: {sorted(jobs)}"))
    made = {}
    for job in stored.values():
        made.setdefault(job.token, []).append(job.id)
    found += [
        Violation("I11", token, f"made {len(made[token])} jobs: {sorted(made[token])}")
        for token in sorted(keyed)
        if len(made.get(token, [])) > 1
    ]
    return found


def nothing_is_left(before: dict[str, set], after: dict[str, set]) -> list[Violation]:
    """I14: after the stop the host has nothing that it did not have before the start, kind by kind."""
    return [
        Violation("I14", kind, f"left behind: {one}")
        for kind in sorted(after)
        for one in sorted(after[kind] - before.get(kind, set()), key=str)
    ]


_BAD_LINE = re.compile(
    r"Traceback \(most recent|Task was destroyed|never retrieved|never awaited|Fatal Python|Segmentation fault"
    r"|PANIC|invalid page|could not read block|assertion",
    re.IGNORECASE,
)


def logs_are_clean(logs: dict[str, list[str]], allowed: frozenset[str] = frozenset()) -> list[Violation]:
    """I17: no unexpected exit, swallowed exception or destroyed task in any log.

    Args:
        allowed: Events of our own log that faults explain although their level is `error`.
    """
    return [
        Violation("I17", name, line.strip()[:600])
        for name, lines in logs.items()
        for line in lines
        if _is_bad_line(line, allowed)
    ]


def _is_bad_line(line, allowed):
    try:
        told = json.loads(line)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        return bool(_BAD_LINE.search(line))
    if told.get("event") in allowed:
        return False
    return told.get("level") in ("error", "critical") or "exception" in told or bool(_BAD_LINE.search(line))


def _by_token(stored):
    return {job.token: job for job in stored.values() if job.token}


def _runs_by_token(executions):
    found = {}
    for run in sorted(executions, key=lambda run: run.began):
        found.setdefault(run.token, []).append(run)
    return found


def _is_token(result, token):
    try:
        return json.loads(result or "null") == token
    except ValueError:
        return False


def _differ(one, other):
    try:
        return json.loads(one) != json.loads(other)
    except ValueError:
        return one != other
