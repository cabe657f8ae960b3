"""What event streams of all kinds send: names of events, and their data as the document has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from apothic.wire.ids import record_id
from apothic_server.api.runtime import records
from apothic_server.api.runtime.outcomes import result_record
from apothic_server.api.shared.query import refusal
from apothic_server.domain.apps import Deployment
from apothic_server.domain.group_views import GroupView
from apothic_server.domain.streams import StreamKind
from apothic_server.domain.views import AppView, Snapshot, Streamed

_IDS = {
    "deployment": ("deployments", "deployment_id"),
    "previous": ("deployments", "previous_deployment_id"),
    "by": ("deployments", "deployment_id"),
    "schedule": ("schedules", "schedule_id"),
}
"""Fields of stored events that hold a key: what it is the key of, and the fields that show its id."""

_TIMES = ("time", "first_due", "last_due")


def _no_groups() -> dict[str, frozenset[str]]:
    return {}


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The names of one kind of stream.

    Attributes:
        kind: What has such a stream; every name begins with it.
        told: Names of stored events.
        groups: Names that a filter may use for several.
    """

    kind: StreamKind
    told: frozenset[str]
    groups: Mapping[str, frozenset[str]] = field(default_factory=_no_groups)

    @property
    def snapshot(self) -> str:
        return f"{self.kind.value}.snapshot"

    @property
    def reset(self) -> str:
        return f"{self.kind.value}.reset"

    @property
    def alive(self) -> str:
        return f"{self.kind.value}.alive"

    def chosen(self, types: str | None) -> frozenset[str]:
        """Return the names that a filter lets pass; a reset always does.

        Raises:
            Invalid: It names no event of this kind of stream.
        """
        known = self.told | {self.snapshot, self.reset}
        if types is None:
            return known
        asked = types.split(",")
        for name in asked:
            if name not in known:
                msg = f"holds no event type {name!r}; known: {', '.join(sorted(known))}"
                raise refusal("types", msg, "unknown_type")
        groups = [self.groups.get(name, frozenset()) for name in asked]
        return frozenset({*asked, self.reset}).union(*groups)


JOB = Vocabulary(
    StreamKind.JOB,
    frozenset(
        {"job.queued", "job.running", "job.status", "job.log", "job.stream_item", "job.result", "job.error", "job.end"}
    ),
    {"job.status": frozenset({"job.queued", "job.running"})},
)
APP = Vocabulary(
    StreamKind.APP, frozenset({"app.deployed", "app.stopped", "app.deployment_deleted", "app.tick_skipped"})
)
DEPLOYMENT = Vocabulary(
    StreamKind.DEPLOYMENT,
    frozenset(
        {
            "deployment.created", "deployment.active", "deployment.superseded", "deployment.stopped",
            "deployment.deleted", "deployment.end", "deployment.build_log", "deployment.built",
            "deployment.build_failed",
        }
    ),
)  # fmt: skip

GROUP = Vocabulary(StreamKind.GROUP, frozenset({"group.created", "group.progress", "group.end"}))


def event_data(event: Streamed) -> dict[str, Any]:
    """Return the data of an event as the document describes it."""
    if event.kind == "job.result":
        return event.data if event.value is None else {**event.data, **result_record(event.value)}
    if "time" not in event.data:
        return event.data
    data = {name: _shown(value) if name in _TIMES else value for name, value in event.data.items()}
    if event.kind != "job.log":
        return _with_ids(data)
    data.pop("number", None)  # between worker and server only
    return data


def snapshot_data(found: Snapshot) -> dict[str, Any]:
    """Return the data of a snapshot: what the stream tells of, under the name of its kind."""
    view = found.view
    if isinstance(view, Deployment):
        return {"deployment": records.deployment_record(view), "index": found.index}
    if isinstance(view, GroupView):
        return {"group": records.group_record(view), "index": found.index}
    if isinstance(view, AppView):
        return {"app": records.app_record(view), "index": found.index}
    data: dict[str, Any] = {"job": records.job_record(view), "index": found.index}
    return data if found.value is None else {**data, **result_record(found.value)}


def _shown(seconds: float) -> str:
    at = datetime.fromtimestamp(seconds, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _with_ids(data: dict[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for name, value in data.items():
        table, field_name = _IDS.get(name, ("", name))
        shown[field_name] = record_id(table, value) if table and value else value
    return shown
