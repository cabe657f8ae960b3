"""Children of a driver: started, waited for, and ended. Standard library only."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

START_S = 180.0


@contextlib.contextmanager
def child(command: Sequence[str], *, stop: signal.Signals = signal.SIGTERM, **options: Any) -> Generator[Any]:
    """Run a process until the block ends; it gets 15 s to stop."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, **options)
    try:
        yield process
    finally:
        process.send_signal(stop)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(is_ready: Callable[[], bool], what: str, process: Any = None) -> None:
    """Ask every 20 ms until it is true; ends the driver when that takes `START_S` or the process is gone."""
    until = time.monotonic() + START_S
    while not is_ready():
        if process is not None and process.poll() is not None:
            sys.exit(f"{what} ended with status {process.returncode}")
        if time.monotonic() > until:
            sys.exit(f"{what} did not start within {START_S:.0f} s")
        time.sleep(0.02)


def free_port() -> int:
    """Return a TCP port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Return whether somebody accepts connections on a port of the loopback."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
