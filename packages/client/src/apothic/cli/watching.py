"""Events of a stream as people and programs read them, and what is known when watching ends."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

from apothic.cli.console import print_json, print_json_line, print_live
from apothic.cli.failures import REMOTE_CANCELLED, REMOTE_FAILED, Interrupted
from apothic.cli.interrupts import guarded
from apothic.streams import (
    JobEndEvent,
    JobErrorEvent,
    JobLogEvent,
    JobResultEvent,
    JobStatusEvent,
    JobStreamItemEvent,
    StreamEvent,
    StreamResetEvent,
)

if TYPE_CHECKING:
    from apothic.cli.settings import Settings

EXITS = {"succeeded": 0, "cancelled": REMOTE_CANCELLED}
"""Status of an ended job to the exit code of a command that watched it; any other is `REMOTE_FAILED`."""


class Watching:
    """Shows events as they come.

    Args:
        show: Prints one event.
        shows_end: Whether `job.end` is shown; it is always asked for, because it tells the exit code.

    Attributes:
        last_index: Index of the last event shown; -1 for none.
        status: Status of the job or group once it has ended.
    """

    def __init__(self, show: Callable[[StreamEvent], None], *, last_index: int = -1, shows_end: bool = True) -> None:
        self.last_index = last_index
        self.status: str | None = None
        self._show = show
        self._shows_end = shows_end

    def run(self, events: Iterable[StreamEvent]) -> None:
        """Show all events."""
        with guarded() as interrupts:
            for event in events:
                with interrupts.held():
                    self._take(event)

    def _take(self, event: StreamEvent) -> None:
        is_end = isinstance(event, JobEndEvent) or event.event == "group.end"
        if self._shows_end or not is_end:
            self._show(event)
        self.last_index = self.last_index if event.index is None else event.index
        self.status = event.data.get("status") if is_end else self.status


def interrupted(job_id: str, last_index: int, types: tuple[str, ...]) -> Interrupted:
    """Return how Ctrl-C ends a command that only watches: it says how to read on after `last_index`."""
    place = f" --last-index {last_index}" if last_index >= 0 else ""
    names = f" --types {','.join(types)}" if types else ""
    return Interrupted(
        f"Stopped watching; {job_id} goes on. `apothic job watch {job_id}{place}{names}` reads on from here.",
        job_id=job_id,
    )


def watch_until_left(settings: Settings, events: Iterable[StreamEvent], command: str, types: tuple[str, ...]) -> None:
    """Show the events of an app or a deployment until the stream ends; Ctrl-C says how to read on.

    Args:
        command: The command that watches it, without options.
    """
    documents: list[dict[str, Any]] = []
    watching = Watching(printer(settings, documents))
    try:
        watching.run(events)
    except KeyboardInterrupt:
        place = f" --after {watching.last_index}" if watching.last_index >= 0 else ""
        names = f" --types {','.join(types)}" if types else ""
        if settings.is_json:
            print_json({"events": documents, "last_index": watching.last_index})
        raise Interrupted(f"Stopped watching. `{command}{place}{names}` reads on from here.", job_id=None) from None
    if settings.is_json:
        print_json({"events": documents, "last_index": watching.last_index})


def exit_code_of(status: str) -> int:
    """Return the exit code for the final status of a watched job."""
    return EXITS.get(status, REMOTE_FAILED)


def printer(settings: Settings, documents: list[dict[str, Any]]) -> Callable[[StreamEvent], None]:
    """Return what shows an event on stdout; for one JSON document events are only put into `documents`."""
    if settings.is_jsonl:
        return lambda event: print_json_line(as_document(event))
    if settings.is_json:
        return lambda event: documents.append(as_document(event))
    return lambda event: print_live(as_line(event))


def as_document(event: StreamEvent) -> dict[str, Any]:
    """Return an event as programs read it."""
    return {"index": event.index, "event": event.event, "data": event.data}


def as_line(event: StreamEvent) -> str:
    """Return an event as people read it: output as it is, anything else after its name."""
    if isinstance(event, JobLogEvent):
        return event.line
    return f"{event.event}  {_text(event)}".rstrip()


def _text(event: StreamEvent) -> str:
    if event.event == "job.snapshot":
        return _status(event.data["job"])
    if event.event.startswith("group.") and not isinstance(event, StreamResetEvent):
        data = event.data.get("group", event.data)
        words = [str(data["status"])] if "status" in data else []
        return ", ".join(words + ([group_words(data)] if "counts" in data else []))
    if not event.event.startswith("job."):
        return _told(event)
    if isinstance(event, JobStatusEvent):
        return _status(event.data)
    if isinstance(event, JobEndEvent):
        return event.status
    if isinstance(event, JobErrorEvent):
        message = " ".join(event.error.message.split())
        return f"{event.error.type_name}: {message} [{event.error.code}]{_attempt(event.data)}"
    if isinstance(event, StreamResetEvent):
        return _reset(event)
    if isinstance(event, JobStreamItemEvent):
        return _json(item_document(event))
    return _result(event.data) if isinstance(event, JobResultEvent) else _json(event.data)


def group_words(data: dict[str, Any]) -> str:
    """Return how far a group is, from how many of its items have which status."""
    counts: dict[str, int] = data["counts"]
    total: int | None = data.get("total")
    ended = sum(counts.get(name, 0) for name in ("succeeded", "failed", "cancelled", "timed_out"))
    is_whole = total is not None or "status" in data
    words = [f"{ended:,} of {sum(counts.values()) if total is None else total:,}{'' if is_whole else ' so far'} ended"]
    shown = {"running": "running", "retrying": "to be tried again", "failed": "failed", "timed_out": "out of time"}
    shown |= {"cancelled": "cancelled"}
    return ", ".join(words + [f"{counts[name]:,} {text}" for name, text in shown.items() if counts.get(name)])


def _told(event: StreamEvent) -> str:
    """Return what an event of an app or a deployment says, its time first."""
    if isinstance(event, StreamResetEvent):
        return _reset(event)
    data = event.data
    subject = data.get("app") if event.event == "app.snapshot" else data.get("deployment")
    if isinstance(subject, dict):
        found = cast("dict[str, Any]", subject)
        state = found.get("status") or found.get("deployment_id") or "stopped"
        version = f" version {found['version']}" if found.get("version") else ""
        return f"{found.get('app') or found.get('name')}{version}: {state}"
    words = [str(data[name]) for name in ("time", "app", "deployment_id") if data.get(name)]
    return " ".join(words + ([f"version {data['version']}"] if data.get("version") else []))


def _reset(event: StreamResetEvent) -> str:
    return (
        f"what follows index {event.requested_index} is not kept (oldest {event.oldest_index}); "
        f"goes on after {event.latest_index}"
    )


def item_document(event: JobStreamItemEvent) -> Any:
    """Return an item as JSON; of one that only Python can read, what it is."""
    return event.data["item"] if event.data.get("encoding") in {"json", None} else not_json(event.data["item"])


def not_json(text: str) -> dict[str, Any]:
    """Return what is shown of a pickled item, given as base64 text; nothing is unpickled here."""
    import base64

    from apothic.cli.pickled import type_name

    try:
        data = base64.b64decode(str(text), validate=True)
    except ValueError:
        data = b""
    return {"encoding": "pickle", "type": type_name(data), "size_bytes": len(data)}


def _status(data: dict[str, Any]) -> str:
    return f"{data.get('status')}{_attempt(data)}"


def _attempt(data: dict[str, Any]) -> str:
    return f", attempt {data['attempt']}" if data.get("attempt") else ""


def _result(data: dict[str, Any]) -> str:
    """Return a result as text; of one that only Python can read, its type. Nothing is unpickled here."""
    if data.get("encoding") in {"json", None}:
        return _json(data.get("result"))
    import base64

    from apothic.cli.pickled import type_name

    try:
        return type_name(base64.b64decode(str(data.get("result")), validate=True))
    except ValueError:
        return type_name(b"")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
