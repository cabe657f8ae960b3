"""`apothic run FILE::NAME`: deploys a file if need be, then calls one of its functions or runs a local entrypoint."""

from __future__ import annotations

import copy
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apothic.cli.app_files import find_app, is_file, load
from apothic.cli.console import print_text, say
from apothic.cli.settings import Settings
from apothic.errors import InvalidRequestError
from apothic.wire.names import near_matches

if TYPE_CHECKING:
    from collections.abc import Generator

    from apothic._composition import LocalEntrypoint
    from apothic.app import App
    from apothic.function import Function

STDIN = "/dev/stdin"
"""What `-` stands for; `-::NAME` would be read as an option."""
_TARGET = ("function", "app_name", "is_module")
"""Values of `run` that say what is run, not how."""


def names_file(target: str) -> bool:
    """Whether a target is a file, or `-` for standard input, with or without `::NAME`."""
    file = target.partition("::")[0]
    return "::" in target or file in {"-", STDIN} or file.endswith(".py")


def run_file(
    ctx: click.Context,
    target: str,
    *,
    is_module: bool,
    call: Callable[..., None],
    check: Callable[[dict[str, Any]], None],
) -> None:
    """Deploy and call what `target` names; the words that `ctx` has left are options of it.

    Args:
        call: Calls a deployed function and prints what comes of it.
        check: Refuses options of `run` that exclude each other.

    Raises:
        InvalidRequestError: The file cannot be deployed, has no such function or entrypoint (`no_function`; the message
            names near matches), or it is not clear which one is meant (`which_function`).
    """
    settings = ctx.ensure_object(Settings)
    file, _, name = target.partition("::")
    with _path_of(file, is_module=is_module) as path:
        from apothic._sources import find_sources

        app = find_app(load(path, find_sources(path).module), path, None)
        thing = _pick(app, path, name)
        given, args, kwargs = _read(ctx, thing)
        check(given)
        if settings.base_url:
            os.environ["APOTHIC_BASE_URL"] = settings.base_url
        if _is_entrypoint(thing):
            _check_entrypoint(settings, given)
        _deploy(app, is_quiet=settings.is_for_programs or given["quiet"])
        if _is_entrypoint(thing):
            _run_entrypoint(app, thing, args, kwargs)
            return
        from apothic._results import encode_call
        from apothic.cli.payload import arguments

        payload = given.pop("payload")
        value = encode_call(args, kwargs) if payload is None else arguments(payload)
        client, function_id = app.deployed(thing.name)
        call(settings, client, client.function_by_id(function_id), value, **given)


@contextmanager
def _path_of(file: str, *, is_module: bool) -> Generator[Path]:
    """Yield the file that is meant."""
    if file in {"-", STDIN} and not is_module:
        with tempfile.TemporaryDirectory(prefix="apothic-") as folder:
            path = Path(folder) / "stdin_app.py"
            path.write_text(sys.stdin.read(), encoding="utf-8")
            yield path
        return
    if not is_module:
        if not is_file(file):
            raise click.BadParameter(f"there is no file {file}" if file else "a file stands before ::")
        yield Path(file)
        return
    parts = file.split(".")
    for base in (Path(), Path("src")):
        for path in (base.joinpath(*parts).with_suffix(".py"), base.joinpath(*parts, "__init__.py")):
            if path.is_file():
                yield path
                return
    raise click.BadParameter(f"there is no module {file} in this folder or its src")


def _pick(app: App, path: Path, name: str) -> Function[..., Any] | LocalEntrypoint[..., Any]:
    known: dict[str, Any] = {**app.functions, **app.local_entrypoints}
    if name in known:
        return known[name]
    if name:
        near = near_matches(name, list(known))
        advice = f"; did you mean {' or '.join(near)}?" if near else f"; it has {', '.join(known)}"
        raise InvalidRequestError(f"{path} has no function or entrypoint {name!r}{advice}", code="no_function")
    for found in (app.local_entrypoints, app.functions):
        if len(found) == 1:
            return next(iter(found.values()))
    if not known:
        raise InvalidRequestError(f"{path} has no function; decorate one with @app.function().", code="empty_app")
    choices = ", ".join(f"{path}::{name}" for name in known)
    raise InvalidRequestError(f"{path} has several functions; name one: {choices}.", code="which_function")


def _is_entrypoint(thing: object) -> bool:
    from apothic._composition import LocalEntrypoint

    return isinstance(thing, LocalEntrypoint)


def _read(ctx: click.Context, thing: Any) -> tuple[dict[str, Any], list[Any], dict[str, Any]]:
    """Read the words behind the target; return values of `run`, and positional and named arguments."""
    from apothic.cli.signature import arguments_of, options_of

    given = {name: value for name, value in ctx.params.items() if name not in _TARGET}
    own = [one for one in ctx.command.params if isinstance(one, click.Option) and one.name not in _TARGET]
    is_open = any(word == "--payload" or word.startswith("--payload=") for word in ctx.args) or given["payload"]
    options: list[click.Option] = [] if is_open else options_of(thing.python_function)
    taken = {spelling for option in options for spelling in (*option.opts, *option.secondary_opts)}
    left = [without for one in own if (without := _without(one, taken)).opts]
    command = click.Command(thing.name, params=[*options, *left], help=thing.python_function.__doc__)
    inner = command.make_context(f"{ctx.info_name} {ctx.params['function']}", list(ctx.args), parent=ctx.parent)
    for name, value in inner.params.items():
        if name in given and inner.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            given[name] = value
    if is_open:
        return given, [], {}
    args, kwargs = arguments_of(thing.python_function, inner)
    return given, args, kwargs


def _without(option: click.Option, taken: set[str]) -> click.Option:
    """Return an option with the spellings that are free."""
    found = copy.copy(option)
    found.opts = [spelling for spelling in option.opts if spelling not in taken]
    return found


def _deploy(app: App, *, is_quiet: bool) -> None:
    if not app.functions:
        return
    done = app.client.run(app.deploy_steps(app.client, is_quiet=True))
    if done.is_new and not is_quiet:
        say(f"{done.deployment.app} version {done.deployment.version} is live now.")


def _check_entrypoint(settings: Settings, given: dict[str, Any]) -> None:
    if settings.is_for_programs or any(given[name] for name in ("payload", "detach", "watch", "write_result")):
        raise click.UsageError("A local entrypoint runs here and prints what it prints: it takes its own options only.")


def _run_entrypoint(app: App, thing: Any, args: list[Any], kwargs: dict[str, Any]) -> None:
    """Run a local entrypoint here; what it returns is printed, unless it returns nothing."""
    result = app.run_local(entrypoint_name=thing.name, args=args, kwargs=kwargs)
    if result is not None:
        print_text(result if isinstance(result, str) else repr(result))
