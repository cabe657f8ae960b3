"""Waiting until a deployment is ready: the lines of its builds and one line of progress, or a line for each change."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from apothic.cli.console import say
from apothic.cli.failures import Interrupted
from apothic.cli.progress import elapsed, fitted, is_terminal
from apothic.errors import NotSupportedError, RemoteExecutionError

if TYPE_CHECKING:
    from apothic._answers import EventRecord
    from apothic._preparing import EnvironmentState, Preparation
    from apothic.client import ControlPlaneClient

_CLEAR = "\r\x1b[2K"
_NAMES_SHOWN = 3


class Readying:
    """Waits for one deployment.

    Attributes:
        last: What the server said last; None before its first answer.
    """

    def __init__(self, client: ControlPlaneClient, deployment_id: str) -> None:
        self.last: Preparation | None = None
        self._client = client
        self._deployment_id = deployment_id
        self._told: set[str] = set()
        self._is_live = is_terminal()
        self._began = time.monotonic()

    def wait(self, timeout_s: float, *, is_quiet: bool) -> None:
        """Return when it is ready; shows how far it is on stderr unless `is_quiet`.

        Raises:
            Interrupted: Ctrl-C; the deployment stays live, and what was asked for goes on.
            ApothicError: As `apothic._preparing.wait_ready`.
        """
        from apothic._preparing import wait_ready

        seen = self._keep if is_quiet else self._show
        try:
            self._client.run(wait_ready(self._client.core, self._deployment_id, timeout_s, seen))
        except KeyboardInterrupt:
            left = f"Stopped waiting. {self._deployment_id} is live; the same command goes on waiting."
            raise Interrupted(left, job_id=None) from None
        except (RemoteExecutionError, NotSupportedError):
            if not is_quiet:
                say(f"{self._deployment_id} is live all the same; `apothic rollback APP` goes back to the one before.")
            raise
        finally:
            if not is_quiet:
                self._clear()

    def where(self) -> str:
        """Return on which worker what is."""
        found = () if self.last is None else self.last.environments
        if len(found) == 1:
            return f"on worker {found[0].worker}"
        return "; ".join(f"{_names(one)} on worker {one.worker}" for one in found)

    def _keep(self, found: Preparation, _: Sequence[EventRecord]) -> None:
        self.last = found

    def _show(self, found: Preparation, lines: Sequence[EventRecord]) -> None:
        self.last = found
        self._clear()
        if self._is_live:
            for line in lines:
                say(f"  {line.data['line']}")
        unready = [_state_line(one) for one in found.environments if one.status in ("waiting", "building")]
        if not self._is_live:
            self._tell(unready)
        elif unready:
            _write(fitted(f"{unready[0]}, {elapsed(time.monotonic() - self._began)}"))

    def _tell(self, unready: Sequence[str]) -> None:
        """Say what was not said yet, numbers aside."""
        for text in unready:
            if (words := re.sub("[0-9]+", "", text)) not in self._told:
                self._told.add(words)
                say(text)

    def _clear(self) -> None:
        if self._is_live:
            _write(_CLEAR)


def _state_line(one: EnvironmentState) -> str:
    """Return why some functions are not ready, in one line."""
    if one.status == "waiting":
        return f"{_names(one)}: waits: {one.reason or 'the server does not say why'}"
    return f"{_names(one)}: worker {one.worker} installs the packages"


def _names(one: EnvironmentState) -> str:
    more = len(one.functions) - _NAMES_SHOWN
    return ", ".join(one.functions[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
