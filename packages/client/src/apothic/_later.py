"""Modules that are imported when something of them is used first.

Whoever only declares functions, as a runner does, needs a third of this package. Type checkers see the modules
themselves: `if TYPE_CHECKING: from apothic import _calls`, and in the `else` of that `_calls = later("_calls")`.
"""

from __future__ import annotations

import importlib
from typing import Any


class Later:
    """Stands for a module of this package; what was used once is an attribute like any other."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __getattr__(self, name: str) -> Any:
        found = getattr(importlib.import_module(f"apothic.{self.__name__}"), name)
        setattr(self, name, found)
        return found


def later(name: str) -> Later:
    """Return what stands for the module `apothic.<name>`."""
    return Later(name)
