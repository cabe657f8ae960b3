"""A scripted control plane: a real HTTP server in threads whose answers are checked against the committed contract."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from apothic import ControlPlaneClient
from apothic._core import Core
from apothic.config import parse_url
from apothic.wire.archive_parts import PARTS_TYPE, Part, decode_parts
from apothic.wire.frames import decode_frame, encode_frame

CONTRACT = json.loads((Path(__file__).parents[4] / "openapi" / "runtime.json").read_text())
KEY = "00000000000000000000000000"
JOB = f"jobs:{KEY}"
FUNCTION = f"functions:{KEY}"
DEPLOYMENT = f"deployments:{KEY}"
TIME = "2026-01-02T03:04:05.678Z"
TOKEN = "lk_test"


@dataclass
class Received:
    """One request as the server read it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def arguments(self) -> Any:
        head, data = decode_frame(self.body)
        assert head["encoding"] == "json"
        return json.loads(data)


class Wire:
    """The server's end of one connection, for scripts that need more than one plain answer."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = b""

    def read(self) -> Received | None:
        while b"\r\n\r\n" not in self._buffer:
            if not self._more():
                return None
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        size = int(headers.get("content-length", "0"))
        while len(self._buffer) < size:
            if not self._more():
                return None
        body, self._buffer = self._buffer[:size], self._buffer[size:]
        return Received(method, path, headers, body)

    def _more(self) -> bool:
        data = self.sock.recv(65536)
        self._buffer += data
        return bool(data)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(self, status: int, data: Any = None, **headers: str) -> None:
        body = b"" if data is None else json.dumps(data).encode()
        fields = {"Content-Length": str(len(body)), "Content-Type": "application/json", "X-Request-Id": "r1"}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.send(f"HTTP/1.1 {status} Reason\r\n{lines}\r\n".encode() + body)

    def refuse(self, status: int, code: str, detail: Any = "no", *, retryable: bool = False, **headers: str) -> None:
        body = {"detail": detail, "code": code, "request_id": "r1", "retryable": retryable}
        check("Error", body)
        self.answer(status, body, **headers)

    def begin_stream(self) -> None:
        self.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.apothic.outcome\r\nTransfer-Encoding: chunked\r\n\r\n"
        )

    def begin_events(self) -> None:
        self.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")

    def event(self, index: int, kind: str, data: dict[str, Any] | None = None) -> None:
        """Send one event of the kind, checked against the contract; without data a plain one."""
        made = {"index": index, "event": kind, "data": event_data(kind) if data is None else data}
        if not kind.endswith(".alive"):
            check("EventPage", {"events": [made], "last_index": index, "is_final": False})
        self.chunk(f"id: {index}\nevent: {kind}\ndata: {json.dumps(made['data'])}\n\n".encode())

    def chunk(self, data: bytes) -> None:
        self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def frame(self, head: dict[str, Any], body: bytes = b"") -> None:
        self.chunk(encode_frame(head, body))

    def end_stream(self) -> None:
        self.send(b"0\r\n\r\n")

    def outcome(self, status: str = "succeeded", result: Any = None, **more: Any) -> None:
        """Send a whole streamed answer; `more` overrides fields of its head."""
        self.begin_stream()
        self.frame(*outcome(status, result, **more))
        self.end_stream()


def outcome(status: str = "succeeded", result: Any = None, **more: Any) -> tuple[dict[str, Any], bytes]:
    has_value = status == "succeeded"
    head = {
        "kind": "outcome", "job_id": JOB, "status": status, "encoding": "json" if has_value else None, "python": None,
        "error": None, "attempt": 1,
    } | more  # fmt: skip
    return head, json.dumps(result).encode() if has_value else b""


def event_data(kind: str) -> dict[str, Any]:
    """Return plain data of a kind of event."""
    return {
        "job.queued": {"status": "queued"},
        "job.running": {"status": "running", "attempt": 1},
        "job.log": {"stream": "stdout", "line": "hello", "time": TIME, "partial": False},
        "job.result": {"attempt": 1, "encoding": "json", "python": None, "result": {"a": [1]}},
        "job.end": {"status": "succeeded"},
        "job.alive": {},
    }[kind]


def job_json(**more: Any) -> dict[str, Any]:
    return check(
        "Job",
        {
            "job_id": JOB, "app": "hello-world", "function": "greet", "function_id": FUNCTION,
            "deployment_id": DEPLOYMENT, "status": "running", "attempt": 1, "waiting_reason": None, "error": None,
            "retry_of": None, "schedule_id": None, "due_at": None,
        "parent_job_id": None, "depth": 0, "created_at": TIME,
            "started_at": TIME, "finished_at": None,
        } | more,
    )  # fmt: skip


def remote_error(**more: Any) -> dict[str, Any]:
    error = {"type": "builtins.ValueError", "message": "bad", "traceback": "", "code": "exception", "causes": []} | more
    check("RemoteError", error)
    return error


def check(schema: str, data: Any) -> Any:
    """Fail when `data` is not what the contract says."""
    jsonschema.validate(data, {"$ref": f"#/components/schemas/{schema}", "components": CONTRACT["components"]})
    return data


def function_json(name: str = "greet", **more: Any) -> dict[str, Any]:
    spec = {
        "function_id": FUNCTION, "app": "hello-world", "deployment_id": DEPLOYMENT, "name": name, "kind": "function",
        "qualname": name, "cpu": 1, "memory_mb": 1024, "timeout_s": 600, "queue_timeout_s": 86_400,
        "startup_timeout_s": 60, "deadline_s": None, "disconnect_grace_s": 0, "max_retries": 0,
        "retry_initial_delay_s": 1, "retry_backoff_coefficient": 2.0, "retry_max_delay_s": 60.0, "at_most_once": False,
        "max_containers": 1,
        "tasks_per_container": 1, "concurrent_requests": 1, "max_pending_tasks": 100, "is_async": False,
        "is_generator": False,
        "placement": {},
        "image": None,
        "schedule": None,
        "batching": None,
    } | more  # fmt: skip
    return check("Function", spec)


def deployment_json(**more: Any) -> dict[str, Any]:
    return check(
        "Deployment",
        {
            "deployment_id": DEPLOYMENT, "app": "hello-world", "version": 1, "status": "active",
            "archive_sha256": "0" * 64, "python": "3.11", "client_version": "0.1.0", "functions": [function_json()],
            "created_by": f"keys:{KEY}", "created_at": TIME, "stopped_at": None, "deleted_at": None,
            "restored_from": None,
            "manifest": {"module": "hello", "app_variable": "app", "python": "3.11", "client_version": "0.1.0",
                         "functions": [{"name": "greet"}], "files": {}},
        } | more,
    )  # fmt: skip


Script = Callable[[Wire, Received], Any]


@dataclass
class ScriptedServer:
    """Answers each request by the script of its method and path, else by the next of `scripts`."""

    routes: dict[str, Script] = field(default_factory=dict)
    scripts: list[Script] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    problems: list[BaseException] = field(default_factory=list)
    connections: int = 0
    wire_class: type[Wire] = Wire
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            self._open.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            with suppress(ConnectionError, OSError):
                sock = self.tls.wrap_socket(sock, server_side=True) if self.tls else sock
                wire = self.wire_class(sock)
                while (request := wire.read()) is not None:
                    self.received.append(request)
                    path = request.path.partition("?")[0]
                    script = self.routes.get(f"{request.method} {path}") or self.scripts.pop(0)
                    if script(wire, request) is False:
                        break
        except BaseException as problem:
            self.problems.append(problem)
        finally:
            sock.close()

    def stop_listening(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def close(self) -> None:
        self.stop_listening()
        for sock in self._open:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        assert not self.problems, self.problems
        assert not any(thread.is_alive() for thread in self._threads)

    def deploys(self) -> dict[str, bytes]:
        """Serve everything that a deploy and a look-up need; returns the uploaded archives by digest."""
        archives: dict[str, bytes] = {}

        def put(wire: Wire, request: Received) -> None:
            data = request.body
            if request.headers["content-type"] == PARTS_TYPE:
                base, parts, new = decode_parts(request.body)
                if base not in archives:
                    wire.refuse(409, "archive_missing")
                    return
                data = join_parts(archives[base], parts, new)
            digest = hashlib.sha256(data).hexdigest()
            assert request.path == f"/v1/archives/{digest}"
            archives[digest] = data
            wire.answer(201, check("Archive", {"sha256": digest, "size_bytes": len(data)}))

        def any_path(wire: Wire, request: Received) -> None:
            if request.method == "HEAD":
                wire.send(
                    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
                    if request.path.rpartition("/")[2] in archives
                    else b"HTTP/1.1 404 Not Found\r\nContent-Length: 90\r\n\r\n"
                )
            elif request.method == "PUT":
                put(wire, request)
            elif request.path.partition("?")[0].endswith("/deployments"):
                body = check("NewDeployment", json.loads(request.body))
                names = [spec["name"] for spec in body["manifest"]["functions"]]
                wire.answer(201, deployment_json(functions=[function_json(name) for name in names]))
            elif request.path.endswith("/calls"):
                wire.outcome(result=f"hello, {request.arguments[0][0]}")
            else:
                wire.answer(200, function_json())

        self.scripts = _Endless(any_path)
        return archives


def join_parts(base: bytes, parts: list[Part], new: bytes) -> bytes:
    """Return the archive that the parts make."""
    pieces: list[bytes] = []
    for offset, size in parts:
        pieces.append(new[:size] if offset is None else base[offset : offset + size])
        new = new[size:] if offset is None else new
    return b"".join(pieces)


class _Endless(list[Script]):
    def __init__(self, script: Script) -> None:
        super().__init__([script])

    def pop(self, _index: Any = 0) -> Script:
        return self[0]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    scripted = ScriptedServer()
    yield scripted
    scripted.close()


@pytest.fixture
def client(server: ScriptedServer) -> Iterator[ControlPlaneClient]:
    """A client whose pauses are all drawn as 0."""
    made = ControlPlaneClient.from_core(make_core(server.url))
    yield made
    made.close()


def make_core(url: str, **more: Any) -> Core:
    endpoint = parse_url(url, authorization=f"Bearer {TOKEN}", pid=more.pop("pid", None))
    return Core(endpoint, **({"random": lambda: 0.0, "timeout_s": 10.0} | more))


@pytest.fixture(name="contract")
def contract_fixture() -> dict[str, Any]:
    return CONTRACT


@pytest.fixture(autouse=True)
def _no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("API_KEY", "AUTH_TOKEN", "AUTH_HEADER", "BASE_URL", "QUIET"):
        monkeypatch.delenv(f"APOTHIC_{name}", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
