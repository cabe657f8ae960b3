"""Driver of the HTTP yardsticks: POST of a small body over one raw keep-alive connection, and its echo.

Usage: echo.py httptools | echo.py starlette
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from children import child, free_port, listens, wait_until
from rounds import claim_output, serve, timed

BODY = b'{"args":[12345],"kwargs":{}}'
HEAD = f"POST /echo HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"


def main() -> None:
    """Measure until the input ends, then stop the server."""
    answer = claim_output()
    port = free_port()
    server = Path(__file__).with_name(f"echo_{sys.argv[1]}.py")
    with child([sys.executable, str(server), str(port)]) as process:
        wait_until(lambda: listens(port), f"the {sys.argv[1]} echo", process)
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            serve(answer, {"call": timed(lambda _: _exchange(connection))})


def _exchange(connection: socket.socket) -> None:
    connection.sendall(HEAD.encode() + BODY)
    received = b""
    while not received.endswith(BODY):
        data = connection.recv(65536)
        if not data:
            raise ConnectionError("the echo server closed the connection")
        received += data


if __name__ == "__main__":
    main()
