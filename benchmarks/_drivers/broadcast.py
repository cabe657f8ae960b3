"""Driver of the broadcasting yardsticks: what is posted to a server goes to all who read its stream.

Usage: broadcast.py httptools | broadcast.py starlette
"""

from __future__ import annotations

import contextlib
import functools
import socket
import sys
from pathlib import Path

from children import child, free_port, listens, wait_until
from rounds import claim_output, serve
from watching import Watchers, watched

WATCH = b"GET /events HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n\r\n"


def main() -> None:
    """Measure until the input ends, then stop the server."""
    answer = claim_output()
    port = free_port()
    server = Path(__file__).with_name(f"broadcast_{sys.argv[1]}.py")
    with child([sys.executable, str(server), str(port)]) as process:
        wait_until(lambda: listens(port), f"the {sys.argv[1]} broadcast", process)
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            watchers = Watchers(("127.0.0.1", port), WATCH)
            publish = functools.partial(_post, connection)
            serve(answer, {}, {"pid": process.pid}, watched(watchers, publish))


def _post(connection: socket.socket, text: str) -> None:
    """Send an event; the answer to the one before is read by then, and thrown away."""
    connection.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        connection.recv(65536)
    connection.setblocking(True)
    head = f"POST /publish HTTP/1.1\r\nHost: bench\r\nContent-Type: text/plain\r\nContent-Length: {len(text)}\r\n\r\n"
    connection.sendall((head + text).encode())


if __name__ == "__main__":
    main()
