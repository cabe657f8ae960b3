"""A scripted cloud that answers over real HTTP in the shapes of the runtime face, and a way to run commands."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from apothic.cli.main import main
from apothic.wire.frames import decode_frame, encode_frame
from apothic.wire.functions import FunctionSpec
from apothic.wire.values import OUTCOME_TYPE
from apothic.wire.version import VERSION

KEY = "lk_scripted"
JOB = "jobs:01jc5v0000000000000000job1"
FUNCTION = "functions:01jc5v000000000000000func1"
DEPLOYMENT = "deployments:01jc5v00000000000000depl01"
OLDER = "deployments:01jc5v00000000000000depl00"
SCHEDULE = "schedules:01jc8z6m2x8b1d4f7h0k3n6q9s"
GROUP = "groups:01jc5v000000000000000grp01"
TIME = "2026-01-02T03:04:05.678Z"


@dataclass
class Asked:
    """One request as the scripted cloud got it."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def frame(self) -> tuple[dict[str, Any], bytes]:
        return decode_frame(self.body)


@dataclass
class Answer:
    """What the scripted cloud says: JSON unless `body` is given."""

    status: int = 200
    document: Any = None
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)


Script = Answer | Callable[[BaseHTTPRequestHandler, Asked], Answer]


class ScriptedCloud:
    """Answers `(method, path)` from a table; an unknown pair is 404 as the real face says it."""

    def __init__(self) -> None:
        self.script: dict[tuple[str, str], Script] = {}
        self.asked: list[Asked] = []
        self.now: float | None = None
        cloud = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                path, _, query = self.path.partition("?")
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                asked = Asked(self.command, path, query, {k.lower(): v for k, v in self.headers.items()}, body)
                cloud.asked.append(asked)
                answer = cloud.script.get((self.command, path), refused(404, "not_found", "No such thing."))
                found = answer if isinstance(answer, Answer) else answer(self, asked)
                self.give(found)

            def give(self, answer: Answer) -> None:
                body = json.dumps(answer.document).encode() if answer.body is None else answer.body
                headers = {"Content-Type": "application/json", "X-Request-Id": "req-1", **answer.headers}
                self.send_response(answer.status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def date_time_string(self, timestamp: float | None = None) -> str:
                return formatdate(cloud.now if timestamp is None else timestamp, usegmt=True)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
                del format, args

            do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = handle_any  # noqa: N815 - names of the base class

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """Say nothing: clients that leave early are part of some tests."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def requests(self) -> list[str]:
        return [f"{asked.method} {asked.path}" for asked in self.asked]

    def last(self, method: str, path: str) -> Asked:
        return next(asked for asked in reversed(self.asked) if (asked.method, asked.path) == (method, path))


def refused(status: int, code: str, detail: Any, *, is_retryable: bool = False) -> Answer:
    body = {"detail": detail, "code": code, "request_id": f"req-{status}", "retryable": is_retryable}
    return Answer(status, body)


def function_document(name: str = "greet") -> dict[str, Any]:
    spec = asdict(FunctionSpec(name, qualname=name))
    return {**spec, "function_id": FUNCTION, "app": "hello-world", "deployment_id": DEPLOYMENT}


def manifest_document(**changes: Any) -> dict[str, Any]:
    spec = {**asdict(FunctionSpec("greet", qualname="greet", memory_mb=512, timeout_s=60)), "cpu": 2}
    files = {"hello_world.py": "ab" * 32, "gone.py": "cd" * 32}
    found = {"module": "hello_world", "app_variable": "app", "python": "3.9", "client_version": VERSION}
    return {**found, "functions": [spec], "files": files, **changes}


def schedule_document(status: str = "active") -> dict[str, Any]:
    """A nightly schedule that ran once."""
    return {
        "schedule_id": SCHEDULE, "app": "hello-world", "function": "greet", "function_id": FUNCTION,
        "deployment_id": DEPLOYMENT, "status": status, "words": "at 02:30 every day (Europe/Berlin)",
        "cron": "30 2 * * *", "timezone": "Europe/Berlin", "period_s": None, "catch_up": "latest", "overlap": "skip",
        "jitter_s": 0.0, "next": ["2026-01-03T01:30:00.000Z"] if status == "active" else [], "waiting_due": None,
        "runs": [{"job_id": JOB, "due_at": "2026-01-02T01:30:00.000Z", "status": "succeeded", "created_at": TIME}],
        "created_at": TIME, "paused_at": None if status == "active" else TIME, "ended_at": None,
    }  # fmt: skip


def deployment_document(**changes: Any) -> dict[str, Any]:
    return {
        "deployment_id": DEPLOYMENT, "app": "hello-world", "version": 3, "status": "active",
        "archive_sha256": "ab" * 32, "python": "3.11", "client_version": "0.1.0",
        "functions": [function_document()], "created_by": "01key", "created_at": TIME, "restored_from": None,
        "manifest": manifest_document(), **changes,
    }  # fmt: skip


def job_document(**changes: Any) -> dict[str, Any]:
    return {
        "job_id": JOB, "app": "hello-world", "function": "greet", "function_id": FUNCTION, "deployment_id": DEPLOYMENT,
        "status": "running", "attempt": 1, "waiting_reason": None, "error": None, "created_at": TIME,
        "retry_of": None, "schedule_id": None, "due_at": None,
        "parent_job_id": None, "depth": 0, "started_at": TIME, "finished_at": None, **changes,
    }  # fmt: skip


def group_document(**changes: Any) -> dict[str, Any]:
    """A group with 4 of 10 items ended, one of them failed."""
    return {
        "id": GROUP, "app": "hello-world", "function": FUNCTION, "function_name": "greet", "deployment": DEPLOYMENT,
        "status": "running", "spread": False, "key": None, "stop_after": None, "items": 10, "total": 10,
        "counts": group_counts(), "created_at": TIME, "finished_at": None, "error": None, "waiting_reason": None,
        **changes,
    }  # fmt: skip


def group_counts(**changes: int) -> dict[str, int]:
    counts = {"queued": 5, "running": 1, "retrying": 0, "succeeded": 3, "failed": 1, "cancelled": 0, "timed_out": 0}
    return counts | changes


LISTED = {
    "job_id", "app", "function", "deployment_id", "status", "attempt", "created_at", "started_at", "finished_at",
    "waiting_reason",
}  # fmt: skip
"""What a list of jobs says of each."""


def listed_job(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in job_document(**changes).items() if name in LISTED}


def page(*items: dict[str, Any]) -> Answer:
    """The only page of a list."""
    return Answer(document={"items": list(items), "next_cursor": None})


def app_document() -> dict[str, Any]:
    return {
        "app_id": "apps:01jc5v0000000000000000app1", "name": "hello-world", "deployment_id": DEPLOYMENT, "version": 3,
        "functions": ["greet"], "created_at": TIME,
    }  # fmt: skip


def stats_document() -> dict[str, Any]:
    """Two jobs of one function, one of which failed."""
    ended = {"succeeded": 1, "failed": 1, "cancelled": 0, "timed_out": 0}
    unfinished = dict.fromkeys(("queued", "starting", "running", "retrying", "cancelling"), 0)
    work = {
        "function": "greet", "jobs": 2, "statuses": {**unfinished, **ended},
        "queue_s": {"p50": 0.0123, "p90": 1.5, "p99": 2, "max": 2.5}, "run_s": None,
    }  # fmt: skip
    return {"app": "hello-world", "since": TIME, "until": TIME, "is_whole": True, "functions": [work]}


def log_document(first: int, *lines: str, is_final: bool = True) -> dict[str, Any]:
    found = [{"index": first + n, "time": TIME, "stream": "stdout", "line": line} for n, line in enumerate(lines)]
    return {"lines": found, "last_index": first + len(lines) - 1, "is_final": is_final}


def outcome(
    status: str = "succeeded", data: bytes = b"null", encoding: str | None = "json", error: Any = None
) -> Answer:
    head = {
        "kind": "outcome", "job_id": JOB, "status": status, "encoding": encoding if status == "succeeded" else None,
        "python": None, "error": error, "attempt": 1,
    }  # fmt: skip
    body = encode_frame(head, data if status == "succeeded" else b"")
    return Answer(200, body=body, headers={"Content-Type": OUTCOME_TYPE})


WHOLE = (
    (0, "job.queued", {"status": "queued"}),
    (1, "job.running", {"status": "running", "attempt": 1}),
    (2, "job.log", {"stream": "stdout", "line": "first", "time": TIME, "partial": False}),
    (3, "job.log", {"stream": "stderr", "line": "second", "time": TIME, "partial": False}),
    (4, "job.result", {"attempt": 1, "encoding": "json", "python": None, "result": "hello, world"}),
    (5, "job.end", {"status": "succeeded"}),
)
"""Events of a job that wrote two lines and returned a text."""


WHOLE_GROUP = (
    (0, "group.created", {"status": "running"}),
    (1, "group.progress", {"counts": group_counts(), "items": 10, "total": None}),
    (2, "group.progress", {"counts": group_counts(queued=0, running=0, succeeded=9), "items": 10, "total": 10}),
    (3, "group.end", {"status": "failed", "counts": group_counts(queued=0, running=0, succeeded=9), "error": None}),
)
"""Events of a group of ten items of which one failed."""


def told(*lines: str) -> list[str]:
    """What `run` says where no line can be drawn again: changes of the job with its id, output as it is."""
    return [line if line in {"first", "second"} else f"{JOB}: {line}" for line in lines]


def sse(*events: tuple[int, str, dict[str, Any]]) -> bytes:
    return b"".join(
        f"id: {index}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode() for index, kind, data in events
    )


def stream(*events: tuple[int, str, dict[str, Any]]) -> Answer:
    """A whole stream that has ended."""
    return Answer(200, body=sse(*events), headers={"Content-Type": "text/event-stream"})


def open_stream(
    handler: BaseHTTPRequestHandler, gate: threading.Event, *events: tuple[int, str, dict[str, Any]]
) -> Answer:
    """Send events, wait until the gate opens, and break the connection."""
    handler.send_response(200)
    handler.send_header("Content-Type", "text/event-stream")
    handler.end_headers()
    handler.wfile.write(sse(*events))
    handler.wfile.flush()
    gate.wait(30)
    raise ConnectionAbortedError


def held_document(**changes: Any) -> dict[str, Any]:
    one = {"worker": "local", "environment": "0" * 32, "size_bytes": 91_226_112, "built_at": TIME, "used_at": TIME}
    items = [{**one, "is_in_use": False, "is_needed": False, **changes}]
    return {"items": items, "freed_bytes": 0, "unanswered": [], "is_known": True}


def standard_script() -> dict[tuple[str, str], Script]:
    """A cloud with one app whose calls return "hello, world"."""
    machine = {
        "host": "box", "executor": "sandbox", "isolation": ["user", "pid"], "enforced": ["memory"],
        "not_enforced": {"cpu": "no cpu controller"}, "cpus": 2.0, "memory_mb": 2048, "pythons": ["3.11"],
    }  # fmt: skip
    worker = {
        "worker_id": "workers:01jc5v000000000000000work1", "name": "local", "status": "live", "connected_at": TIME,
        "machine": machine, "runners": 1,
    }  # fmt: skip
    key = {"id": "01key", "name": "main", "prefix": "lk_ab", "last4": "wxyz"}
    identity = {"org": "main", "key": key, "role": "owner", "scopes": ["apps:read"], "server_version": "0.1.0"}
    listed_deployment = {
        "deployment_id": DEPLOYMENT, "app": "hello-world", "version": 3, "status": "active", "created_at": TIME,
        "stopped_at": None, "restored_from": None,
    }  # fmt: skip
    older_deployment = {**listed_deployment, "deployment_id": OLDER, "version": 2, "status": "superseded"}
    ended = (0, "deployment.end", {"status": "deleted", "time": TIME})
    return {
        ("GET", "/v1/environments"): Answer(document=held_document()),
        ("DELETE", "/v1/environments"): Answer(document={**held_document(), "freed_bytes": 70_000_000}),
        ("GET", "/v1/jobs"): page(listed_job()),
        ("GET", "/v1/apps/hello-world/stats"): Answer(document=stats_document()),
        ("POST", f"/v1/jobs/{JOB}/retry"): Answer(202, {"job_id": JOB, "status": "queued"}),
        ("GET", "/v1/deployments"): Answer(
            document={"items": [listed_deployment, older_deployment], "next_cursor": None}
        ),
        ("GET", "/v1/schedules"): Answer(document={"items": [schedule_document()], "next_cursor": None}),
        ("GET", f"/v1/schedules/{SCHEDULE}"): Answer(document=schedule_document()),
        ("POST", f"/v1/schedules/{SCHEDULE}/pause"): Answer(document=schedule_document("paused")),
        ("POST", f"/v1/schedules/{SCHEDULE}/resume"): Answer(document=schedule_document()),
        ("POST", f"/v1/schedules/{SCHEDULE}/run"): Answer(202, {"job_id": JOB}),
        ("GET", "/v1/groups"): page(group_document()),
        ("GET", f"/v1/groups/{GROUP}"): Answer(document=group_document()),
        ("GET", f"/v1/groups/{GROUP}/events"): stream(*WHOLE_GROUP),
        ("POST", f"/v1/groups/{GROUP}/cancel"): Answer(document=group_document(status="cancelling")),
        ("GET", f"/v1/deployments/{DEPLOYMENT}/events"): stream(ended),
        ("POST", f"/v1/deployments/{DEPLOYMENT}/stop"): Answer(
            document={"deployment": deployment_document(status="stopped"), "unfinished_jobs": 0}
        ),
        ("DELETE", f"/v1/deployments/{DEPLOYMENT}"): Answer(
            document={"deployment": deployment_document(status="deleted"), "unfinished_jobs": 0}
        ),
        ("GET", "/healthz"): Answer(document={"status": "ok", "version": "0.1.0"}),
        ("GET", "/readyz"): Answer(
            document={"ready": True, "role": "dispatcher", "checks": {"store": {"ok": True, "detail": "up"}}}
        ),
        ("GET", "/v1/identity"): Answer(document=identity),
        ("GET", "/v1/workers"): Answer(document={"items": [worker], "enrolled": []}),
        ("GET", "/v1/apps"): page(app_document()),
        ("GET", f"/v1/deployments/{OLDER}"): Answer(document=deployment_document(deployment_id=OLDER, version=2)),
        ("GET", f"/v1/deployments/{DEPLOYMENT}"): Answer(document=deployment_document()),
        ("GET", "/v1/apps/hello-world/functions/greet"): Answer(document=function_document()),
        ("POST", f"/v1/functions/{FUNCTION}/calls"): Answer(202, {"job_id": JOB, "status": "queued"}),
        ("GET", f"/v1/jobs/{JOB}"): Answer(document=job_document()),
        ("GET", f"/v1/jobs/{JOB}/outcome"): outcome(data=b'"hello, world"'),
        ("GET", f"/v1/jobs/{JOB}/events"): stream(*WHOLE),
        ("GET", f"/v1/jobs/{JOB}/logs"): Answer(document=log_document(0, "first", "second")),
        ("POST", f"/v1/jobs/{JOB}/cancel"): Answer(document={"job_id": JOB, "status": "cancelled"}),
        ("POST", "/v1/apps/hello-world/rollback"): Answer(201, deployment_document(version=4, restored_from=2)),
        ("POST", "/v1/apps/hello-world/deployments"): Answer(201, deployment_document()),
    }


@pytest.fixture
def shapes() -> ModuleType:
    """This module: ids, and answers in the shapes of the runtime face."""
    return sys.modules[__name__]


@pytest.fixture
def cloud() -> Iterator[ScriptedCloud]:
    found = ScriptedCloud()
    found.script = standard_script()
    yield found
    found.close()


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        return json.loads(self.err)["error"]


Run = Callable[..., Ran]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], home: Path) -> Run:
    """Run a command in this process and return how it ended."""

    def run_command(*arguments: str) -> Ran:
        code = main(arguments)
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return run_command


@pytest.fixture
def run_process(home: Path) -> Run:
    """Run a command in a process of its own: what it loads stays there."""

    def run_command(*arguments: str) -> Ran:
        ended = subprocess.run([sys.executable, "-m", "apothic", *arguments], capture_output=True, text=True)
        return Ran(ended.returncode, ended.stdout, ended.stderr)

    return run_command


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with nothing in it, and no variable that names a cloud."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    ours = [name for name in os.environ if name.startswith("APOTHIC_")]
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "ZDOTDIR", *ours):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def connected(cloud: ScriptedCloud, home: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptedCloud:
    """The scripted cloud, named by the environment."""
    monkeypatch.setenv("APOTHIC_BASE_URL", cloud.url)
    monkeypatch.setenv("APOTHIC_API_KEY", KEY)
    return cloud
