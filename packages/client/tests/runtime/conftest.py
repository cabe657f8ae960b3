"""A worker's end of the runtime: real zygote processes, driven through their sockets."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import apothic
from apothic.wire.attempts import SOCKET_VARIABLE
from apothic.wire.frames import FrameReader, decode_frame, encode_frame
from apothic.wire.limits import MIB
from apothic.wire.version import RUNNER_PROTOCOL

START = "import sys; sys.path.append(sys.argv[1]); from apothic._runtime.zygote import main; main(int(sys.argv[2]))"
DEADLINE_S = 30.0
"""Longest wait for anything; a test that reaches it has failed."""

_CREDENTIALS = struct.Struct("3i")


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a worker puts last on `sys.path`: `apothic` without its command line, and `cloudpickle`."""
    folder = tmp_path_factory.mktemp("tree")
    ignored = shutil.ignore_patterns("__pycache__", "cli")
    shutil.copytree(Path(apothic.__file__).parent, folder / "apothic", ignore=ignored)
    found = importlib.util.find_spec("cloudpickle")
    assert found is not None
    assert found.origin is not None
    shutil.copytree(Path(found.origin).parent, folder / "cloudpickle", ignore=ignored)
    return folder


@pytest.fixture(scope="session")
def pythons() -> dict[str, str]:
    """Every CPython from 3.10 on that this machine has: minor version to path."""
    found = {sys.version_info[:2]: str(getattr(sys, "_base_executable", sys.executable))}
    candidates = [str(path) for path in Path("~/.pyenv/versions").expanduser().glob("3.*/bin/python3")]
    candidates += [path for number in range(10, 15) if (path := shutil.which(f"python3.{number}"))]
    for path in candidates:
        answer = subprocess.run(
            [path, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, check=False
        )
        if answer.returncode == 0:
            major, minor = answer.stdout.split()
            found.setdefault((int(major), int(minor)), path)
    return {f"{major}.{minor}": found[major, minor] for major, minor in sorted(found) if (major, minor) >= (3, 10)}


@dataclass
class Runner:
    """One runner: its socket and the reading ends of its pipes."""

    name: str
    sock: socket.socket
    out: int
    err: int
    frames: list[tuple[dict[str, Any], bytes]] = field(default_factory=list)
    pid: int = 0
    reader: FrameReader = field(default_factory=lambda: FrameReader(size_max=4 * MIB))

    def send(self, body: bytes = b"", **head: Any) -> None:
        self.sock.sendall(encode_frame(head, body))

    def receive(self) -> tuple[dict[str, Any], bytes]:
        while not self.frames:
            data = self.sock.recv(65536)
            assert data, "the runner closed its socket"
            self.frames += self.reader.feed(data)
        return self.frames.pop(0)

    def hello(self) -> int:
        """Receive `hello` and return the sender's process id as the kernel states it."""
        data, ancillary, _, _ = self.sock.recvmsg(65536, socket.CMSG_SPACE(_CREDENTIALS.size))
        assert decode_frame(data)[0] == {"kind": "hello"}
        (_, _, credentials) = ancillary[0]
        return _CREDENTIALS.unpack(credentials)[0]

    def go(self) -> dict[str, Any]:
        self.pid = self.hello()
        self.send(kind="go")
        return self.receive()[0]

    def submit(self, call: str, *args: Any, **kwargs: Any) -> None:
        body = json.dumps([args, kwargs]).encode()
        self.submit_value(call, "json", body)

    def submit_value(self, call: str, encoding: str, body: bytes, python: str | None = None) -> None:
        self.send(body, kind="call", call=call, job=f"job-{call}", attempt=1, encoding=encoding, python=python)

    def call(self, *args: Any, **kwargs: Any) -> tuple[dict[str, Any], bytes]:
        self.submit("c", *args, **kwargs)
        return self.receive()

    def result(self, *args: Any, **kwargs: Any) -> Any:
        head, body = self.call(*args, **kwargs)
        assert head["kind"] == "result", head
        assert head["encoding"] == "json"
        return json.loads(body)

    def error(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        head, _ = self.call(*args, **kwargs)
        assert head["kind"] == "error", head
        return head["error"]

    def printed(self, descriptor: int) -> str:
        """What is in a pipe now, without waiting."""
        return _available(descriptor)

    def is_closed(self) -> bool:
        return self.sock.recv(1) == b""

    def close(self) -> None:
        self.sock.close()
        os.close(self.out)
        os.close(self.err)


class Worker:
    """Starts a zygote and talks to it."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket, root: Path) -> None:
        self.process = process
        self.control = control
        self.root = root
        self.runners: list[Runner] = []

    def send(self, descriptors: list[int] | None = None, **head: Any) -> None:
        socket.send_fds(self.control, [encode_frame(head)], descriptors or [])

    def receive(self) -> dict[str, Any]:
        return decode_frame(self.control.recv(256 * 1024))[0]

    def load(self, *, preload: bool = True, module: str = "app", protocol: int = RUNNER_PROTOCOL) -> dict[str, Any]:
        self.send(
            kind="load", protocol=protocol, path=str(self.root), module=module, app_variable="app", preload=preload
        )
        return self.receive()

    def fork(self, qualname: str, *, tasks: int = 1, is_async: bool = False) -> Runner:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        ours.settimeout(DEADLINE_S)
        out, out_end = os.pipe()
        err, err_end = os.pipe()
        runner = Runner(f"r{len(self.runners)}", ours, out, err)
        self.runners.append(runner)
        self.send(
            [theirs.fileno(), out_end, err_end],
            kind="fork",
            runner=runner.name,
            function=qualname,
            qualname=qualname,
            tasks=tasks,
            is_async=is_async,
            memory_mb=512,
        )
        theirs.close()
        os.close(out_end)
        os.close(err_end)
        return runner

    def start(self, qualname: str, *, tasks: int = 1, is_async: bool = False) -> Runner:
        """Fork a runner and bring it to `ready`."""
        runner = self.fork(qualname, tasks=tasks, is_async=is_async)
        forked = self.receive()
        assert forked["kind"] == "forked", forked
        assert forked["runner"] == runner.name
        assert runner.go() == {"kind": "ready"}
        return runner

    def kill(self, runner: Runner, number: int) -> None:
        self.send(kind="kill", runner=runner.name, signal=int(number))

    def exited(self, runner: Runner) -> tuple[int | None, int | None]:
        message = self.receive()
        assert message["kind"] == "exited", message
        assert message["runner"] == runner.name
        return message["code"], message["signal"]

    def close(self) -> None:
        self.control.close()
        self.process.wait(DEADLINE_S)
        for runner in self.runners:
            runner.close()


Start = Callable[..., Worker]


@pytest.fixture
def start_zygote(tree: Path, tmp_path: Path) -> Iterator[Start]:
    """Write an app and start a zygote for it, without loading; ends it and checks that it left by itself.

    With `has_way` the zygote is told where the cloud's socket would be.
    """
    workers: list[Worker] = []

    def start(source: str, *, python: str | None = None, has_way: bool = True) -> Worker:
        root = tmp_path / f"archive{len(workers)}"
        root.mkdir()
        (root / "app.py").write_text(dedent(source))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(DEADLINE_S)
        executable = python or getattr(sys, "_base_executable", sys.executable)
        with (tmp_path / "zygote.out").open("ab") as output:
            process = subprocess.Popen(
                [executable, "-I", "-S", "-B", "-c", START, str(tree), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=root,
                env={
                    "PATH": "/usr/bin:/bin",
                    "LANG": "C.UTF-8",
                    "HOME": str(tmp_path),
                    **({SOCKET_VARIABLE: f"{tmp_path}/api.sock"} if has_way else {}),
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        theirs.close()
        workers.append(Worker(process, ours, root))
        return workers[-1]

    try:
        yield start
    finally:
        for worker in workers:
            with contextlib.closing(worker):
                pass
            assert worker.process.returncode == 0


@pytest.fixture
def load(start_zygote: Start) -> Start:
    """Write an app, start a zygote for it and load the app."""

    def loaded(source: str, *, python: str | None = None, preload: bool = True, has_way: bool = True) -> Worker:
        worker = start_zygote(source, python=python, has_way=has_way)
        ready = worker.load(preload=preload)
        assert ready["kind"] == "ready", ready
        assert ready["preloaded"] is preload, ready
        return worker

    return loaded


@pytest.fixture
def is_gone() -> Callable[[int], bool]:
    """Whether no process has this id, not even a zombie."""

    def gone(pid: int) -> bool:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 0)
            return False
        return True

    return gone


def _available(descriptor: int) -> str:
    data = b""
    while select.select([descriptor], [], [], 0)[0]:
        chunk = os.read(descriptor, 65536)
        if not chunk:
            break
        data += chunk
    return data.decode()


TERM, KILL = signal.SIGTERM, signal.SIGKILL
