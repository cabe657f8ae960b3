"""Environments that workers keep: listed, and removed when nobody needs them, without I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from apothic._core import Core
from apothic._exchange import perform
from apothic._http import Request
from apothic._operations import ACCEPT_JSON, get, read, target
from apothic._steps import Steps

T = TypeVar("T")

_PATH = "/v1/environments"


@dataclass(frozen=True)
class HeldEnvironment:
    """One environment on one worker.

    Attributes:
        environment: What is installed, 32 hexadecimal digits.
        size_bytes: Of its files; what environments share counts in each.
        is_in_use: A process on the worker has it loaded.
        is_needed: A live deployment needs it.
    """

    worker: str
    environment: str
    size_bytes: int
    built_at: str
    used_at: str
    is_in_use: bool
    is_needed: bool


@dataclass(frozen=True)
class HeldEnvironments:
    """Environments on workers.

    Attributes:
        freed_bytes: By how much the disk use of the workers went down.
        unanswered: Names of workers that are linked and did not answer in time.
        is_known: False from a server that does not dispatch: workers are linked to another one.
    """

    items: tuple[HeldEnvironment, ...]
    freed_bytes: int
    unanswered: tuple[str, ...]
    is_known: bool


def list_held(core: Core) -> Steps[HeldEnvironments]:
    """Return what workers have."""
    return get(core, HeldEnvironments, _PATH)


def prune(core: Core) -> Steps[HeldEnvironments]:
    """Remove what no live deployment needs and nobody uses; return that."""
    response = yield from perform(core, Request("DELETE", target(core, _PATH), (ACCEPT_JSON,), is_repeatable=True))
    return read(core, response, HeldEnvironments, 200)


class EnvironmentMethods:
    """The methods of the blocking client about environments."""

    @property
    def core(self) -> Core:
        """What all operations share."""
        raise NotImplementedError

    def run(self, steps: Steps[T]) -> T:
        """Perform an operation."""
        raise NotImplementedError

    def list_environments(self) -> HeldEnvironments:
        """Return the environments of the key's org on the workers that are linked; asks them for at most 5 seconds."""
        return self.run(list_held(self.core))

    def prune_environments(self) -> HeldEnvironments:
        """Remove the environments that no live deployment needs and nobody uses; return them. Asking twice is fine.

        Needed are those of active deployments and of deployments that have unfinished jobs. What is removed and wanted
        later is built again. Takes up to 45 seconds; a worker that does not answer in time may go on.
        """
        return self.run(prune(self.core))
