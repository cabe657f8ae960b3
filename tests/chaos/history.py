"""What clients were told, and when: written while a run goes on, one JSON object per line, and read by the checker.

Times are monotonic seconds of the harness. Job ids are keys, without the table's name.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A call was answered 2xx with a job's id. `token` is what the client sent to tell its calls apart."""

    at: float
    job: str
    token: str
    function: str
    key: str = ""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A client was told how a job ended; `result` is JSON text, `code` the error's."""

    at: float
    job: str
    status: str
    result: str | None = None
    code: str | None = None


@dataclass(frozen=True, kw_only=True)
class CancelAsked:
    """A cancel was sent; what became of it may never be known."""

    at: float
    job: str


@dataclass(frozen=True, kw_only=True)
class CancelAnswered:
    """A cancel was answered with a status."""

    at: float
    job: str
    status: str


@dataclass(frozen=True, kw_only=True)
class Read:
    """One connection of one reader of a job's events.

    Attributes:
        after: Index after which the connection asked.
        events: Index and kind of everything that came, in order.
        is_whole: The stream ended by itself.
    """

    at: float
    job: str
    reader: str
    after: int
    events: list
    is_whole: bool


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A call was answered with an error: certainly no job."""

    at: float
    token: str
    status: int
    code: str


@dataclass(frozen=True, kw_only=True)
class Unanswered:
    """The connection died before an answer: a job or none."""

    at: float
    token: str
    why: str


KINDS = {kind.__name__: kind for kind in (Accepted, Ended, CancelAsked, CancelAnswered, Read, Refused, Unanswered)}


@dataclass
class History:
    """All of a run."""

    accepted: list[Accepted] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    asked: list[CancelAsked] = field(default_factory=list)
    cancels: list[CancelAnswered] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    unanswered: list[Unanswered] = field(default_factory=list)

    def add(self, record):
        """Add one record of any kind."""
        lists = {
            Accepted: self.accepted,
            Ended: self.ended,
            CancelAsked: self.asked,
            CancelAnswered: self.cancels,
            Read: self.reads,
            Refused: self.refused,
            Unanswered: self.unanswered,
        }
        lists[type(record)].append(record)


class HistoryFile:
    """Writes records and keeps them."""

    def __init__(self, path: Path):
        self.history = History()
        self._file = path.open("a", buffering=1)

    def add(self, record):
        """Write one record."""
        self._file.write(json.dumps({"what": type(record).__name__, **asdict(record)}) + "\n")
        self.history.add(record)

    def close(self):
        """Close the file."""
        self._file.close()


def read_history(path: Path) -> History:
    """Return what a `HistoryFile` wrote."""
    found = History()
    for line in path.read_text().splitlines():
        told = json.loads(line)
        kind = KINDS[told.pop("what")]
        names = {known.name for known in fields(kind)}
        assert set(told) <= names, f"unknown fields of {kind.__name__}: {set(told) - names}"
        if kind is Read:
            told["events"] = [tuple(event) for event in told["events"]]
        found.add(kind(**told))
    return found
