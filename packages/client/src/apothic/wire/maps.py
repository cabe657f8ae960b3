"""What the worker link says of chunks, which are consecutive items of a map that one attempt executes."""

from __future__ import annotations

from dataclasses import dataclass, field

from apothic.wire.lines import LogLine


@dataclass(frozen=True)
class ChunkOrder:
    """The attempt executes consecutive items of a map, one after the other; the function is called once for each.

    With one item it is an attempt like any other in all but the form of its arguments: its job is that item's own.

    Attributes:
        group: Key of the group; the job of item n is `GROUP.N` towards user code.
        first: Number of the first item in its group, from 0.
        count: Items, 1 to `CHUNK_ITEMS_MAX`.
        spread: Each item holds all positional arguments of its call, not just the only one.
    """

    group: str
    first: int
    count: int
    spread: bool = False


@dataclass(frozen=True)
class TakeBack:
    """Finish the item under way and give the rest of the chunk back; ignored when it is not here, or no chunk."""

    job: str
    fence: int


@dataclass(frozen=True)
class ItemOutput:
    """What one item of a chunk wrote; `offset` is counted from the chunk's first item."""

    offset: int
    lines: list[LogLine]


@dataclass(frozen=True)
class ChunkResult:
    """What became of the first items of a chunk: as many as ended, in order, without the one that was interrupted.

    Attributes:
        done: Items that ended, with a value or an error of their own; the rest was not executed to its end.
        failed: Offsets of those that ended with an error, ascending, counted from the chunk's first item.
        data: Packed outcomes of the `done` items (`apothic.wire.chunks`); less than `CHUNK_OUTCOMES_MAX` bytes
            without the last.
        output: What items wrote, ascending by offset; also of the item that was interrupted, whose offset is `done`.
        python: As `Value.python`, for all of them.
    """

    done: int
    failed: list[int] = field(default_factory=list)  # pyright: ignore[reportUnknownVariableType]
    data: bytes = b""
    output: list[ItemOutput] = field(default_factory=list)  # pyright: ignore[reportUnknownVariableType]
    python: str | None = None
