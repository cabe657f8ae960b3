"""One operation of the runtime face each, without I/O. Names and shapes follow `openapi/runtime.json`."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import quote, urlencode

from apothic._answers import (
    AppInfo,
    DeploymentEnd,
    DeploymentEntry,
    DeploymentInfo,
    EventPage,
    FunctionInfo,
    Identity,
    JobInfo,
    JobStatus,
    LogPage,
    Readiness,
)
from apothic._core import Core
from apothic._exchange import failure, parse_json, perform
from apothic._http import FileBody, Request, Response
from apothic._parse import build
from apothic._steps import Steps
from apothic._transfers import uploaded
from apothic.errors import InvalidRequestError, ProtocolError
from apothic.wire.archive_parts import PARTS_TYPE
from apothic.wire.frames import join_frame
from apothic.wire.functions import Manifest
from apothic.wire.limits import LIST_PAGE_MAX, LOG_PAGE_LINES_MAX
from apothic.wire.values import CALL_TYPE, Value

if TYPE_CHECKING:
    from apothic._large import LargeBody
    from apothic._workers import EnrolledWorker, WorkerInfo

T = TypeVar("T")

PIECE_SIZE = 256 * 1024
PUT_S_MAX = 3600.0
"""Longest upload of an archive."""

_CALL = ("Content-Type", CALL_TYPE)
JSON_TYPE = ("Content-Type", "application/json")
ACCEPT_JSON = ("Accept", "application/json")
_NO_PARTS = frozenset({404, 409, 413, 415, 422})
"""Answers to an upload of parts after which the archive is sent whole."""
_REPEATABLE = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})


def raw(
    core: Core,
    method: str,
    path: str,
    *,
    query: Mapping[str, str] | None = None,
    json_body: Any = None,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Steps[Response]:
    """Send any request and return its answer as it is. A 429 or 503 is an answer like any other here.

    Raises:
        InvalidRequestError: Method, path, query or headers cannot be sent.
    """
    if json_body is not None and body is not None:
        raise InvalidRequestError("a request has either a JSON body or a raw one")
    if json_body is not None:
        body = json.dumps(json_body, separators=(",", ":")).encode()
        headers = {"Content-Type": "application/json", **(headers or {})}
    request = Request(
        method.upper(),
        target(core, path, query),
        tuple((headers or {}).items()),
        body,
        is_repeatable=method.upper() in _REPEATABLE,
        waits_for_room=False,
    )
    try:
        return (yield from perform(core, request))
    except (ValueError, UnicodeError) as error:
        raise InvalidRequestError(f"The request cannot be sent: {error}.") from None


def identity(core: Core) -> Steps[Identity]:
    return get(core, Identity, "/v1/identity")


def readiness(core: Core) -> Steps[Readiness]:
    request = Request("GET", target(core, "/readyz"), (ACCEPT_JSON,), is_repeatable=True, waits_for_room=False)
    response = yield from perform(core, request)
    if response.status not in {200, 503}:
        raise failure(core, response)
    return build(Readiness, parse_json(response.body))


def list_workers(core: Core) -> Steps[tuple[WorkerInfo, ...]]:
    from apothic._workers import WorkerInfo

    data = yield from _get_json(core, "/v1/workers")
    return tuple(build(WorkerInfo, item) for item in _items(data))


def list_enrolled_workers(core: Core) -> Steps[tuple[EnrolledWorker, ...]]:
    from apothic._workers import EnrolledWorker

    data = yield from _get_json(core, "/v1/workers")
    return tuple(build(EnrolledWorker, item) for item in _items(data, "enrolled"))


def drain_worker(core: Core, name: str) -> Steps[EnrolledWorker]:
    return (yield from _order(core, "POST", f"/v1/workers/{part(name)}/drain"))


def resume_worker(core: Core, name: str) -> Steps[EnrolledWorker]:
    return (yield from _order(core, "POST", f"/v1/workers/{part(name)}/resume"))


def remove_worker(core: Core, name: str) -> Steps[EnrolledWorker]:
    return (yield from _order(core, "DELETE", f"/v1/workers/{part(name)}"))


def _order(core: Core, method: str, path: str) -> Steps[EnrolledWorker]:
    from apothic._workers import EnrolledWorker

    response = yield from perform(core, Request(method, target(core, path), (ACCEPT_JSON,), is_repeatable=True))
    return read(core, response, EnrolledWorker, 200)


def list_apps(core: Core) -> Steps[tuple[AppInfo, ...]]:
    """Return all apps, page by page, in the server's order."""
    items = yield from all_items(core, "/v1/apps", {})
    return tuple(build(AppInfo, item) for item in items)


def list_deployments(core: Core, app: str | None) -> Steps[tuple[DeploymentEntry, ...]]:
    """Return all deployments that are not deleted, of one app or of all, newest first."""
    items = yield from all_items(core, "/v1/deployments", {} if app is None else {"app": app})
    return tuple(build(DeploymentEntry, item) for item in items)


def get_app(core: Core, name: str) -> Steps[AppInfo]:
    return get(core, AppInfo, f"/v1/apps/{part(name)}")


def get_deployment(core: Core, deployment_id: str) -> Steps[DeploymentInfo]:
    return get(core, DeploymentInfo, f"/v1/deployments/{part(deployment_id)}")


def stop_deployment(core: Core, deployment_id: str, now: bool) -> Steps[DeploymentEnd]:
    """Let a deployment take no more calls; asking twice is fine."""
    query = {"now": "true"} if now else None
    path = target(core, f"/v1/deployments/{part(deployment_id)}/stop", query)
    response = yield from perform(core, Request("POST", path, (ACCEPT_JSON,), is_repeatable=True))
    return read(core, response, DeploymentEnd, 200)


def delete_deployment(core: Core, deployment_id: str, now: bool) -> Steps[DeploymentEnd]:
    """Delete a deployment; asking twice is fine."""
    query = {"now": "true"} if now else None
    path = target(core, f"/v1/deployments/{part(deployment_id)}", query)
    response = yield from perform(core, Request("DELETE", path, (ACCEPT_JSON,), is_repeatable=True))
    return read(core, response, DeploymentEnd, 200)


def get_function(core: Core, app: str, name: str) -> Steps[FunctionInfo]:
    return get(core, FunctionInfo, f"/v1/apps/{part(app)}/functions/{part(name)}")


def function_by_id(core: Core, function_id: str) -> Steps[FunctionInfo]:
    return get(core, FunctionInfo, f"/v1/functions/{part(function_id)}")


def get_job(core: Core, job_id: str) -> Steps[JobInfo]:
    return get(core, JobInfo, f"/v1/jobs/{part(job_id)}")


def job_logs(core: Core, job_id: str, after: int) -> Steps[LogPage]:
    query = {"after": str(after), "limit": str(LOG_PAGE_LINES_MAX)}
    data = yield from _get_json(core, f"/v1/jobs/{part(job_id)}/logs", query)
    return build(LogPage, data)


def event_page(core: Core, path: str, after: int, types: str) -> Steps[EventPage]:
    """Return a page of the events at `path` without waiting for any; `types` is the filter, empty for none."""
    query = {"after": str(after)} | ({"types": types} if types else {})
    data = yield from _get_json(core, path, query)
    return build(EventPage, data)


def all_lines(core: Core, job_id: str) -> Steps[list[str]]:
    """Return every line so far, oldest first."""
    lines: list[str] = []
    after = -1
    while True:
        page = yield from job_logs(core, job_id, after)
        lines.extend(line.line for line in page.lines)
        if len(page.lines) < LOG_PAGE_LINES_MAX or page.last_index <= after:
            return lines
        after = page.last_index


def cancel_job(core: Core, job_id: str) -> Steps[str]:
    """Ask for the end of a job and return its status after that; asking twice is fine."""
    path = target(core, f"/v1/jobs/{part(job_id)}/cancel")
    response = yield from perform(core, Request("POST", path, (ACCEPT_JSON,), is_repeatable=True))
    return read(core, response, JobStatus, 200).status


def retry_job(core: Core, job_id: str) -> Steps[str]:
    """Make a new job with the function and the arguments of one that has ended; return its id."""
    path = target(core, f"/v1/jobs/{part(job_id)}/retry")
    response = yield from perform(core, once(core, Request("POST", path, (ACCEPT_JSON,))))
    return read(core, response, JobStatus, 202).job_id


def has_archive(core: Core, sha256: str) -> Steps[bool]:
    path = target(core, f"/v1/archives/{part(sha256)}")
    response = yield from perform(core, Request("HEAD", path, is_repeatable=True))
    if response.status == 404:
        return False
    if response.status != 200:
        raise failure(core, response)
    return True


def put_archive(core: Core, source: bytes | Path, sha256: str) -> Steps[None]:
    body = source if isinstance(source, bytes) else FileBody(source.stat().st_size, lambda: _pieces(source))
    path = target(core, f"/v1/archives/{part(sha256)}")
    headers = (("Content-Type", "application/octet-stream"), ACCEPT_JSON)
    request = Request("PUT", path, headers, body, is_repeatable=True)
    response = yield from perform(core, request, timeout_s=max(core.timeout_s, PUT_S_MAX))
    if response.status not in {200, 201}:
        raise failure(core, response)


def put_archive_parts(core: Core, body: bytes, sha256: str) -> Steps[bool]:
    """Upload an archive as parts of another one; False when the server cannot make it of them, so that all is sent."""
    path = target(core, f"/v1/archives/{part(sha256)}")
    request = Request("PUT", path, (("Content-Type", PARTS_TYPE), ACCEPT_JSON), body, is_repeatable=True)
    response = yield from perform(core, request, timeout_s=max(core.timeout_s, PUT_S_MAX))
    if response.status not in {200, 201} and response.status not in _NO_PARTS:
        raise failure(core, response)
    return response.status in {200, 201}


def create_deployment(
    core: Core, app: str, manifest: Manifest, sha256: str, if_changed: bool
) -> Steps[tuple[DeploymentInfo, bool]]:
    """Return the live deployment, and whether it was made; with `if_changed` it is not when nothing would change."""
    body = json.dumps({"manifest": asdict(manifest), "archive_sha256": sha256}, separators=(",", ":")).encode()
    path = target(core, f"/v1/apps/{part(app)}/deployments", {"if_changed": "true"} if if_changed else None)
    response = yield from perform(core, once(core, Request("POST", path, (JSON_TYPE, ACCEPT_JSON), body)))
    return read(core, response, DeploymentInfo, 201, 200), response.status == 201


def rollback(core: Core, app: str, version: int | None) -> Steps[DeploymentInfo]:
    """Make the content of an earlier version live; without one, of the newest before what is live."""
    path = target(core, f"/v1/apps/{part(app)}/rollback", None if version is None else {"version": str(version)})
    response = yield from perform(core, once(core, Request("POST", path, (ACCEPT_JSON,))))
    return read(core, response, DeploymentInfo, 201, 200)


def spawn(core: Core, function_id: str, value: Value | LargeBody) -> Steps[str]:
    """Create a job and return its id; the job is durable then."""
    sent = yield from uploaded(core, value)
    request = call_request(core, function_id, sent, ACCEPT_JSON, wait_s=0)
    response = yield from perform(core, request)
    return read(core, response, JobStatus, 202, 200).job_id


def call_request(
    core: Core,
    function_id: str,
    value: Value,
    accept: tuple[str, str],
    *,
    wait_s: int | None = None,
    on_interrupt: Callable[[], bool] | None = None,
) -> Request:
    """Return the request that makes a job, one job however often it is sent; `on_interrupt` as in `Request`."""
    path = _calls_path(core.endpoint.prefix, function_id, wait_s)
    body = join_frame(_call_head(value.encoding, value.python), value.data)
    return Request(
        "POST", path, (_CALL, accept), body, is_repeatable=True, key=core.new_key(), on_interrupt=on_interrupt
    )


@functools.lru_cache(maxsize=64)
def _calls_path(prefix: str, function_id: str, wait_s: int | None) -> str:
    path = f"{prefix}/v1/functions/{part(function_id)}/calls"
    return path if wait_s is None else f"{path}?wait_s={wait_s}"


@functools.lru_cache(maxsize=16)
def _call_head(encoding: str, python: str | None) -> bytes:
    return json.dumps({"encoding": encoding, "python": python}, separators=(",", ":")).encode()


def part(text: str) -> str:
    """Return `text` as one segment of a path.

    Raises:
        InvalidRequestError: No path may hold it.
    """
    if not text or text in {".", ".."}:
        raise InvalidRequestError(f"{text!r} names nothing")
    try:
        return quote(text, safe=":")
    except UnicodeEncodeError:
        raise InvalidRequestError(f"{text!r} is not valid text") from None


def target(core: Core, path: str, query: Mapping[str, str] | None = None) -> str:
    """Return a path under the client's base URL, with its query."""
    return f"{core.endpoint.prefix}{path}?{urlencode(query)}" if query else f"{core.endpoint.prefix}{path}"


def once(core: Core, request: Request) -> Request:
    """Return the request with an idempotency key of its own, so that it may be sent again."""
    return request._replace(key=core.new_key(), is_repeatable=True)


def get(core: Core, kind: type[T], path: str, query: Mapping[str, str] | None = None) -> Steps[T]:
    """Return what a path answers."""
    data = yield from _get_json(core, path, query)
    return build(kind, data)


def _get_json(core: Core, path: str, query: Mapping[str, str] | None = None) -> Steps[Any]:
    request = Request("GET", target(core, path, query), (ACCEPT_JSON,), is_repeatable=True)
    response = yield from perform(core, request)
    if response.status != 200:
        raise failure(core, response)
    return parse_json(response.body)


def all_items(core: Core, path: str, query: Mapping[str, str]) -> Steps[list[Any]]:
    """Return the items of all pages of a list.

    Raises:
        ProtocolError: The pages do not end.
    """
    found: list[Any] = []
    cursor: str | None = None
    while True:
        items, following = yield from page(core, path, query, LIST_PAGE_MAX, cursor)
        found.extend(items)
        if following is None:
            return found
        if not items:
            raise ProtocolError(f"The server's list at {path} does not end.")
        cursor = following


def page(
    core: Core, path: str, query: Mapping[str, str], limit: int, cursor: str | None
) -> Steps[tuple[list[Any], str | None]]:
    """Return one page of a list, and the cursor of the next one, None at the end.

    Raises:
        ProtocolError: The cursor does not move.
    """
    wanted = {**query, "limit": str(limit)} | ({"cursor": cursor} if cursor else {})
    data = yield from _get_json(core, path, wanted)
    items, following = _items(data), cast("dict[str, Any]", data).get("next_cursor")
    if following is not None and (not isinstance(following, str) or following == cursor):
        raise ProtocolError(f"The server's list at {path} does not end.")
    return items, following


def read(core: Core, response: Response, kind: type[T], *statuses: int) -> T:
    """Return an answer with one of `statuses` as `kind`; any other status is an error."""
    if response.status not in statuses:
        raise failure(core, response)
    return build(kind, parse_json(response.body))


def _items(data: Any, field: str = "items") -> list[Any]:
    items = cast("dict[str, Any]", data).get(field) if isinstance(data, dict) else None
    if not isinstance(items, list):
        raise ProtocolError(f"The server's answer does not fit: {field} must be list.")
    return cast("list[Any]", items)


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE_SIZE):
            yield piece
