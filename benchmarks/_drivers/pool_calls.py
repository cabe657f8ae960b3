"""Driver of a pool of two processes on the same machine, from the standard library: nothing is kept anywhere.

Usage: pool_calls.py
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from items import mapped, work
from rounds import claim_output, serve


def main() -> None:
    """Measure until the input ends."""
    answer = claim_output()
    with ProcessPoolExecutor(2) as pool:

        def run(numbers: Sequence[int]) -> list[Any]:
            futures = [pool.submit(work, number) for number in numbers]
            return [future.exception() or future.result() for future in futures]

        serve(answer, {}, extra={"map": mapped(run)})


if __name__ == "__main__":
    main()
