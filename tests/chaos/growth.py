"""I15: memory and descriptors of the server and the workers do not grow with the work that was done.

Every process is looked at once a second. A process that was killed early tells nothing; of each name the one that lived
longest is judged, over the last half of its life, when caches are full. A run that is too short to tell says so.
"""

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .checker import Violation

LIFE_S_MIN = 60.0
DESCRIPTORS_SLACK = 40.0
"""As many as there are clients: each may have a connection open when a life ends and none in its middle."""

MEMORY_MB_SLACK = 24.0
"""Over half a life. A leak of 8 KiB a call shows after 3,000 calls; one below that needs a longer run."""


@dataclass(frozen=True)
class Sample:
    """One look at a process."""

    at: float
    memory_mb: float
    descriptors: float


class Growth:
    """Remembers how large processes were."""

    def __init__(self):
        self._lives = {}

    def look(self, processes: dict[str, int]):
        """Sample these, by name."""
        for name, pid in processes.items():
            with suppress(OSError, IndexError):
                self._lives.setdefault((name, pid), []).append(_sample(pid))

    def judge(self) -> tuple[list[Violation], list[str]]:
        """Return the violations, and a line about each name."""
        longest = {}
        for (name, _), samples in self._lives.items():
            longest[name] = max(longest.get(name, []), samples, key=_length)
        found = [violation for name, samples in longest.items() for violation in _violations(name, samples)]
        return found, [f"growth     {name}: {_words(samples)}" for name, samples in sorted(longest.items())]


def _violations(name, samples):
    if _length(samples) < LIFE_S_MIN:
        return []
    memory = [(one.at, one.memory_mb) for one in samples]
    descriptors = [(one.at, one.descriptors) for one in samples]
    return [
        *is_flat(f"{name} memory in MiB", memory, slack=MEMORY_MB_SLACK),
        *is_flat(f"{name} descriptors", descriptors, slack=DESCRIPTORS_SLACK),
    ]


def _words(samples):
    life_s = _length(samples)
    if life_s < LIFE_S_MIN:
        return f"no process lived for {LIFE_S_MIN:.0f} s, the longest {life_s:.0f} s: too short to tell"
    middle, last = samples[len(samples) // 2], samples[-1]
    return (
        f"in the last half of {life_s:.0f} s {middle.memory_mb:.0f} to {last.memory_mb:.0f} MiB, "
        f"{middle.descriptors:.0f} to {last.descriptors:.0f} descriptors"
    )


def _length(samples):
    return samples[-1].at - samples[0].at if samples else 0.0


def _sample(pid):
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return Sample(time.monotonic(), pages * 4096 / 2**20, len(list(Path(f"/proc/{pid}/fd").iterdir())))


def is_flat(name: str, samples: list[tuple[float, float]], *, slack: float) -> list[Violation]:
    """I15: over the last half of the samples (time, size) the least-squares line grows by at most `slack` in total."""
    half = samples[len(samples) // 2 :]
    if len(half) < 3:
        return []
    mean_t = sum(at for at, _ in half) / len(half)
    mean_v = sum(size for _, size in half) / len(half)
    spread = sum((at - mean_t) ** 2 for at, _ in half)
    slope = sum((at - mean_t) * (size - mean_v) for at, size in half) / spread if spread else 0.0
    growth = slope * (half[-1][0] - half[0][0])
    return [Violation("I15", name, f"grew by {growth:.1f} from {half[0][1]:.1f}")] if growth > slack else []
