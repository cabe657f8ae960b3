"""Files of apps as commands take them: `FILE` or `FILE:VARIABLE`, loaded as far as their definitions go."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import click

from apothic.errors import ApothicError, InvalidRequestError

if TYPE_CHECKING:
    from apothic.app import App


def app_file(_: click.Context, __: click.Parameter, value: str) -> tuple[Path, str | None]:
    """Return what `split_target` does; the callback of an argument."""
    return split_target(value)


def split_target(value: str) -> tuple[Path, str | None]:
    """Return the file and the variable of `FILE` or `FILE:VARIABLE`.

    Raises:
        click.BadParameter: There is no such file, or the variable's name is none.
        InvalidRequestError: Nobody can tell whether there is such a file (`file_unreadable`).
    """
    head, colon, variable = value.rpartition(":")
    if not colon or not head.endswith(".py") or is_file(value):
        head, variable = value, None
    if not is_file(head):
        raise click.BadParameter(f"there is no file {head}")
    if variable is not None and not variable.isidentifier():
        raise click.BadParameter(f"{variable!r} is not the name of a variable")
    return Path(head), variable


def is_file(path: str) -> bool:
    """Whether there is a file.

    Raises:
        InvalidRequestError: Nobody can tell, for example because its folder may not be looked into (`file_unreadable`).
    """
    try:
        return Path(path).is_file()
    except OSError as error:
        raise InvalidRequestError(f"Cannot read {path}: {error.strerror}.", code="file_unreadable") from None


def load(path: Path, module: str) -> ModuleType:
    """Run the app's file as far as its definitions go; what it prints goes to stderr.

    Raises:
        InvalidRequestError: The file raised something of its own (`load_failed`).
    """
    from apothic._loading import load_file, load_module

    base = path.resolve().parents[module.count(".")]
    try:
        with _stdout_to_stderr():
            return load_file(path) if "." not in module else load_module(base, module)
    except KeyboardInterrupt:
        raise
    except ApothicError as error:
        from apothic.cli.explaining import locate

        error.args = (locate(str(error), error, base) or str(error),)
        raise
    except BaseException as error:  # whatever a user's file raises, SystemExit included
        from apothic.cli.explaining import explain

        raise InvalidRequestError(explain(error, path, base), code="load_failed") from error


@contextmanager
def _stdout_to_stderr() -> Generator[None]:
    """Send to stderr what this process and those it starts meanwhile print, whatever they print it with."""
    kept = None
    with suppress(OSError):  # there is no stdout
        kept = os.dup(1)
        os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        if sys.__stdout__ is not None:
            sys.__stdout__.flush()
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)


def find_app(module: ModuleType, path: Path, variable: str | None) -> App:
    """Return the app that a module defines."""
    from apothic.app import App

    apps = {name: value for name, value in vars(module).items() if isinstance(value, App)}
    if variable is not None:
        if variable not in apps:
            raise InvalidRequestError(f"{path} has no App called {variable!r}{_known(apps)}.", code="no_app")
        return apps[variable]
    if not apps:
        raise InvalidRequestError(f'{path} defines no App: it needs a line like app = App("name").', code="no_app")
    if len({id(app) for app in apps.values()}) > 1:
        choices = " or ".join(f"{path}:{name}" for name in apps)
        raise InvalidRequestError(f"{path} defines several apps: deploy {choices}.", code="several_apps")
    return next(iter(apps.values()))


def _known(apps: dict[str, App]) -> str:
    return f"; it has {', '.join(apps)}" if apps else ""
