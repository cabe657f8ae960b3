"""Kills control planes at a point of a request."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from apothic_server.store.address import StoreAddress

HOLDER = "doomed"


@dataclass(frozen=True)
class Ask:
    """One request."""

    method: str
    target: str
    body: bytes = b""
    content_type: str = "application/json"
    key: str = ""

    def told(self) -> dict[str, Any]:
        headers = {"content-type": self.content_type} if self.body else {}
        headers |= {"idempotency-key": self.key} if self.key else {}
        return {
            "method": self.method, "target": self.target, "headers": headers,
            "body": base64.b64encode(self.body).decode(),
        }  # fmt: skip


class Doomed:
    """A process whose forks are killed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def kill(
        self, point: str, requests: list[Ask], address: StoreAddress, data: Path, token: str
    ) -> list[tuple[int, Any]]:
        """Have a server die at `point` of the last request; return what the ones before were answered."""
        order = {
            "address": asdict(address), "data": str(data), "holder": HOLDER, "token": token, "point": point,
            "requests": [request.told() for request in requests],
        }  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        said: list[dict[str, Any]] = []
        while not said or "exit" not in said[-1]:
            line = self._process.stdout.readline()
            if line.startswith("{"):  # else it is the server's log
                said.append(json.loads(line))
        assert said[-1]["exit"] == -signal.SIGKILL, f"{point} was not met"
        return [(status, json.loads(text or "null")) for status, text in said[0]["answers"]]


@contextmanager
def doomed_servers() -> Generator[Doomed]:
    """Start the process that forks them."""
    program = Path(__file__).with_name("doomed_server.py")
    process = subprocess.Popen([sys.executable, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Doomed(process)
    finally:
        process.communicate(timeout=30)
