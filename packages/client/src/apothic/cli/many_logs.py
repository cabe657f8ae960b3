"""The output of many jobs: those of an app, a function or a deployment, in the order in which it was written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from apothic.cli import ids
from apothic.cli.console import say
from apothic.cli.failures import Interrupted
from apothic.cli.job_logs import Output
from apothic.cli.logs import Wanted, print_document, show_lines, shower
from apothic.cli.targets import nothing_named, split_name

if TYPE_CHECKING:
    from apothic._job_lists import JobEntry
    from apothic.cli.settings import Settings
    from apothic.client import ControlPlaneClient

PERIOD_S = 1.0
MADE_AT_ONCE_MAX = 10_000
"""Jobs made between two looks while following."""


@dataclass(frozen=True)
class Line:
    """A line, and which job wrote it."""

    job_id: str
    function: str
    index: int
    time: str
    stream: str
    line: str


def show_many(
    settings: Settings, target: str, wanted: Wanted, *, tail: int | None, follow: bool, timestamps: bool, jobs_max: int
) -> None:
    """Show what the jobs of a target have written, and with `follow` what they and new ones write until Ctrl-C."""
    client = settings.client()
    outputs = _Outputs(client, _filters(client, target), wanted, jobs_max)
    found: list[dict[str, Any]] = []
    show = shower(settings, found, timestamps=timestamps, is_live=follow, prefix="{job_id} {function}: ")
    newest: list[Line] = []
    try:
        show_lines(_lines(outputs, tail, follow), show, lambda line: newest.__setitem__(slice(None), [line]))
    except KeyboardInterrupt:
        if not follow:
            raise
        print_document(settings, {"target": target, "lines": found, "is_whole": outputs.is_whole})
        place = f" --since {newest[0].time}" if newest else ""
        message = f"Stopped following. `apothic logs {target} --follow{place}` reads on from here."
        raise Interrupted(message, job_id=None) from None
    print_document(settings, {"target": target, "lines": found, "is_whole": outputs.is_whole})
    if not outputs.is_whole and not settings.is_for_programs:
        say(f"Looked at the newest {jobs_max} jobs and at those that run; --jobs looks at more.")


def _lines(outputs: _Outputs, tail: int | None, follow: bool) -> Iterator[Line]:
    first = outputs.read()
    yield from first if tail is None else first[len(first) - min(tail, len(first)) :]
    while follow:
        time.sleep(PERIOD_S)
        yield from outputs.read()


def _filters(client: ControlPlaneClient, target: str) -> dict[str, Any]:
    """Return which jobs a target means.

    Raises:
        NotFoundError: There is no such thing; the message names near ones.
    """
    if target.startswith("deployments:"):
        return {"deployment": client.get_deployment(ids.checked(target, "deployments")).deployment_id}
    if target.startswith("functions:"):
        found = client.function_by_id(target)
        return {"app": found.app, "function": found.name}
    app, function = split_name(target)
    known = client.get_app(app)
    if function is None:
        return {"app": app}
    filters: dict[str, Any] = {"app": app, "function": function}
    if function not in known.functions and not client.list_jobs(**filters, limit=1):
        raise nothing_named(f"function in app {app}", function, known.functions, f"apothic function list --app {app}")
    return filters


class _Outputs:
    """The outputs of the jobs that a filter lets pass, each read on from where it was left.

    Attributes:
        is_whole: No older job was left out.
    """

    def __init__(self, client: ControlPlaneClient, filters: dict[str, Any], wanted: Wanted, jobs_max: int) -> None:
        self.is_whole = True
        self._client = client
        self._filters = filters
        self._wanted = wanted
        self._jobs_max = jobs_max
        self._newest: str | None = None
        self._open: dict[str, tuple[JobEntry, Output]] = {}
        self._ended: set[str] = set()

    def read(self) -> list[Line]:
        """Return the lines that were written since the last time, by when they were written."""
        for job in self._jobs():
            if job.job_id not in self._ended and job.job_id not in self._open:
                self._open[job.job_id] = (job, Output(self._client, job.job_id, self._wanted))
        found: list[Line] = []
        for job, output in list(self._open.values()):
            found += [Line(job.job_id, job.function, **asdict(line)) for line in output.written()]
            if output.is_final:
                del self._open[job.job_id]
                self._ended.add(job.job_id)
        return sorted(found, key=lambda line: line.time)

    def _jobs(self) -> list[JobEntry]:
        """Return the jobs that may have written something that is wanted and was not read."""
        if self._newest is None:
            newest = self._client.list_jobs(**self._filters, limit=self._jobs_max + 1)
            self.is_whole = len(newest) <= self._jobs_max or (newest[-1].finished_at or "~") < self._wanted.since
            jobs = [*newest[: self._jobs_max], *self._client.list_jobs(**self._filters, unfinished=True, limit=1_000)]
        else:
            jobs = [*self._client.list_jobs(**self._filters, since=self._newest, limit=MADE_AT_ONCE_MAX)]
        self._newest = max((job.created_at for job in jobs), default=self._newest)
        return [
            job
            for job in jobs
            if (job.finished_at or "~") >= self._wanted.since and job.created_at <= self._wanted.until
        ]
