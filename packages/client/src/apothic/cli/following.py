"""What comes of a job while `apothic run` waits for it: items, output, and how far it is."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from apothic._items import ITEM, Chunk, ItemEvents, ItemSource
from apothic.cli.console import print_lines, say
from apothic.cli.progress import Progress
from apothic.cli.watching import as_line, not_json
from apothic.errors import ApothicError, JobStreamResetError, JobTimeoutError
from apothic.streams import JobEndEvent, JobErrorEvent, JobLogEvent, JobStatusEvent, JobStreamEvent

if TYPE_CHECKING:
    from apothic.client import ControlPlaneClient

_TYPES = ("job.status", "job.log", ITEM, "job.error", "job.end")

Items = Callable[[list[Any]], None]
Show = Callable[[JobStreamEvent], None]


def show_all(client: ControlPlaneClient, job_id: str, timeout_s: float, *, name: str, is_generator: bool) -> None:
    """Show how far a job is, what it writes and the items it yields, until it ends; how it ended is for others to tell.

    Raises:
        BrokenPipeError: Nobody reads what is shown.
        JobTimeoutError: `timeout_s` passed.
        JobStreamResetError: Items are gone.
    """
    progress = Progress(job_id, name, functools.partial(_waiting_reason, client, job_id))
    shown = _Shown(progress)
    with progress.shown():
        try:
            try:
                _read(client, job_id, timeout_s, _TYPES, -1, shown.items, shown.event, is_generator=is_generator)
            except JobStreamResetError as error:  # of generators: look whether it is items that are gone
                say_above(progress, f"Output of {job_id} after index {error.requested_index} is not kept.")
                _read(client, job_id, timeout_s, (ITEM,), error.requested_index, shown.items, shown.event)
        except JobTimeoutError:
            raise
        except ApothicError as error:
            if is_generator:
                raise
            say_above(progress, f"The output of {job_id} cannot be read: {error}")


def read_items(client: ControlPlaneClient, job_id: str, timeout_s: float, *, items: Items) -> None:
    """Give a generator's items as they come, and nothing else; errors as those of `show_all`."""
    _read(client, job_id, timeout_s, (ITEM,), -1, items, lambda _: None)


class _Shown:
    """Prints what comes of a job above its line of progress."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._error = ""

    def items(self, items: list[Any]) -> None:
        """Print each item as a line of JSON on stdout."""
        with self._progress.above():
            print_lines(items)

    def event(self, event: JobStreamEvent) -> None:
        """Print what was written; anything else changes the line of progress."""
        if isinstance(event, (JobStatusEvent, JobEndEvent)):
            is_retry = event.status == "retrying"
            attempt = event.attempt if isinstance(event, JobStatusEvent) else None
            self._progress.changed(event.status, attempt, self._error if is_retry else "")
        elif isinstance(event, JobErrorEvent):
            self._error = f"{event.error.type_name}: {' '.join(event.error.message.split())}"
        elif isinstance(event, JobLogEvent):
            say_above(self._progress, event.line)
        else:
            say_above(self._progress, as_line(event))


def say_above(progress: Progress, line: str) -> None:
    """Print a line to stderr above the line of progress."""
    with progress.above():
        say(line)


def _read(
    client: ControlPlaneClient,
    job_id: str,
    timeout_s: float,
    types: tuple[str, ...],
    after: int,
    items: Items,
    show: Show,
    *,
    is_generator: bool = True,
) -> None:
    """Read events after an index until the job ends. Of a generator nothing may be missing."""
    core = client.core
    events = ItemEvents(core, job_id, after, timeout_s=timeout_s, types=types, is_packed=is_generator)
    source = ItemSource(core, events, "raise" if is_generator else "continue", tells_end=False)
    try:
        while (found := client.run(source.mixed())) is not None:
            for entry in found:
                if isinstance(entry, Chunk):
                    items(entry.items if entry.is_json else [not_json(item) for item in entry.items])
                else:
                    show(entry)
    finally:
        source.close()


def _waiting_reason(client: ControlPlaneClient, job_id: str) -> str | None:
    try:
        return client.get_job(job_id).waiting_reason
    except (ApothicError, OSError):
        return None
