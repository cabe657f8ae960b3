"""Life cycles: one table per resource, one function that fires moves, one error for illegal ones.

A table maps each state to the events that may happen in it and the state that follows. A state whose row is empty is
final. The store enforces the same table a second time (migration `0001_core.sql`); a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Generic, TypeVar

State = TypeVar("State", bound=Enum)
Event = TypeVar("Event", bound=Enum)


class IllegalMove(AssertionError):
    """A program tried a move that the table does not hold: an error of ours, never of a caller."""


class LifeCycle(Generic[State, Event]):
    """The moves of one kind of thing."""

    def __init__(self, table: Mapping[State, Mapping[Event, State]]) -> None:
        self.table = table

    def fire(self, state: State, event: Event) -> State:
        """Return the state after `event`.

        Raises:
            IllegalMove: `event` cannot happen in `state`.
        """
        try:
            return self.table[state][event]
        except KeyError:
            raise IllegalMove(f"{event.value} cannot happen in {state.value}") from None

    def allows(self, state: State, event: Event) -> bool:
        return event in self.table[state]

    def is_final(self, state: State) -> bool:
        return not self.table[state]
