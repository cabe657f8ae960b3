"""What the server says of many jobs at once, and the operations on them, without I/O: lists and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from apothic._core import Core
from apothic._operations import get, page, part
from apothic._parse import build
from apothic._ranges import flag, whole
from apothic._steps import Steps
from apothic.wire.limits import LIST_PAGE_MAX

T = TypeVar("T")


@dataclass(frozen=True)
class JobEntry:
    """A job as a list shows it; `waiting_reason` says why it waits."""

    job_id: str
    app: str
    function: str
    deployment_id: str
    status: str
    attempt: int
    created_at: str
    started_at: str | None
    finished_at: str | None
    waiting_reason: str | None = None


@dataclass(frozen=True)
class Spread:
    """Seconds that half, 90 %, 99 % and all of the jobs stayed within."""

    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True)
class FunctionStats:
    """The jobs of one function.

    Attributes:
        jobs: How many.
        statuses: How many have each status.
        queue_s: From the call to the start, of jobs with one attempt; None when none has started.
        run_s: How long the last attempt ran, of jobs that succeeded, failed or ran out of time; None without any.
    """

    function: str
    jobs: int
    statuses: dict[str, int]
    queue_s: Spread | None
    run_s: Spread | None


@dataclass(frozen=True)
class AppStats:
    """The jobs of an app, by function; functions without any are left out.

    Attributes:
        since: From when on jobs count, by when they were made; None for all that are kept.
        is_whole: False when there were more jobs than the server looks at; `since` is then later than asked for.
    """

    app: str
    since: str | None
    until: str
    is_whole: bool
    functions: tuple[FunctionStats, ...]


def wanted(given: Mapping[str, str | None], unfinished: bool) -> dict[str, str]:
    """Return the filters of a list of jobs that are given."""
    found = {name: value for name, value in given.items() if value is not None}
    return {**found, "unfinished": "true"} if unfinished else found


def list_jobs(core: Core, wanted: Mapping[str, str], limit: int) -> Steps[tuple[JobEntry, ...]]:
    """Return up to `limit` jobs, newest first, that the filters let pass."""
    found: list[JobEntry] = []
    cursor: str | None = None
    while True:
        size = min(limit - len(found), LIST_PAGE_MAX)
        items, cursor = yield from page(core, "/v1/jobs", wanted, size, cursor)
        found.extend(build(JobEntry, item) for item in items[:size])
        if cursor is None or len(found) >= limit:
            return tuple(found)


def app_stats(core: Core, app: str, function: str | None, since: str | None) -> Steps[AppStats]:
    """Return how the calls of an app went, of one function or of each."""
    query = wanted({"function": function, "since": since}, unfinished=False)
    return get(core, AppStats, f"/v1/apps/{part(app)}/stats", query)


class JobListMethods:
    """The methods of the blocking client about many jobs at once."""

    @property
    def core(self) -> Core:
        """What all operations share."""
        raise NotImplementedError

    def run(self, steps: Steps[T]) -> T:
        """Perform an operation."""
        raise NotImplementedError

    def list_jobs(
        self,
        *,
        app: str | None = None,
        function: str | None = None,
        deployment: str | None = None,
        group: str | None = None,
        status: str | None = None,
        unfinished: bool = False,
        since: str | None = None,
        limit: int = 50,
    ) -> tuple[JobEntry, ...]:
        """Return jobs, newest first.

        Args:
            app, function: Names.
            deployment: Id of a deployment.
            group: Id of a group; of its items, those that have a record of their own, which is told in the docs.
            unfinished: Only jobs that have not ended.
            since: Only jobs made since then, a time with its zone such as 2026-01-31T12:00:00Z.
            limit: Most jobs to return, 1 to 100,000.
        """
        given = {"app": app, "function": function, "deployment": deployment}
        given |= {"group": group, "status": status, "since": since}
        filters = wanted(given, flag("unfinished", unfinished))
        return self.run(list_jobs(self.core, filters, whole("limit", limit, 1, 100_000)))

    def app_stats(self, app: str, function: str | None = None, *, since: str | None = None) -> AppStats:
        """Return how the calls of an app went, of one function or of each.

        Args:
            since: Only jobs made since then, a time with its zone; None for all that are kept. The server looks at the
                newest 100,000 jobs of the org at most and says so.

        Raises:
            NotFoundError: There is no such app, or it never had such a function; the message names near ones.
        """
        return self.run(app_stats(self.core, app, function, since))
