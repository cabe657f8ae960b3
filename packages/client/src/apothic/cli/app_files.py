"""Files of apps as commands take them: `FILE` or `FILE:VARIABLE`, loaded as far as their definitions go."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
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
    """
    head, colon, variable = value.rpartition(":")
    if not colon or not head.endswith(".py") or Path(value).exists():
        head, variable = value, None
    if not Path(head).is_file():
        raise click.BadParameter(f"there is no file {head}")
    if variable is not None and not variable.isidentifier():
        raise click.BadParameter(f"{variable!r} is not the name of a variable")
    return Path(head), variable


def load(path: Path, module: str) -> ModuleType:
    """Run the app's file as far as its definitions go; what it prints goes to stderr.

    Raises:
        InvalidRequestError: The file raised something of its own (`load_failed`).
    """
    from apothic._loading import load_file, load_module

    try:
        with redirect_stdout(sys.stderr):
            if "." not in module:
                return load_file(path)
            return load_module(path.resolve().parents[module.count(".")], module)
    except (ApothicError, KeyboardInterrupt):
        raise
    except BaseException as error:  # whatever a user's file raises, SystemExit included
        base = path.resolve().parents[module.count(".")]
        raise InvalidRequestError(_explain(error, path, base), code="load_failed") from error


def _explain(error: BaseException, path: Path, base: Path) -> str:
    """Say what stopped the file, and the last line of the project's own code that was reached."""
    import traceback

    name, text = type(error).__name__, str(error)
    what = f"{name}: {text}" if text else name
    files = [(Path(frame.filename), frame) for frame in traceback.extract_tb(error.__traceback__)]
    own = [frame for file, frame in files if base in file.parents and "site-packages" not in file.parts]
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {error.msg}\n    {(error.text or '').strip()}"
    if not own:
        return f"{path} cannot be loaded: {what}"
    return f"{own[-1].filename}:{own[-1].lineno}: {what}\n    {own[-1].line}"


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
