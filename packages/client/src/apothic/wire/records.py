"""Values that are made for every call: frozen for type checkers, plain dataclasses when they run.

A frozen dataclass sets each of its fields by a call, so that one with seven fields costs ten times a plain one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

T = TypeVar("T")

if TYPE_CHECKING:
    from typing import dataclass_transform

    @dataclass_transform(frozen_default=True)
    def record(cls: type[T]) -> type[T]:
        """Return the class as a dataclass with equality and a hash, whose objects nobody changes."""
        return cls
else:

    def record(cls: type[T]) -> type[T]:
        """Return the class as a dataclass with equality and a hash, whose objects nobody changes."""
        return dataclass(unsafe_hash=True)(cls)
