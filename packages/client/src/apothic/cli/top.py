"""`apothic top`: a live view of what a cloud does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import click

from apothic.cli.console import print_fields, print_json_line, print_table, print_text
from apothic.cli.refreshing import draws_anew, show_again
from apothic.cli.settings import Settings, common_options
from apothic.cli.since import age
from apothic.errors import PermissionDeniedError

if TYPE_CHECKING:
    from apothic._job_lists import JobEntry
    from apothic._workers import WorkerInfo
    from apothic.client import ControlPlaneClient

JOBS_MAX = 10_000
WAITING = frozenset({"queued", "retrying"})


@dataclass(frozen=True)
class Load:
    """The unfinished jobs of one function; `oldest_at` is when the oldest of them was made."""

    app: str
    function: str
    running: int
    waiting: int
    oldest_at: str
    waiting_reason: str | None


@dataclass(frozen=True)
class Machine:
    """A worker that is connected."""

    name: str
    status: str
    cpus: float
    memory_mb: int
    runners: int


@dataclass(frozen=True)
class View:
    """What a cloud does; `workers` is None for keys that may not see them."""

    base_url: str
    ready: bool
    running: int
    waiting: int
    is_whole: bool
    functions: tuple[Load, ...]
    workers: tuple[Machine, ...] | None


@click.command()
@click.option("--once", is_flag=True, help="Print it once, as it is where nothing can be drawn again.")
@common_options
@click.pass_obj
def top(settings: Settings, once: bool) -> None:
    """Show what runs and waits by function, and the workers; drawn anew every two seconds until Ctrl-C.

    Where nothing can be drawn again, in a pipe, and with --json it is printed once; with --jsonl one line for each
    change.
    """
    client = settings.client()
    if not once and (draws_anew(settings) or settings.is_jsonl):
        show_again(settings, lambda: _look(client), lambda view: _show(settings, view))
    else:
        _show(settings, _look(client))


def _look(client: ControlPlaneClient) -> View:
    ready = client.readiness().ready
    jobs = client.list_jobs(unfinished=True, limit=JOBS_MAX)
    try:
        workers = tuple(_machine(one) for one in client.list_workers() if one.status in ("live", "impaired"))
    except PermissionDeniedError:
        workers = None
    by_function: dict[tuple[str, str], list[JobEntry]] = {}
    for job in jobs:
        by_function.setdefault((job.app, job.function), []).append(job)
    functions = tuple(_load(name, found) for name, found in sorted(by_function.items()))
    waiting = sum(one.waiting for one in functions)
    is_whole = len(jobs) < JOBS_MAX
    return View(client.base_url, ready, len(jobs) - waiting, waiting, is_whole, functions, workers)


def _load(name: tuple[str, str], jobs: Sequence[JobEntry]) -> Load:
    """Return the load of a function; `jobs` are newest first."""
    waiting = [job for job in jobs if job.status in WAITING]
    reasons = Counter(job.waiting_reason for job in waiting if job.waiting_reason)
    reason = reasons.most_common(1)[0][0] if reasons else None
    return Load(*name, len(jobs) - len(waiting), len(waiting), jobs[-1].created_at, reason)


def _machine(one: WorkerInfo) -> Machine:
    return Machine(one.name, one.status, one.machine.cpus, one.machine.memory_mb, one.runners)


def _show(settings: Settings, view: View) -> None:
    if settings.is_jsonl:
        print_json_line(asdict(view))
        return
    if settings.is_json:
        settings.print_document(asdict(view))
        return
    print_fields(
        {
            "cloud": f"{view.base_url}, {'ready' if view.ready else 'not ready'}",
            "jobs": f"{view.running} running, {view.waiting} waiting{'' if view.is_whole else ', and older ones'}",
        }
    )
    if view.functions:
        now = datetime.now(timezone.utc)  # noqa: UP017 - the client also runs on 3.10
        print_text("")
        print_table(
            ("FUNCTION", "RUNNING", "WAITING", "OLDEST", "WAITS BECAUSE"),
            [
                (f"{one.app}.{one.function}", str(one.running), str(one.waiting), age(one.oldest_at, now),
                 one.waiting_reason or "")
                for one in view.functions
            ],
        )  # fmt: skip
    if view.workers:
        print_text("")
        print_table(
            ("WORKER", "STATUS", "RUNNERS", "OFFERS"),
            [
                (one.name, one.status, str(one.runners), f"{one.cpus:g} cpu, {one.memory_mb} MiB")
                for one in view.workers
            ],
        )
