"""What became of each item, read from the rows that cover it: the rule of the store, written a second time.

An item's own row tells; without one the entry of its chunk; without an entry the chunk's status; without a chunk the
group's.
"""

from dataclasses import dataclass

from ..checker import Violation
from ..stored import TERMINAL

NEVER = frozenset({"cancelled", "stopped_after_failures"})
"""Codes that stand for an item that was cancelled."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an item ended.

    Attributes:
        value: Of a success.
        code: Of anything else.
        since: Wall clock, in seconds, of what told it; None when nothing did.
        row: Which row tells it; empty without one.
    """

    status: str
    value: object = None
    code: str | None = None
    since: float | None = None
    row: str = ""


def outcomes_of(group) -> tuple[list[Outcome], list[Violation]]:
    """Return the outcome of each item of a group, and what is wrong with the rows that cover them (I1)."""
    found, chunks, own = [], [None] * group.uploaded, [None] * group.uploaded
    for row in group.rows:
        found += [Violation("I1", row.id, what) for what in _row_faults(row, group.uploaded)]
        for number in range(row.first, min(row.first + (1 if row.items is None else row.items), group.uploaded)):
            places = own if row.items is None else chunks
            if places[number] is not None:
                found.append(Violation("I1", f"{group.id}.{number}", f"is in {places[number].id} and in {row.id}"))
            places[number] = row
    told = []
    for number in range(group.uploaded):
        outcome, wrong = _outcome(group, number, chunks[number], own[number])
        told.append(outcome)
        if wrong:
            found.append(Violation("I1", f"{group.id}.{number}", wrong))
    return told, found


def _row_faults(row, uploaded):
    if row.items is None:
        return
    if row.first + row.items > uploaded:
        yield f"covers items up to {row.first + row.items} of {uploaded}"
    if not len(row.entries) == row.done <= row.items:
        yield f"covers {row.items} items, says that {row.done} ended and has {len(row.entries)} entries"
    failed = tuple(place for place, entry in enumerate(row.entries) if _is_error(entry))
    if failed != row.failed:
        yield f"says that {row.failed} failed, its entries that {failed} did"
    if row.status == "succeeded" and row.done != row.items:
        yield f"succeeded with {row.done} of {row.items} items"


def _outcome(group, number, chunk, own):
    """Return an item's outcome, and what is wrong with it or None."""
    entry = chunk.entries[number - chunk.first] if chunk and number - chunk.first < len(chunk.entries) else None
    if own is not None:
        letter = None if entry is None else "F" if _is_error(entry) else "S"
        code = own.code or ("cancelled" if own.status == "cancelled" else None)
        outcome = Outcome(own.status, own.value, code, own.finished, own.id)
        if letter != own.overlays or (chunk is not None and entry is None):
            return outcome, f"has a row that lies over {own.overlays}, and {chunk and chunk.id} says {letter}"
        return outcome, None
    if entry is not None:
        if _is_error(entry):
            return Outcome("failed", None, entry["code"], chunk.finished, chunk.id), None
        return Outcome("succeeded", entry, None, chunk.finished, chunk.id), None
    if chunk is not None:
        code = chunk.code or ("cancelled" if chunk.status == "cancelled" else None)
        return Outcome(chunk.status, None, code, chunk.finished, chunk.id), None
    code = group.code or ("cancelled" if group.status == "cancelled" else "lost")
    if group.status in TERMINAL and group.status != "cancelled":
        return Outcome("failed", None, code), f"is in no row, and its group {group.status}"
    return Outcome(group.status, None, code, group.finished), None


def _is_error(entry):
    return isinstance(entry, dict)
