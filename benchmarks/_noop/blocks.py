"""The app of bulk.py: gives back what it gets."""

from __future__ import annotations

import pickle
from typing import Any

from apothic import App

app = App("bench-bulk")


class Block:
    """Bytes that travel as an array does: as a buffer of their own."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce_ex__(self, _: Any) -> Any:
        return Block, (pickle.PickleBuffer(self.data),)


@app.function(memory_mb=8192)
def echo(block: Block) -> Block:
    """Return the block without reading it."""
    return block


if __name__ == "__main__":
    app.deploy()
