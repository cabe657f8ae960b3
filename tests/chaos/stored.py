"""What lies in the store after a run: jobs and their streams, read straight from the tables."""

import json
from dataclasses import dataclass, field

from apothic_server.store.address import StoreAddress
from apothic_server.store.connection import connect

TERMINAL = ("succeeded", "failed", "cancelled", "timed_out")
STATUSES = ("queued", "starting", "running", "retrying", "cancelling", *TERMINAL)


@dataclass(frozen=True, kw_only=True)
class StoredEvent:
    """One event of a stream."""

    index: int
    kind: str
    data: dict = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StoredJob:
    """One job's row with its stream.

    Attributes:
        token: The first argument of the call.
        result: JSON text.
        first_index: Oldest event that is kept.
    """

    id: str
    status: str
    attempt: int
    fence: int
    losses: int = 0
    token: str = ""
    result: str | None = None
    code: str | None = None
    next_index: int = 0
    first_index: int = 0
    events: tuple[StoredEvent, ...] = ()

    @property
    def is_final(self):
        return self.status in TERMINAL


Stored = dict[str, StoredJob]

_JOBS = """
SELECT id, status, attempt, fence, losses, arguments, result, error ->> 'code' AS code, next_index,
    coalesce(floor.first_index, 0) AS first_index
FROM jobs LEFT JOIN stream_floors AS floor ON floor.stream = jobs.id WHERE group_id IS NULL
"""
_EVENTS = """
SELECT stream, index, kind, data FROM events
WHERE stream IN (SELECT id FROM jobs WHERE group_id IS NULL) ORDER BY stream, index
"""


async def read_store(address: StoreAddress) -> Stored:
    """Return every job of the store but the items of maps."""
    connection = await connect(address, name="checker", deadline_s=30.0)
    try:
        rows = await connection.fetch(_JOBS)
        events = {}
        for row in await connection.fetch(_EVENTS):
            data = json.loads(row["data"]) if isinstance(row["data"], str) else row["data"]
            events.setdefault(row["stream"], []).append(StoredEvent(index=row["index"], kind=row["kind"], data=data))
    finally:
        await connection.close()
    return {row["id"]: _job(row, events.get(row["id"], [])) for row in rows}


def _job(row, events):
    return StoredJob(
        id=row["id"],
        status=row["status"],
        attempt=row["attempt"],
        fence=row["fence"],
        losses=row["losses"],
        token=_token(row["arguments"]),
        result=None if row["result"] is None else bytes(row["result"]).decode(errors="replace"),
        code=row["code"],
        next_index=row["next_index"],
        first_index=row["first_index"],
        events=tuple(events),
    )


def _token(arguments):
    try:
        positional, _ = json.loads(bytes(arguments or b""))
        return str(positional[0]) if positional else ""
    except (ValueError, TypeError):
        return ""
