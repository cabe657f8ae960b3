"""Embeddings: texts become vectors, many at a time, whoever asks; one call by each of many threads, and one map."""

import math
import zlib
from concurrent.futures import ThreadPoolExecutor

from apothic import App, BatchingSpec, RemoteExecutionError, RemoteFunction

app = App("embeddings")

SIZE = 64
TEXTS = [
    "the queue is empty",
    "the queue was emptied",
    "an empty queue",
    "a cat sleeps on the warm stove",
    "the cat slept near the stove",
    "rain in the mountains until Tuesday",
]


@app.function(memory_mb=256, batching=BatchingSpec(max_batch_size=32, wait_ms=50), max_pending_tasks=1_000)
def embed(texts: list[str]) -> list[list[float] | ValueError]:
    """Return a vector of length 1 for each text: how often which three letters follow each other, hashed.

    A model that takes a whole batch stands here in practice; it is loaded once, when this file is imported.
    """
    print(f"a batch of {len(texts)}")
    return [vector(text) if len(text) >= 3 else ValueError(f"{text!r} is too short") for text in texts]


def vector(text: str) -> list[float]:
    """Return the vector of one text."""
    counts = [0.0] * SIZE
    for place in range(len(text) - 2):
        counts[zlib.crc32(text[place : place + 3].lower().encode()) % SIZE] += 1.0
    length = math.hypot(*counts)
    return [round(count / length, 6) for count in counts]


def likeness(first: list[float], second: list[float]) -> float:
    """Return the cosine of the angle between two vectors of length 1."""
    return sum(one * other for one, other in zip(first, second, strict=True))


if __name__ == "__main__":
    app.deploy()
    found = RemoteFunction.from_name("embeddings", "embed")  # as any other program would
    with ThreadPoolExecutor(len(TEXTS)) as people:
        vectors = list(people.map(found.remote, TEXTS))
    question = found.remote("is the queue empty?")
    best = max(range(len(TEXTS)), key=lambda number: likeness(question, vectors[number]))
    print(f"most like the question: {TEXTS[best]!r}")

    numbered = [f"text number {number}" for number in range(1_000)] + ["no"]
    ends = embed.map(numbered, errors="collect")
    failed = [end for end in ends if isinstance(end, RemoteExecutionError)]
    print(f"{len(ends) - len(failed)} vectors of {SIZE} numbers; item {failed[0].item} failed: {failed[0].message}")
