"""The function of the restart benchmark: it tells its number to whoever listens, and the first one then holds on."""

from __future__ import annotations

import socket

from apothic import App

app = App("bench-restart")


@app.function(max_pending_tasks=1_000_000)
def visit(port: int, number: int) -> None:
    """Say which job this is; wait to be let go."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(number.to_bytes(4))
        connection.recv(1)


if __name__ == "__main__":
    app.deploy()
