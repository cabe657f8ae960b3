"""The generator of the generator benchmark: short lines."""

from __future__ import annotations

from collections.abc import Generator

from apothic import App

app = App("bench-generator")


@app.function(timeout_s=86_400)
def lines(count: int) -> Generator[str, None, None]:
    """Yield lines that tell their place."""
    for number in range(count):
        yield f"line {number:08d}"


if __name__ == "__main__":
    app.deploy()
