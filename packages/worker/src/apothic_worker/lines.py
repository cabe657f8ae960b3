"""From bytes that user code wrote to log lines: splitting, bounds and the budget of one attempt. No I/O."""

from __future__ import annotations

from collections.abc import Callable

from apothic.wire.limits import LOG_BYTES_PER_SECOND_MAX, LOG_LINE_MAX
from apothic.wire.link import LogLine

Clock = Callable[[], int]
"""Returns Unix time in milliseconds."""


class LineSplitter:
    """Cuts one stream into lines; keeps what has no line end yet, at most `LOG_LINE_MAX` bytes."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[str, bool]]:
        """Add bytes and return the lines they complete, as (text, is partial)."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        found = [piece for line in whole for piece in pieces(line.removesuffix(b"\r"))]
        while len(self._rest) > LOG_LINE_MAX:
            cut = _boundary(self._rest, LOG_LINE_MAX)
            found += [(text, True) for text, _ in pieces(self._rest[:cut])]
            self._rest = self._rest[cut:]
        return found

    def flush(self) -> list[tuple[str, bool]]:
        """Return the last line when it had no line end."""
        rest, self._rest = self._rest, b""
        return pieces(rest) if rest else []


class AttemptLog:
    """Output of one attempt on its way to the server.

    Args:
        clock: Stamps the lines and refills the budget.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._splitters: dict[str, LineSplitter] = {}
        self._lines: list[LogLine] = []
        self._budget = float(LOG_BYTES_PER_SECOND_MAX)
        self._filled_ms = 0  # long ago: it is full
        self._dropped = 0

    def write(self, stream: str, data: bytes) -> None:
        """Add bytes written to `stdout` or `stderr`."""
        splitter = self._splitters.setdefault(stream, LineSplitter())
        self._add(stream, splitter.feed(data))

    def note(self, text: str) -> None:
        """Add a remark of ours; costs no budget."""
        self._lines.append(LogLine("system", self._clock(), text))

    def take(self) -> list[LogLine]:
        """Return the lines since the last time."""
        lines, self._lines = self._lines, []
        return lines

    def close(self) -> list[LogLine]:
        """End the unfinished lines, count what was dropped and return what is left."""
        for stream, splitter in self._splitters.items():
            self._add(stream, splitter.flush())
        if self._dropped:
            self._tell_dropped()
        return self.take()

    def _add(self, stream: str, found: list[tuple[str, bool]]) -> None:
        if not found:
            return
        now = self._clock()
        self._budget = min(
            LOG_BYTES_PER_SECOND_MAX, self._budget + (now - self._filled_ms) * LOG_BYTES_PER_SECOND_MAX / 1000
        )
        self._filled_ms = now
        for text, is_partial in found:
            cost = len(text) + 1
            if cost > self._budget:
                self._dropped += cost
                continue
            if self._dropped:
                self._tell_dropped()
            self._budget -= cost
            self._lines.append(LogLine(stream, now, text, is_partial))

    def _tell_dropped(self) -> None:
        self.note(f"{self._dropped} bytes of output dropped: more than {LOG_BYTES_PER_SECOND_MAX} bytes a second")
        self._dropped = 0


def pieces(line: bytes) -> list[tuple[str, bool]]:
    """Return a line as text in pieces of at most `LOG_LINE_MAX` bytes of UTF-8; all but the last are partial.

    Bytes that are not UTF-8 are replaced, NUL is removed.
    """
    text = line.decode("utf-8", "replace").replace("\0", "")
    if len(text) * 3 <= LOG_LINE_MAX:
        return [(text, False)]
    data = text.encode()
    found: list[tuple[str, bool]] = []
    while len(data) > LOG_LINE_MAX:
        cut = _boundary(data, LOG_LINE_MAX)
        found.append((data[:cut].decode(), True))
        data = data[cut:]
    return [*found, (data.decode(), False)]


def _boundary(data: bytes, size: int) -> int:
    """Return the largest cut up to `size` that does not part a character; `size` when there is no UTF-8 near it."""
    for cut in range(size, size - 4, -1):
        if data[cut] & 0xC0 != 0x80:
            return cut
    return size
