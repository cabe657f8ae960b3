"""Driver of Apothic for queues: one function with one runner, and so many of its calls waiting all the time.

Usage: queue_cloud.py FOLDER DEPTH
"""

from __future__ import annotations

import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from clouds import cloud, deploy
from filling import fill
from rounds import claim_output, serve

SPAWNED_MAX = 20_000
"""More are written into the store, and the cloud is started again."""

CALLERS = 16
WAIT_S = 600.0


class Held:
    """The one running call; it holds a connection to this driver until it is let go."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=16)
        self._listener.settimeout(WAIT_S)
        self.port: int = self._listener.getsockname()[1]
        self._connection: socket.socket | None = None

    def accept(self) -> None:
        """Wait until the next call runs."""
        self._connection, _ = self._listener.accept()
        self._connection.recv(4, socket.MSG_WAITALL)

    def let_go(self) -> None:
        """Let it end."""
        assert self._connection is not None
        self._connection.close()


def main() -> None:
    """Measure until the input ends, then stop the cloud."""
    answer = claim_output()
    folder, depth, held = Path(sys.argv[1]), int(sys.argv[2]), Held()
    if depth > SPAWNED_MAX:
        with cloud(folder, "--no-worker"):
            deploy("visit")
            _spawn(1, held.port)
            fill(folder / "data", depth)
    with cloud(folder) as place:
        if depth <= SPAWNED_MAX:
            deploy("visit")
            _spawn(depth + 1, held.port)
        held.accept()
        serve(answer, {}, {"pid": place["pid"]}, {"steps": lambda request: _steps(held, request["steps"])})


def _spawn(count: int, port: int) -> None:
    from apothic import RemoteFunction

    visit = RemoteFunction.from_name("bench-restart", "visit")
    with ThreadPoolExecutor(CALLERS) as pool:
        list(pool.map(lambda number: visit.spawn(port, number), range(count)))


def _steps(held: Held, count: int) -> dict[str, Any]:
    """Submit a call and let the running one end, again and again; tells how long a submit and the next start take."""
    from apothic import RemoteFunction

    visit = RemoteFunction.from_name("bench-restart", "visit")
    submits: list[int] = []
    claims: list[int] = []
    clock = time.perf_counter_ns
    for number in range(count):
        began = clock()
        visit.spawn(held.port, number)
        submits.append(clock() - began)
        began = clock()
        held.let_go()
        held.accept()
        claims.append(clock() - began)
    return {"submit_ns": submits, "claim_ns": claims}


if __name__ == "__main__":
    main()
