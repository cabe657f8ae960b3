"""Bytes that are nearly right: seeds, changed at random, the same ones for the same number."""

from __future__ import annotations

import random
from collections.abc import Iterator

CHANGES_MAX = 6
LENGTH_MAX = 4_000
_ODD = (0, 1, 9, 10, 13, 32, 34, 39, 47, 58, 92, 127, 128, 255)


def mutated(seeds: tuple[bytes, ...], words: tuple[bytes, ...], count: int, number: int = 1) -> Iterator[bytes]:
    """Yield the seeds themselves, then `count` changed ones."""
    yield from seeds
    chance = random.Random(number)
    for _ in range(count):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, CHANGES_MAX)):
            _change(data, seeds, words, chance)
        yield bytes(data[:LENGTH_MAX])


def _change(data: bytearray, seeds: tuple[bytes, ...], words: tuple[bytes, ...], chance: random.Random) -> None:
    at = chance.randint(0, len(data))
    end = min(len(data), at + chance.choice((1, 1, 2, 4, 16, 64)))
    match chance.randint(0, 7):
        case 0:
            data[at:end] = bytes(chance.choice(_ODD) for _ in range(end - at))
        case 1:
            data[at:end] = bytes(chance.randint(0, 255) for _ in range(end - at))
        case 2:
            del data[at:end]
        case 3:
            data[at:at] = data[at:end]
        case 4:
            data[at:at] = chance.choice(words) if words else b"\0"
        case 5:
            data[at:end] = chance.choice(words) if words else b"\xff"
        case 6:
            other = chance.choice(seeds)
            data[at:] = other[chance.randint(0, len(other)) :]
        case _:
            data[at:at] = data[at:end] * chance.choice((2, 10, 100))
