"""Environments made ready before anybody calls: asking, and waiting until they are, without I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from apothic._answers import EventRecord
from apothic._core import Core
from apothic._exchange import perform
from apothic._http import Request
from apothic._operations import ACCEPT_JSON, event_page, part, read, target
from apothic._steps import Pause, Steps
from apothic.errors import (
    ApothicError,
    CloudNotRunning,
    ConnectionLostError,
    JobTimeoutError,
    NotSupportedError,
    RemoteExecutionError,
    UnavailableError,
)

AWAY_S_MAX = 60.0
"""A server that answered and is then out of reach is asked again for so long."""

PAUSE_FIRST_S, PAUSE_S_MAX = 0.1, 0.5

_NEEDS_BUILDER = "image_needs_builder"
_LOG = "deployment.build_log"
_AWAY = (CloudNotRunning, ConnectionLostError, UnavailableError)


@dataclass(frozen=True)
class EnvironmentState:
    """How far what some functions of a deployment need is.

    Attributes:
        environment: What is installed, 32 hexadecimal digits; None when nothing is.
        functions: Names of the functions that need it.
        status: `waiting`, `building`, `ready` or `failed`.
        worker: Name of the worker that has it, builds it, or could not; None while it waits.
        reason: Why it waits, in one plain sentence.
        error: `code` and `message` of why it failed.
    """

    environment: str | None
    functions: tuple[str, ...]
    status: str
    worker: str | None
    reason: str | None
    error: dict[str, Any] | None


@dataclass(frozen=True)
class Preparation:
    """How far the environments of a deployment are.

    Attributes:
        status: `failed` when one failed, else `building` or `waiting` when one is, and `ready` when all are.
    """

    deployment_id: str
    status: str
    environments: tuple[EnvironmentState, ...]


Seen = Callable[[Preparation, Sequence[EventRecord]], None]


def prepare(core: Core, deployment_id: str) -> Steps[Preparation]:
    """Ask for what is not ready yet and return how far all of it is; asking again changes nothing."""
    path = target(core, f"/v1/deployments/{part(deployment_id)}/preparation")
    response = yield from perform(core, Request("PUT", path, (ACCEPT_JSON,), is_repeatable=True))
    return read(core, response, Preparation, 200)


def wait_ready(core: Core, deployment_id: str, timeout_s: float, seen: Seen | None = None) -> Steps[Preparation]:
    """Return when all environments of a deployment are ready; goes on over a restart of the server.

    Args:
        timeout_s: More than 0 seconds.
        seen: Told each state, with the lines that builds have written since the one before.

    Raises:
        RemoteExecutionError: A build failed; the message ends with the last lines of its log.
        NotSupportedError: Only an image builder could make it (`image_needs_builder`).
        JobTimeoutError: It is not ready after `timeout_s`; what was asked for goes on.
    """
    deadline = core.clock() + timeout_s
    answered, tries, after = None, 0, -1
    if seen is not None:
        after, _ = yield from _lines(core, deployment_id, after)
    while True:
        try:
            found = yield from prepare(core, deployment_id)
            lines: list[EventRecord] = []
            if seen is not None:
                after, lines = yield from _lines(core, deployment_id, after)
        except _AWAY:
            if answered is None or core.clock() > min(deadline, answered + AWAY_S_MAX):
                raise
            found, tries = None, tries + 1
        else:
            answered, tries = core.clock(), tries + 1
            if seen is not None:
                seen(found, lines)
            if found.status == "failed":
                raise failed(found)
            if found.status == "ready":
                return found
        left_s = deadline - core.clock()
        if left_s <= 0:
            raise JobTimeoutError(_late(deployment_id, timeout_s, found))
        yield Pause(min(left_s, PAUSE_S_MAX, PAUSE_FIRST_S * tries))


def failed(found: Preparation) -> ApothicError:
    """Return the exception for an environment that failed."""
    error = next((one.error for one in found.environments if one.error is not None), None) or {}
    code, message = error.get("code", "image_build_failed"), error.get("message", "the server does not say why")
    if code == _NEEDS_BUILDER:
        names = ", ".join(name for one in found.environments if one.error is error for name in one.functions)
        return NotSupportedError(f"The deployment is live, and calls of {names} only wait: {message}.", code=code)
    return RemoteExecutionError("builtins.RuntimeError", message, code=code)


def _late(deployment_id: str, timeout_s: float, found: Preparation | None) -> str:
    waits = [] if found is None else [one.reason for one in found.environments if one.reason is not None]
    why = f": {waits[0]}." if waits else ". What is being installed goes on."
    return f"{deployment_id} is live and not ready after {timeout_s:g} s{why}"


def _lines(core: Core, deployment_id: str, after: int) -> Steps[tuple[int, list[EventRecord]]]:
    """Return the lines of builds after an index, and up to which index that is."""
    found: list[EventRecord] = []
    while True:
        page = yield from event_page(core, f"/v1/deployments/{part(deployment_id)}/events", after, _LOG)
        found += [event for event in page.events if event.index > after]
        if page.is_final or page.last_index <= after:
            return max(after, page.last_index), found
        after = page.last_index
