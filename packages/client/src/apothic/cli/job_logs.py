"""The output of one job."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from apothic.cli import ids
from apothic.cli.console import say
from apothic.cli.logs import Wanted, print_document, show_lines, shower

if TYPE_CHECKING:
    from apothic._answers import LogLine, LogPage
    from apothic.cli.settings import Settings
    from apothic.client import ControlPlaneClient


def show_job(
    settings: Settings, job_id: str, wanted: Wanted, *, tail: int | None, follow: bool, timestamps: bool
) -> None:
    """Show what a job has written, and with `follow` what it writes until it ends."""
    output = Output(settings.client(), ids.checked(job_id, "jobs"), wanted)
    lines = output.written(tail)
    found: list[dict[str, Any]] = []
    show = shower(settings, found, timestamps=timestamps, is_live=follow)
    try:
        show_lines(output.following(lines) if follow else lines, show, output.was_shown)
    except KeyboardInterrupt:
        if not follow:
            raise
        from apothic.cli.watching import interrupted

        print_document(settings, output.document(found))
        raise interrupted(job_id, output.shown_index, ("job.log",)) from None
    print_document(settings, output.document(found))


class Output:
    """A job's lines, as far as they were read.

    Attributes:
        last_index: Index up to which the job's output was read.
        shown_index: Index up to which everything that is wanted was shown.
        is_final: No line will ever follow.
    """

    def __init__(self, client: ControlPlaneClient, job_id: str, wanted: Wanted, *, last_index: int = -1) -> None:
        self.job_id = job_id
        self.last_index = last_index
        self.shown_index = -1
        self.is_final = False
        self._client = client
        self._wanted = wanted

    def written(self, tail: int | None = None) -> Iterable[LogLine]:
        """Return the lines after `last_index` so far that are wanted, the last `tail` of them."""
        found = self._read()
        return found if tail is None else deque(found, maxlen=tail)

    def following(self, lines: Iterable[LogLine]) -> Iterator[LogLine]:
        """Yield `lines`, and then those that are written until the job ends."""
        from apothic._answers import LogLine
        from apothic.job import Job
        from apothic.streams import JobLogEvent, JobResetEvent

        yield from lines
        self.shown_index = self.last_index
        if self.is_final:
            return
        for event in Job(self.job_id, self._client).watch(last_index=self.last_index, event_types=["job.log"]):
            index = self.last_index if event.index is None else event.index
            if isinstance(event, JobLogEvent):
                line = LogLine(index, event.time, event.stream, event.line)
                if self._wanted.lets_pass(line):
                    yield line
            elif isinstance(event, JobResetEvent):
                say(f"Output after index {event.requested_index} is not kept; goes on after {event.latest_index}.")
            self.last_index = self.shown_index = index
        self.is_final = True

    def was_shown(self, line: LogLine) -> None:
        """Note that a line was shown."""
        self.shown_index = line.index

    def document(self, lines: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the lines for programs."""
        return {"job_id": self.job_id, "lines": lines, "last_index": self.last_index, "is_final": self.is_final}

    def _read(self) -> Iterator[LogLine]:
        for page in _pages(self._client, self.job_id, self.last_index):
            yield from filter(self._wanted.lets_pass, page.lines)
            self.last_index, self.is_final = page.last_index, page.is_final


def _pages(client: ControlPlaneClient, job_id: str, after: int) -> Iterator[LogPage]:
    """Yield the pages of a job's output up to now; at least one."""
    while True:
        page = client.job_logs(job_id, after)
        yield page
        if page.is_final or not page.lines or page.last_index <= after:
            return
        after = page.last_index
