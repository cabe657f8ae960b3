"""Events of the streams of jobs, groups, apps and deployments, and where a reader of one is.

Indexes of one stream begin at 0 and grow by 1; a filter hides events and never renumbers them. A reader that goes on
after the last index it saw gets the next one: nothing is left out and nothing comes twice.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from apothic._ranges import whole, wrong
from apothic.errors import RemoteExecutionError, SerializationError, remote_error
from apothic.wire.names import near_matches
from apothic.wire.runner import error_from_json
from apothic.wire.values import Value

INDEX_MAX = 2**63 - 1
EVENT_TYPES = (
    "job.queued", "job.running", "job.status", "job.log", "job.stream_item", "job.result", "job.error", "job.end",
    "job.reset", "job.snapshot",
)  # fmt: skip
"""Names that a filter may hold; `job.status` stands for `job.queued` and `job.running` too."""

APP_EVENT_TYPES = ("app.deployed", "app.stopped", "app.deployment_deleted", "app.reset", "app.snapshot")
DEPLOYMENT_EVENT_TYPES = (
    "deployment.created", "deployment.active", "deployment.superseded", "deployment.stopped", "deployment.deleted",
    "deployment.end", "deployment.build_log", "deployment.built", "deployment.build_failed", "deployment.reset",
    "deployment.snapshot",
)  # fmt: skip
GROUP_EVENT_TYPES = ("group.created", "group.progress", "group.end", "group.reset", "group.snapshot")


def checked_types(event_types: Any, known: tuple[str, ...] = EVENT_TYPES) -> tuple[str, ...]:
    """Return a filter as a tuple; empty, and None, let every event pass.

    Args:
        known: Names of the events that the stream can have.

    Raises:
        InvalidRequestError: It is no list or tuple of names of events; the message names a near match.
    """
    if event_types is None:
        return ()
    if not isinstance(event_types, (list, tuple)):
        raise wrong("event_types", event_types, f"a list or tuple of event names such as {known[0]!r}")
    names = cast("list[Any] | tuple[Any, ...]", event_types)
    for name in names:
        if name not in known:
            close = near_matches(name, known) if isinstance(name, str) else []
            hint = f"; did you mean {close[0]}?" if close else ""
            raise wrong("event_types", name, f"one of {', '.join(known)}{hint}")
    return tuple(names)


@dataclass(frozen=True)
class JobStreamCursor:
    """A place in one stream, of a job, a group, an app or a deployment.

    Attributes:
        last_index: The last index already seen; -1 for none.
    """

    last_index: int = -1

    def __post_init__(self) -> None:
        whole("last_index", self.last_index, -1, INDEX_MAX)


@dataclass(frozen=True)
class JobStreamCheckpoint:
    """All that another process needs to read on: keep its three fields, for example as JSON.

    Attributes:
        job_id: The job.
        last_index: The last index already seen; -1 for none.
        event_types: The filter; empty for every event. A list becomes a tuple.
    """

    job_id: str
    last_index: int = -1
    event_types: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.job_id, str) or not self.job_id:  # pyright: ignore[reportUnnecessaryIsInstance] - users may err
            raise wrong("job_id", self.job_id, "a job's id such as jobs:01jc…")
        whole("last_index", self.last_index, -1, INDEX_MAX)
        object.__setattr__(self, "event_types", checked_types(self.event_types))


@dataclass(frozen=True)
class StreamEvent:
    """One event of a stream.

    Attributes:
        event: Its name, for example `job.log` or `app.deployed`.
        data: Its data as sent, an object.
        index: Its place in the stream; of a snapshot and a reset the index up to which they are good.
    """

    event: str
    data: Any
    index: int | None = None


class StreamResetEvent(StreamEvent):
    """Events that were asked for are gone, or do not exist: the stream goes on after `latest_index`."""

    @property
    def requested_index(self) -> int:
        """The last index that the reader had seen."""
        return self.data["requested_index"]

    @property
    def oldest_index(self) -> int:
        """The oldest index still kept."""
        return self.data["oldest_index"]

    @property
    def latest_index(self) -> int:
        """The index up to which `snapshot` is good; the next event has the one after it."""
        return self.data["latest_index"]

    @property
    def snapshot(self) -> dict[str, Any]:
        """What the stream tells of at `latest_index`, as the data of a snapshot event."""
        return self.data["snapshot"]


@dataclass(frozen=True)
class JobStreamEvent(StreamEvent):
    """One event of a job; kinds with a class of their own come as that class, `job.snapshot` as this one."""


class JobStatusEvent(JobStreamEvent):
    """The job changed: `job.queued`, `job.running` or `job.status`."""

    @property
    def status(self) -> str:
        """Status after the change."""
        return self.data["status"]

    @property
    def previous(self) -> str | None:
        """Status before the change, where the event says it."""
        return self.data.get("previous")

    @property
    def attempt(self) -> int | None:
        """Attempt that it is about, from 1; None while the job was only queued."""
        return self.data.get("attempt")


class JobLogEvent(JobStreamEvent):
    """One line of output, or a piece of a very long one."""

    @property
    def line(self) -> str:
        """The text, without a line end."""
        return self.data["line"]

    @property
    def stream(self) -> str:
        """`stdout`, `stderr` or `system`."""
        return self.data["stream"]

    @property
    def time(self) -> str:
        """When it was written: UTC text with milliseconds; empty when the event does not say it."""
        return _time_text(self.data.get("time"))

    @property
    def is_partial(self) -> bool:
        """Whether the line goes on in the next event of the same `stream`."""
        return self.data.get("partial") is True


@dataclass(frozen=True)
class JobStreamItemEvent(JobStreamEvent):
    """One item that a generator yielded.

    Attributes:
        allow_pickle: Whether `item` may unpickle; as the client that read the event, else False.
    """

    allow_pickle: bool = field(default=False, kw_only=True, repr=False, compare=False)

    @functools.cached_property
    def item(self) -> Any:
        """The item, decoded when first asked for.

        Raises:
            SerializationError: It cannot be read here.
        """
        if self.data.get("encoding") in {"json", None}:
            return self.data["item"]
        return _decoded({**self.data, "result": self.data["item"]}, allow_pickle=self.allow_pickle)

    @property
    def attempt(self) -> int:
        """The attempt that yielded it, from 1."""
        return self.data["attempt"]

    @property
    def ordinal(self) -> int:
        """Its place among the items of the attempt, from 0."""
        return self.data["ordinal"]


@dataclass(frozen=True)
class JobResultEvent(JobStreamEvent):
    """The function returned.

    Attributes:
        allow_pickle: Whether `result` may unpickle; as the client that read the event, else False.
    """

    allow_pickle: bool = field(default=False, kw_only=True, repr=False, compare=False)

    @functools.cached_property
    def result(self) -> Any:
        """What the function returned, decoded when first asked for.

        Raises:
            SerializationError: The result cannot be read here.
        """
        encoding, result = self.data.get("encoding"), self.data.get("result")
        return result if encoding in {"json", None} else _decoded(self.data, allow_pickle=self.allow_pickle)


class JobErrorEvent(JobStreamEvent):
    """An attempt failed."""

    @functools.cached_property
    def error(self) -> RemoteExecutionError:
        """What went wrong, as the exception that `wait` raises when it is the last attempt."""
        return remote_error(error_from_json(self.data))

    @property
    def attempt(self) -> int | None:
        """The attempt, from 1."""
        return self.data.get("attempt")


class JobEndEvent(JobStreamEvent):
    """The job ended; nothing follows."""

    @property
    def status(self) -> str:
        """`succeeded`, `failed`, `cancelled` or `timed_out`."""
        return self.data["status"]


class JobResetEvent(JobStreamEvent, StreamResetEvent):
    """Events that were asked for are gone, or do not exist: the job's stream goes on after `latest_index`."""


_RESET: dict[str, type] = {"requested_index": int, "oldest_index": int, "latest_index": int, "snapshot": dict}
_STATUS: tuple[type[JobStreamEvent], dict[str, type]] = (JobStatusEvent, {"status": str})
_KINDS: dict[str, tuple[type[JobStreamEvent], dict[str, type]]] = {
    "job.queued": _STATUS,
    "job.running": _STATUS,
    "job.status": _STATUS,
    "job.log": (JobLogEvent, {"stream": str, "line": str}),
    "job.stream_item": (JobStreamItemEvent, {"attempt": int, "ordinal": int}),
    "job.result": (JobResultEvent, {}),
    "job.error": (JobErrorEvent, {"type": str, "message": str}),
    "job.end": (JobEndEvent, {"status": str}),
    "job.reset": (JobResetEvent, _RESET),
    "job.snapshot": (JobStreamEvent, {"job": dict}),
}  # fmt: skip
"""Class of a kind, and the fields that its data must have."""


def event_of(kind: str, data: Any, index: int, *, allow_pickle: bool) -> JobStreamEvent:
    """Return a received event as the class of its kind; kinds that are not known here as `JobStreamEvent`.

    Raises:
        ValueError: The data is not what the kind promises.
    """
    made_as, required = _KINDS.get(kind, (JobStreamEvent, None))
    if required is not None:
        _check(kind, data, required)
    if made_as is JobResultEvent or made_as is JobStreamItemEvent:
        return made_as(kind, data, index, allow_pickle=allow_pickle)
    return made_as(kind, data, index)


def other_event_of(kind: str, data: Any, index: int) -> StreamEvent:
    """Return a received event of an app or a deployment.

    Raises:
        ValueError: The data is not what the kind promises.
    """
    subject, _, what = kind.partition(".")
    if what == "reset":
        _check(kind, data, _RESET)
        return StreamResetEvent(kind, data, index)
    _check(kind, data, {subject: dict} if what == "snapshot" else {})
    return StreamEvent(kind, data, index)


def _check(kind: str, data: Any, required: Mapping[str, type]) -> None:
    if not isinstance(data, dict):
        raise ValueError(f"the data of {kind} is no object")
    fields = cast("dict[str, Any]", data)
    for name, wanted in required.items():
        if type(fields.get(name)) is not wanted:
            raise ValueError(f"{name} of {kind} must be {wanted.__name__}")


def _time_text(time: Any) -> str:
    """Return a time as text; seconds since 1970 become the text that the rest of the face uses."""
    if isinstance(time, (int, float)) and not isinstance(time, bool):
        from datetime import datetime, timezone

        at = datetime.fromtimestamp(time, timezone.utc)  # noqa: UP017 - the client also runs on 3.10
        return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return time if isinstance(time, str) else ""


def _decoded(data: Mapping[str, Any], *, allow_pickle: bool) -> Any:
    """Return the result that stands as base64 text in `data`."""
    import base64

    from apothic._results import decode

    encoding, python = data.get("encoding"), data.get("python")
    try:
        raw = base64.b64decode(data["result"], validate=True)
    except (KeyError, TypeError, ValueError):
        raw = None
    if raw is None or encoding != "pickle" or not (python is None or isinstance(python, str)):
        raise SerializationError("The result of the job cannot be read here.", code="result_unreadable")
    return decode("the job", Value("pickle", raw, python), allow_pickle=allow_pickle)
