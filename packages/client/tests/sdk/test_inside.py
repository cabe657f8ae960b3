"""The SDK inside a function: the worker's socket instead of an address and a key."""

import asyncio
import json
import os
import socket
import threading

import pytest

from apothic._blocking import UNIX_PATH_MAX
from apothic._core import Core
from apothic._runtime.context import CurrentCall, enter_call
from apothic.client import ControlPlaneClient
from apothic.config import resolve
from apothic.errors import ConfigError, NotSupportedError
from apothic.wire.attempts import SOCKET_VARIABLE
from apothic.wire.values import Value


class Worker:
    """Answers each connection's first request as told, on a Unix socket; keeps the heads."""

    def __init__(self, folder):
        self.path = str(folder / "api.sock")
        self.heads = []
        self.answers = []
        descriptor = os.open(folder, os.O_PATH)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(f"/proc/self/fd/{descriptor}/api.sock")
        os.close(descriptor)
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return
            with peer:
                data = b""
                while b"\r\n\r\n" not in data:
                    data += peer.recv(65536)
                self.heads.append(data.decode().split("\r\n\r\n")[0])
                status, body = self.answers.pop(0)
                text = json.dumps(body).encode()
                peer.sendall(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (status, len(text)))
                peer.sendall(text)

    def close(self):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)


@pytest.fixture(params=["short", "longer than an address can be"])
def worker(tmp_path, request):
    folder = tmp_path if request.param == "short" else tmp_path / ("x" * UNIX_PATH_MAX)
    folder.mkdir(exist_ok=True)
    found = Worker(folder)
    yield found
    found.close()


def client_of(worker):
    return ControlPlaneClient.from_core(Core(resolve(environ={SOCKET_VARIABLE: worker.path}), random=lambda: 0.0))


def test_the_socket_is_used_when_code_names_no_address():
    inside = {SOCKET_VARIABLE: "/run/apothic/api.sock", "APOTHIC_API_KEY": "lk_set_by_code"}

    found = resolve(environ=inside)

    assert (found.socket, found.authorization) == ("/run/apothic/api.sock", None)
    assert found.url == "unix:/run/apothic/api.sock"


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [({"base_url": "http://other.test"}, {}), ({}, {"APOTHIC_BASE_URL": "http://other.test"})],
)
def test_an_address_that_code_gives_wins(arguments, variables):
    found = resolve(**arguments, environ={SOCKET_VARIABLE: "/run/apothic/api.sock", **variables})

    assert (found.url, found.socket) == ("http://other.test", None)


def test_a_key_without_an_address_is_refused_inside():
    with pytest.raises(ConfigError, match="base_url="):
        resolve(api_key="lk_x", environ={SOCKET_VARIABLE: "/run/apothic/api.sock"})


def test_both_drivers_dial_the_socket(worker):
    worker.answers = [(200, {"ok": 1}), (200, {"ok": 2})]
    client = client_of(worker)

    blocking = client.request("GET", "/v1/jobs/j")
    awaited = asyncio.run(client.aio.request("GET", "/v1/jobs/j"))

    assert [json.loads(answer.body) for answer in (blocking, awaited)] == [{"ok": 1}, {"ok": 2}]
    assert all("authorization" not in head.lower() for head in worker.heads)


def test_a_request_says_which_call_makes_it(worker):
    worker.answers = [(200, {}), (200, {})]
    client = client_of(worker)
    from contextvars import copy_context

    def in_a_call():
        enter_call(CurrentCall("7", "job", 1))
        client.request("GET", "/v1/jobs/j")

    copy_context().run(in_a_call)
    client.request("GET", "/v1/jobs/j")

    assert ["X-Apothic-Call: 7" in head for head in worker.heads] == [True, False]


def test_an_answer_lost_behind_the_worker_is_asked_for_again_when_that_changes_nothing(worker):
    lost = (502, {"detail": "…", "code": "answer_lost", "request_id": "r", "retryable": False})
    worker.answers = [lost, (200, {"ok": 1})]
    client = client_of(worker)

    assert client.request("GET", "/v1/jobs/j").status == 200


def test_a_call_whose_answer_was_lost_behind_the_worker_is_asked_for_again_under_its_key(worker):
    lost = (502, {"detail": "…", "code": "answer_lost", "request_id": "r", "retryable": False})
    worker.answers = [lost, (202, {"job_id": "jobs:j", "status": "queued"})]

    job = client_of(worker).spawn("functions:x", Value("json", b"[[],{}]"))
    keys = {line for head in worker.heads for line in head.split("\r\n") if line.startswith("Idempotency-Key: ")}

    assert job == "jobs:j"
    assert (len(worker.heads), len(keys)) == (2, 1)


def test_an_app_is_not_deployed_from_inside(worker, monkeypatch):
    from apothic import App

    monkeypatch.setenv(SOCKET_VARIABLE, worker.path)
    app = App("inside", client=client_of(worker))

    with pytest.raises(NotSupportedError, match="from outside"):
        app.deploy_with_details()
