"""`apothic logs`, and reading a job's output for other commands."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from apothic.cli import ids
from apothic.cli.console import print_json, print_json_line, print_live, print_text, say
from apothic.cli.interrupts import guarded
from apothic.cli.settings import Settings, common_options
from apothic.cli.since import moment

if TYPE_CHECKING:
    from apothic._answers import LogLine, LogPage
    from apothic.client import ControlPlaneClient


@click.command()
@click.argument("job_id", metavar="ID", callback=ids.job_id)
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines until the job ends.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Begin with the last N lines.")
@click.option(
    "--since", metavar="TIME", callback=moment, help="Only lines written since 30s, 10m, 1h, 2d ago, or since a time."
)
@click.option("--timestamps", is_flag=True, help="Print when each line was written, in UTC.")
@click.option("--search", metavar="TEXT", help="Only lines that contain TEXT, upper and lower case told apart.")
@common_options
@click.pass_obj
def logs(
    settings: Settings,
    job_id: str,
    follow: bool,
    tail: int | None,
    since: str | None,
    timestamps: bool,
    search: str | None,
) -> None:
    """Print what a job has written so far, oldest line first.

    With --follow, Ctrl-C ends only the following; the job goes on.
    """
    output = Output(settings.client(), job_id, search or "", since or "")
    lines = output.written(tail)
    found: list[dict[str, Any]] = []
    show = _shower_into(found) if settings.is_json else _shower(settings, timestamps=timestamps, is_live=follow)
    try:
        _show(output, output.following(lines) if follow else lines, show)
    except KeyboardInterrupt:
        if not follow:
            raise
        from apothic.cli.watching import interrupted

        _print_document(settings, output, found)
        raise interrupted(job_id, output.shown_index, ("job.log",)) from None
    _print_document(settings, output, found)


class Output:
    """A job's lines, as far as they were read.

    Attributes:
        last_index: Index up to which the job's output was read.
        shown_index: Index up to which everything that is searched for was shown.
        is_final: No line will ever follow.
    """

    def __init__(self, client: ControlPlaneClient, job_id: str, search: str, since: str) -> None:
        self.job_id = job_id
        self.last_index = -1
        self.shown_index = -1
        self.is_final = False
        self._client = client
        self._search = search
        self._since = since

    def written(self, tail: int | None) -> Iterable[LogLine]:
        """Return the lines so far that are searched for, the last `tail` of them."""
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
                if self._is_wanted(line):
                    yield line
            elif isinstance(event, JobResetEvent):
                say(f"Output after index {event.requested_index} is not kept; goes on after {event.latest_index}.")
            self.last_index = self.shown_index = index
        self.is_final = True

    def _read(self) -> Iterator[LogLine]:
        for page in pages(self._client, self.job_id):
            yield from filter(self._is_wanted, page.lines)
            self.last_index, self.is_final = page.last_index, page.is_final

    def _is_wanted(self, line: LogLine) -> bool:
        # Times are UTC text with milliseconds on both sides, so their order is that of the text.
        return self._search in line.line and line.time >= self._since


def pages(client: ControlPlaneClient, job_id: str) -> Iterator[LogPage]:
    """Yield the pages of a job's output up to now; at least one."""
    after = -1
    while True:
        page = client.job_logs(job_id, after)
        yield page
        if page.is_final or not page.lines or page.last_index <= after:
            return
        after = page.last_index


def _print_document(settings: Settings, output: Output, lines: list[dict[str, Any]]) -> None:
    if settings.is_json:
        last_index, is_final = output.last_index, output.is_final
        print_json({"job_id": output.job_id, "lines": lines, "last_index": last_index, "is_final": is_final})


def _show(output: Output, lines: Iterable[LogLine], show: Callable[[LogLine], None]) -> None:
    with guarded() as interrupts:
        for line in lines:
            with interrupts.held():
                show(line)
                output.shown_index = line.index


def _shower_into(found: list[dict[str, Any]]) -> Callable[[LogLine], None]:
    return lambda line: found.append(asdict(line))


def _shower(settings: Settings, *, timestamps: bool, is_live: bool) -> Callable[[LogLine], None]:
    if settings.is_jsonl:
        return lambda line: print_json_line(asdict(line))
    write = print_live if is_live else print_text
    if timestamps:
        return lambda line: write(f"{line.time} {line.line}")
    return lambda line: write(line.line)
