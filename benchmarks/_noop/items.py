"""The app of the map benchmark; two runners, as its peers have two processes."""

from __future__ import annotations

from apothic import App

app = App("bench-map")


@app.function(max_containers=2)
def item(x: int) -> int:
    """Return `x`; one in a hundred writes a line, one in a thousand fails."""
    if x % 100 == 7:
        print("item", x)
    if x % 1_000 == 500:
        raise ValueError(f"item {x} fails")
    return x


if __name__ == "__main__":
    app.deploy()
