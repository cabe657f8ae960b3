"""A package index for tests: a folder of wheels over HTTP or HTTPS, on 127.0.0.1, which can keep its files back."""

from __future__ import annotations

import base64
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self


class PackageIndex:
    """Serves `/simple/NAME/` and the wheels; use it as a context.

    Args:
        wheels: Read at each request.
        certificate: File with certificate and key; None for plain HTTP.
        credentials: `user:password` that each request must have.
    """

    def __init__(self, wheels: Path, *, certificate: Path | None = None, credentials: str = "") -> None:
        self.wheels = wheels
        self.expected = f"Basic {base64.b64encode(credentials.encode()).decode()}" if credentials else None
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.was_asked = threading.Event()
        self._server = _Server(self)
        scheme = "http"
        if certificate is not None:
            scheme = "https"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        at = f"{credentials}@" if credentials else ""
        self.url = f"{scheme}://{at}127.0.0.1:{self._server.server_address[1]}/simple"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.may_answer.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def hold(self) -> None:
        """Keep files back until `may_answer` is set; `was_asked` is set when somebody wants one."""
        self.was_asked.clear()
        self.may_answer.clear()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, index: PackageIndex) -> None:
        self.index = index
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that do not trust the certificate hang up; that is no news."""


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, _Server)
        index = self.server.index
        if index.expected is not None and self.headers.get("Authorization") != index.expected:
            self._answer(401, b"", ("WWW-Authenticate", 'Basic realm="index"'))
            return
        parts = self.path.strip("/").split("/")
        if parts[0] == "simple":
            stem = parts[1].replace("-", "_") if len(parts) > 1 else ""
            found = sorted(path.name for path in index.wheels.glob(f"{stem}-*.whl"))
            links = "".join(f'<a href="/files/{name}">{name}</a>\n' for name in found)
            self._answer(200 if found else 404, f"<!DOCTYPE html><html><body>{links}</body></html>".encode())
            return
        file = index.wheels / parts[-1]
        index.was_asked.set()
        index.may_answer.wait()
        self._answer(200 if file.is_file() else 404, file.read_bytes() if file.is_file() else b"")

    def do_HEAD(self) -> None:
        self.do_GET()

    def _answer(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        kind = "text/html" if self.path.startswith("/simple") else "application/octet-stream"
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(body))), *headers):
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Say nothing."""
