"""Numbers of many amounts."""

import numpy as np


def figures(amounts: list[int]) -> dict[str, float]:
    """Return how many amounts there are, their sum, and the median."""
    values = np.array(amounts)
    return {"count": values.size, "sum": int(values.sum()), "median": float(np.median(values)) if amounts else 0.0}
