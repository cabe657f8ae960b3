"""`apothic deploy`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from apothic.cli.console import print_fields, print_text, say
from apothic.cli.settings import Settings, common_options
from apothic.errors import ApothicError, InvalidRequestError

if TYPE_CHECKING:
    from apothic._archive import Packed
    from apothic._deploy import Deployed
    from apothic.app import App


def _app_file(_: click.Context, __: click.Parameter, value: str) -> tuple[Path, str | None]:
    """Return the file and the variable of `FILE` or `FILE:VARIABLE`."""
    head, colon, variable = value.rpartition(":")
    if not colon or not head.endswith(".py") or Path(value).exists():
        head, variable = value, None
    if not Path(head).is_file():
        raise click.BadParameter(f"there is no file {head}")
    if variable is not None and not variable.isidentifier():
        raise click.BadParameter(f"{variable!r} is not the name of a variable")
    return Path(head), variable


@click.command()
@click.argument("file", metavar="FILE[:VARIABLE]", callback=_app_file)
@click.option("--dry-run", is_flag=True, help="List the files that would be uploaded; talk to nobody.")
@common_options
@click.pass_obj
def deploy(settings: Settings, file: tuple[Path, str | None], dry_run: bool) -> None:
    """Upload the app that FILE defines and make it the live version.

    Uploaded are FILE and what it imports from its project, never installed packages. The app is found by itself unless
    the file defines several; name its variable then.

    Example: apothic deploy app.py
    """
    path, variable = file
    if dry_run:
        _dry_run(settings, path)
        return
    from apothic._sources import find_sources

    sources = find_sources(path)
    _say_notes(settings, sources.notes)
    app = _find_app(_load(path, sources.module), path, variable)
    client = settings.client() if settings.base_url else app.client
    done = client.run(app.deploy_steps(client, is_quiet=True))
    if settings.is_for_programs:
        settings.print_document(_document(done))
    else:
        _print(done)


def _dry_run(settings: Settings, path: Path) -> None:
    from apothic._archive import describe, pack

    packed = pack(path)
    _say_notes(settings, packed.notes)
    if settings.is_for_programs:
        settings.print_document(_files(packed))
        return
    for file in packed.files:
        print_text(f"{file.size_bytes:>10}  {file.path}")
    say(f"Would upload {describe(packed.files)}.")


def _say_notes(settings: Settings, notes: Iterable[str]) -> None:
    """Say what is left out; a JSON document has the notes itself."""
    if not settings.is_for_programs:
        for note in notes:
            say(f"Note: {note}")


def _load(path: Path, module: str) -> ModuleType:
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


def _find_app(module: ModuleType, path: Path, variable: str | None) -> App:
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


def _print(done: Deployed) -> None:
    from apothic._archive import describe

    amount = describe(done.packed.files)
    print_fields(
        {
            "deployment": done.deployment.deployment_id,
            "app": f"{done.deployment.app} version {done.deployment.version}",
            "functions": ", ".join(one.name for one in done.deployment.functions),
            "uploads": f"nothing, the cloud has the {amount} already" if done.was_present else amount,
        }
    )


def _document(done: Deployed) -> dict[str, Any]:
    return {
        "deployment_id": done.deployment.deployment_id,
        "app": done.deployment.app,
        "version": done.deployment.version,
        "functions": [one.name for one in done.deployment.functions],
        "archive_sha256": done.packed.sha256,
        "archive_was_present": done.was_present,
        **_files(done.packed),
    }


def _files(packed: Packed) -> dict[str, Any]:
    return {
        "module": packed.module,
        "files": [asdict(file) for file in packed.files],
        "size_bytes": packed.files_size_bytes,
        "notes": list(packed.notes),
    }
