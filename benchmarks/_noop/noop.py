"""The functions that benchmarks call: one returns its argument, the other runs until it is cancelled."""

from __future__ import annotations

import socket

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


if __name__ == "__main__":
    app.deploy()
