"""The function that the call benchmark calls: it returns its argument."""

from __future__ import annotations

from apothic import App

app = App("bench-call")


@app.function()
def noop(x: int) -> int:
    """Return `x`."""
    return x


if __name__ == "__main__":
    app.deploy()
