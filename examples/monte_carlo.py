"""A Monte-Carlo estimate: one map over many seeds, the results added up as they come."""

from random import Random

from apothic import App

app = App("monte-carlo")

ROUNDS, POINTS = 1_000, 2_000


@app.function(memory_mb=256, max_containers=2)
def hits(seed: int) -> int:
    """Return how many random points of the unit square lie in the quarter of the circle."""
    random = Random(seed)
    return sum(random.random() ** 2 + random.random() ** 2 <= 1.0 for _ in range(POINTS))


if __name__ == "__main__":
    app.deploy()
    inside = sum(found for _, found in hits.map_unordered(range(ROUNDS)))
    pi = 4 * inside / (ROUNDS * POINTS)
    print(f"{ROUNDS * POINTS:,} points: pi is about {pi:.3f}")
