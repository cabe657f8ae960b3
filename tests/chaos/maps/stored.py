"""What lies in the store of maps after a run: groups, the rows that cover their items, and streams."""

import json
from dataclasses import dataclass, field

from apothic.wire import chunks
from apothic_server.store.address import StoreAddress
from apothic_server.store.connection import connect

from ..stored import TERMINAL, StoredEvent, StoredJob

_ENCODINGS = {b"j": "value", b"p": "pickle", b"e": "error"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A row that covers items.

    Attributes:
        items: How many a chunk covers; None for the row of one item.
        entries: Of a chunk: for each item that ended there, its value or a dict with the `code` of its error.
        failed: Offsets of entries that the row says failed.
        overlays: As in the store.
        value, code: Of the row of one item.
        finished: Wall clock, in seconds.
    """

    id: str
    first: int
    status: str
    items: int | None = None
    entries: tuple = ()
    done: int = 0
    failed: tuple[int, ...] = ()
    overlays: str | None = None
    attempt: int = 0
    value: object = None
    code: str | None = None
    finished: float | None = None

    @property
    def is_final(self):
        return self.status in TERMINAL


@dataclass(frozen=True, kw_only=True)
class Group:
    """One group.

    Attributes:
        inputs: For each item the map and the number that its input names.
        finished: Wall clock, in seconds.
        stream: The group's stream, in the form of a job.
    """

    id: str
    function: str
    status: str
    key: str | None = None
    uploaded: int = 0
    total: int | None = None
    counts: dict | None = None
    code: str | None = None
    finished: float | None = None
    inputs: tuple[tuple[int, int], ...] = ()
    rows: tuple[Row, ...] = ()
    stream: StoredJob | None = None

    @property
    def tag(self):
        """Number of the map that made it; None without items."""
        return self.inputs[0][0] if self.inputs else None


@dataclass(frozen=True, kw_only=True)
class World:
    """All groups, and the rows of single items as jobs, with their streams."""

    groups: tuple[Group, ...]
    items: dict[str, StoredJob] = field(default_factory=dict)


_GROUPS = """
SELECT one.id, function.name AS function, one.status, one.key, one.uploaded, one.total, one.counts,
    one.error ->> 'code' AS code, extract(epoch FROM one.finished_at)::float8 AS finished,
    coalesce(stream.next_index, 0) AS next_index, coalesce(stream.first_index, 0) AS first_index
FROM groups AS one JOIN functions AS function ON function.id = one.function
    LEFT JOIN streams AS stream ON stream.stream = one.id
ORDER BY one.id
"""
_ROWS = """
SELECT jobs.id, group_id, jobs.first_item, chunk_items, chunk_done, failed_items, overlays, status, attempt, fence,
    losses, result, error ->> 'code' AS code, extract(epoch FROM finished_at)::float8 AS finished, next_index,
    coalesce(floor.first_index, 0) AS first_index
FROM jobs LEFT JOIN stream_floors AS floor ON floor.stream = jobs.id WHERE group_id IS NOT NULL
ORDER BY jobs.first_item, jobs.id
"""
_EVENTS = """
SELECT stream, index, kind, data FROM events
WHERE stream IN (SELECT id FROM jobs WHERE group_id IS NOT NULL UNION ALL SELECT id FROM groups) ORDER BY stream, index
"""
_INPUTS = "SELECT group_id, data FROM group_inputs ORDER BY group_id, first"
_UNFINISHED = """
SELECT (SELECT count(*) FROM groups WHERE finished_at IS NULL) + (SELECT count(*) FROM jobs
    WHERE status NOT IN ('succeeded', 'failed', 'cancelled', 'timed_out'))
"""
_OPEN = "SELECT id FROM groups WHERE finished_at IS NULL AND total IS NULL AND key IS NULL AND status = 'running'"


async def count_unfinished(address: StoreAddress) -> int:
    """Return how many groups, and how many rows of any job, have not ended."""
    return await _ask(address, lambda connection: connection.fetchval(_UNFINISHED))


async def open_groups(address: StoreAddress) -> list[str]:
    """Return the groups without a key that still wait for items."""
    return [row["id"] for row in await _ask(address, lambda connection: connection.fetch(_OPEN))]


async def read_world(address: StoreAddress) -> World:
    """Return all of it."""
    connection = await connect(address, name="checker", deadline_s=60.0)
    try:
        groups, rows, inputs, events = [await connection.fetch(one) for one in (_GROUPS, _ROWS, _INPUTS, _EVENTS)]
    finally:
        await connection.close()
    streams, parts, covering = {}, {}, {}
    for row in events:
        event = StoredEvent(index=row["index"], kind=row["kind"], data=_json(row["data"]))
        streams.setdefault(row["stream"], []).append(event)
    for row in inputs:
        parts.setdefault(row["group_id"], []).extend(_named(entry) for entry in chunks.unpack(bytes(row["data"])))
    for row in rows:
        covering.setdefault(row["group_id"], []).append(_row(row))
    return World(
        groups=tuple(_group(row, parts, covering, streams) for row in groups),
        items={row["id"]: _job(row, streams) for row in rows if row["chunk_items"] is None},
    )


async def _ask(address, question):
    connection = await connect(address, name="checker", deadline_s=30.0)
    try:
        return await question(connection)
    finally:
        await connection.close()


def _group(row, parts, covering, streams):
    return Group(
        id=row["id"],
        function=row["function"],
        status=row["status"],
        key=row["key"],
        uploaded=row["uploaded"],
        total=row["total"],
        counts=None if row["counts"] is None else _json(row["counts"]),
        code=row["code"],
        finished=row["finished"],
        inputs=tuple(parts.get(row["id"], ())),
        rows=tuple(covering.get(row["id"], ())),
        stream=_job(row, streams, attempt=0, fence=0, losses=0),
    )


def _row(row):
    is_chunk = row["chunk_items"] is not None
    result = None if row["result"] is None else bytes(row["result"])
    return Row(
        id=row["id"],
        first=row["first_item"],
        status=row["status"],
        items=row["chunk_items"],
        entries=tuple(map(entry_of, chunks.unpack(result))) if is_chunk and result else (),
        done=row["chunk_done"] or 0,
        failed=tuple(row["failed_items"] or ()),
        overlays=row["overlays"],
        attempt=row["attempt"],
        value=json.loads(result) if result and not is_chunk else None,
        code=row["code"],
        finished=row["finished"],
    )


def entry_of(entry):
    """Return what an entry of a chunk says: a value, or the code of an error."""
    told = json.loads(entry[1:])
    return {"code": told["code"]} if _ENCODINGS[entry[:1]] == "error" else told


def _named(entry):
    tag, number, *_ = json.loads(entry[1:])
    return tag, number


def _job(row, streams, **known):
    told = {name: known[name] if name in known else row[name] for name in ("attempt", "fence", "losses")}
    return StoredJob(
        id=row["id"],
        status=row["status"],
        code=row["code"],
        next_index=row["next_index"],
        first_index=row["first_index"],
        events=tuple(streams.get(row["id"], ())),
        **told,
    )


def _json(data):
    return json.loads(data) if isinstance(data, str) else data
