"""Records for the batching writer as tests need them: a job of a fixed org that walks through table J."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from apothic.wire.ids import AppId, DeploymentId, FunctionId, JobId, KeyId, OrgId, make_key
from apothic.wire.values import Value
from apothic_server.domain.jobs import FINAL, LETTERS, JobChange, JobFields, JobStatus, NewJob, StoredValue, StreamEvent

__all__ = ["NOW", "ORG", "change", "job_id", "log_line", "new_job", "steps"]

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ORG = OrgId(make_key(0, 1))
_KEY = make_key(0, 2)
_STATUSES = {letter: status for status, letter in LETTERS.items()}


def job_id(number: int) -> JobId:
    """Return a valid id; greater numbers sort later."""
    return JobId(make_key(1, number))


def new_job(job: JobId, *, org: OrgId = ORG, arguments: bytes = b"[[],{}]", **data: Any) -> NewJob:
    """Return J1; `data` becomes part of its event."""
    return NewJob(
        id=job,
        org=org,
        app=AppId(_KEY),
        deployment=DeploymentId(_KEY),
        function=FunctionId(_KEY),
        arguments=StoredValue(Value("json", arguments)),
        created_by=KeyId(_KEY),
        created_at=NOW,
        events=(StreamEvent("job.queued", NOW, {"status": "queued", **data}),),
    )


def change(
    job: JobId,
    path: str,
    fence: int,
    *,
    org: OrgId = ORG,
    term: int | None = None,
    result: bytes | None = None,
    **columns: Any,
) -> JobChange:
    """Return the change that walks `path` from a row with this fence, with one event per step.

    A grant raises attempt and fence by one, and a final step sets `finished_at`, unless `columns` says otherwise.
    """
    last = _STATUSES[path[-1]]
    grants = path[1:].count("s")
    given: dict[str, Any] = {"attempt": fence + grants, "fence": fence + grants} if grants else {}
    if last in FINAL:
        given["finished_at"] = NOW
    if result is not None:
        given["result"] = StoredValue(Value("json", result))
    events = tuple(StreamEvent("job.status", NOW, {"status": _STATUSES[letter].value}) for letter in path[1:])
    return JobChange(org, job, _STATUSES[path[0]], fence, path, JobFields(**given | columns), events, term)


def steps(job: JobId, path: str, fence: int = 0) -> list[JobChange]:
    """Return one change for each step of `path`."""
    found: list[JobChange] = []
    for place in range(len(path) - 1):
        found.append(change(job, path[place : place + 2], fence))
        fence += path[place + 1] == "s"
    return found


def log_line(job: JobId, status: JobStatus, fence: int, *texts: str, org: OrgId = ORG) -> JobChange:
    """Return a change that appends output and moves nothing."""
    events = tuple(StreamEvent("job.log", NOW, {"stream": "stdout", "line": text}) for text in texts)
    return JobChange(org, job, status, fence, "", JobFields(), events)
