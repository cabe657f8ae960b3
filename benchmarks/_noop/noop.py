"""What benchmarks call: one returns its argument, one runs until it is cancelled, one yields what it is sent."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from apothic import App

app = App("bench-call")


@app.function()
def noop(x: int) -> int:
    """Return `x`."""
    return x


@app.function()
def hold(port: int) -> None:
    """Connect to the driver, say so, and wait for what never comes."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"x")
        connection.recv(1)


@app.function(timeout_s=3600)
def ticks(port: int) -> Iterator[str]:
    """Connect to the driver and yield each line that comes."""
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("r") as lines:
        for line in lines:
            yield line.strip()


if __name__ == "__main__":
    app.deploy()
