"""Nested calls: which attempt waits for which job, what that lends to others, and what ends with it (G2.7).

An attempt waits while a request of it for an outcome is open, and follows while it reads the events of a job. The
runner whose attempts all do either is parked, which `Fleet` reads from `Runner.waiting`. Everything here hangs on the
attempt and goes with it: `Board.release` drops it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from apothic.wire.ids import JobId
from apothic_server.domain.access import Attempt
from apothic_server.domain.decide.cycles import Knot, is_stuck
from apothic_server.domain.decide.placement import Need
from apothic_server.domain.errors import Conflict, Fenced, Invalid, Unavailable
from apothic_server.domain.fleet import Runner
from apothic_server.domain.groups import row_of_caller
from apothic_server.services.dispatch.board import Board
from apothic_server.services.dispatch.live import LiveJob

DEPTH_MAX = 32
"""Jobs that may stand above a job; a call that would have more is refused."""

Leave = Callable[[], None]
"""Says that nobody waits any more; saying it twice is fine."""


def check_depth(attempt: Attempt | None) -> None:
    """Refuse a call from a job that is too deep already.

    Raises:
        Invalid: With code `call_depth_exceeded`.
    """
    if attempt is not None and attempt.depth >= DEPTH_MAX:
        detail = f"this call would stand below {DEPTH_MAX + 1} others; functions may call each other {DEPTH_MAX} deep"
        raise Invalid(detail, code="call_depth_exceeded")


def caller(board: Board, attempt: Attempt) -> LiveJob:
    """Return the job whose code calls.

    Raises:
        Fenced: Its attempt ended since the request came.
        Unavailable: Another process dispatches since then.
    """
    if not board.dispatches:
        raise Unavailable("another server dispatches since; try again", retry_after_s=1)
    live = board.jobs.get(attempt.job)
    if live is None or live.fence != attempt.fence or not live.is_granted:
        raise Fenced("The attempt that calls is over: it has ended or was taken over.")
    return live


def attend(board: Board, parent: LiveJob, job: LiveJob) -> Leave:
    """Note that `parent` waits for `job` until the returned function is called or either of them ends.

    Raises:
        Conflict: It would wait for ever (`call_cycle_deadlock`); nothing was noted.
    """
    fence = parent.fence
    parent.awaited.append(job.id)
    if _is_stuck(board, job):
        parent.awaited.remove(job.id)
        raise Conflict(_circle(job), code="call_cycle_deadlock")
    board.parked(parent)

    def leave(live: LiveJob) -> None:
        if job.id in live.awaited:
            live.awaited.remove(job.id)
        if job.outcome.done() and live.children is not None:
            live.children.discard(job.id)

    return _leave(board, parent.id, fence, job, leave)


def follow(board: Board, parent: LiveJob, job: LiveJob) -> Leave:
    """Note that `parent` reads the events of `job` until the returned function is called or either of them ends.

    Its processors are lent as those of one that waits, so that readers cannot fill a machine. It may stop reading at
    any event, so it is part of no circle, and a cancel of it leaves the job alone.
    """
    parent.follows += 1
    board.parked(parent)

    def leave(live: LiveJob) -> None:
        live.follows = max(0, live.follows - 1)

    return _leave(board, parent.id, parent.fence, job, leave)


def _leave(board: Board, parent: JobId, fence: int, job: LiveJob, leave: Callable[[LiveJob], None]) -> Leave:
    """Return what undoes a wait, once, in whatever memory then has of the attempt; the end of `job` does it, too."""
    is_done = False

    def call() -> None:
        nonlocal is_done
        live = board.jobs.get(parent)
        if not is_done and live is not None and live.fence == fence:
            leave(live)
            board.parked(live)
        is_done = True

    job.outcome.add_done_callback(lambda _: call())
    return call


def awaited_children(board: Board, job: LiveJob) -> list[LiveJob]:
    """Return the jobs called by the current attempt of `job` that it waits for now."""
    children = _live(board, job.awaited)
    return [child for child in children if child.parent is not None and row_of_caller(child.parent) == job.id]


def orphans(board: Board, job: LiveJob, *, succeeded: bool) -> list[LiveJob]:
    """Return the jobs that end with the current attempt of `job`, because only its blocking calls wanted them.

    After a success those are the calls that it still waits for, from a thread it left behind, for example; a wait that
    was given up before leaves its job running. After any other end all of its blocking calls are meant.
    """
    return [child for child in _live(board, job.children or ()) if not succeeded or child.id in job.awaited]


def has_caller(board: Board, job: LiveJob) -> bool:
    """Return whether the attempt that called `job` is under way; its grant may reach the store later than the job."""
    parent = board.jobs.get(row_of_caller(job.parent)) if job.parent is not None else None
    return parent is not None and parent.is_granted and parent.fence == job.waited_fence


def adopt_child(parent: LiveJob, job: LiveJob) -> None:
    """Note that the current attempt of `parent` called a job and did not spawn it."""
    parent.children = parent.children or set()
    parent.children.add(job.id)


def _live(board: Board, jobs: Collection[JobId]) -> list[LiveJob]:
    return [found for key in dict.fromkeys(jobs) if (found := board.jobs.get(key)) is not None]


def _is_stuck(board: Board, job: LiveJob) -> bool:
    def look(key: JobId) -> Knot | None:
        found = job if key == job.id else board.jobs.get(key)
        if found is None or found.status.is_final:
            return board.hints.knot(key)
        return Knot(found.need if found.waits else None, found.awaited)

    return is_stuck(job.id, look, lambda need: holders(board, need))


def holders(board: Board, need: Need) -> Collection[JobId] | None:
    """Return the jobs that hold the places of a full function; None while it has a free one."""
    runners = board.fleet.group(need.group)
    absent = board.fleet.absent(need.group)
    has_room = any(runner.has_room for runner in runners.values())
    if has_room or len(runners) + len(absent) < need.spec.max_containers:
        return None
    return [*absent, *(job for runner in runners.values() for job in _holding(board, runner))]


def _holding(board: Board, runner: Runner) -> Collection[JobId]:
    """Return the jobs for whose end a runner's places wait: of a batch that waits itself, those that wait for it."""
    waiting = [job for job in runner.attempts if (live := board.jobs.get(job)) is not None and live.awaited]
    return waiting if runner.is_batching and waiting else runner.attempts


def _circle(job: LiveJob) -> str:
    name, places = job.need.spec.name, job.need.spec.max_containers
    if job.waits:
        return (
            f"{name} is full (max_containers={places}), and all that executes there waits for this call, which could "
            f"never start. Raise max_containers of {name}, call it with spawn, or call {name}(...) in this process"
        )
    return f"the job {name} waits for the job that wants to wait for it: neither would ever end"
