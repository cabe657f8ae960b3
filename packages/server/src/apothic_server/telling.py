"""What the commands of the server tell: a document for programs; of a failure one sentence, a code and a status."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from typing import Any, Protocol

import click

from apothic_server.domain.errors import PlatformError

EXIT_CODES = {
    "port_in_use": 6,
    "data_folder_busy": 6,
    "data_folder_owner": 4,
    "unavailable": 9,
    "store_crashed": 9,
    "invalid_option": 2,
    "failpoints_refused": 2,
}
"""Exit codes by error code, as in the CLI reference; everything else is 1."""


class UpFailed(click.ClickException):
    """A start or stop that failed, as one sentence with an exit status and a code of its own."""

    def __init__(self, message: str, exit_code: int, code: str) -> None:
        super().__init__(message)
        self.code = code
        setattr(self, "exit_code", exit_code)  # noqa: B010 - click declares it for the class


class Form(Protocol):
    """What the command line was asked to print; its common options."""

    is_for_programs: bool

    def print_document(self, document: Any) -> None:
        """Print the one document of a command."""
        ...


@contextlib.contextmanager
def telling_failure(ready_fd: int | None = None) -> Generator[None]:
    """Tell an error of ours as one sentence with its code and exit status, also to who waits at `ready_fd`."""
    try:
        yield
    except PlatformError as error:
        failed = UpFailed(f"{error.detail} [{error.code}]", EXIT_CODES.get(error.code, 1), error.code)
        tell(ready_fd, f"{failed.exit_code} {failed.code} {failed.message}")
        raise failed from error


def tell(ready_fd: int | None, text: str) -> None:
    """Write to the pipe of who waits for the start, if somebody does, and close it."""
    if ready_fd is not None:
        with contextlib.suppress(OSError):
            os.write(ready_fd, text.encode())
            os.close(ready_fd)
