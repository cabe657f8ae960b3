"""`apothic run`."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apothic.cli import names
from apothic.cli.console import print_lines, print_text, say
from apothic.cli.failures import Interrupted, ReaderLeft
from apothic.cli.finite import FiniteRange
from apothic.cli.following import read_items, show_all
from apothic.cli.payload import arguments
from apothic.cli.pickled import shape
from apothic.cli.progress import said_of
from apothic.cli.run_file import STDIN, names_file, run_file
from apothic.cli.settings import Settings, common_options
from apothic.errors import ApothicError, InvalidRequestError, JobCancelledError, ProtocolError, remote_error
from apothic.wire.large import LARGE
from apothic.wire.values import RemoteError, Value

if TYPE_CHECKING:
    from apothic._answers import FunctionInfo, Outcome
    from apothic.client import ControlPlaneClient
    from apothic.streams import JobStreamEvent

    Show = Callable[[JobStreamEvent], None]
    Follow = Callable[[ControlPlaneClient, str, float], None]

WAIT_S = 600.0
NULL = Value("json", b"null")


class _Run(click.Command):
    """Leaves what follows a target in a file alone: those are options of the function."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse up to the target when it is a file's, else all."""
        args = [STDIN + word[1:] if word.startswith("-::") else word for word in args]
        before = click.Context(self, allow_interspersed_args=False, allow_extra_args=True, ignore_unknown_options=True)
        given, _, _ = self.make_parser(before).parse_args(list(args))
        target = given.get("function")
        if given.get("is_module") or (isinstance(target, str) and names_file(target)):
            ctx.allow_interspersed_args, ctx.allow_extra_args = False, True
        return super().parse_args(ctx, args)


@click.command(cls=_Run)
@click.argument("function", metavar="FUNCTION|FILE[::NAME]", shell_complete=names.functions_of_app)
@click.option(
    "--app-name", metavar="APP", help="App that has the FUNCTION; not with a file.", shell_complete=names.apps
)
@click.option(
    "-m", "--module", "is_module", is_flag=True, help="FILE is a module such as package.app, or ::NAME of it."
)
@click.option("--payload", metavar="JSON|@FILE|-", help="Arguments: a JSON object with `args` and `kwargs`.")
@click.option("-d", "--detach", is_flag=True, help="Print the job's id and do not wait.")
@click.option("-q", "--quiet", is_flag=True, help="Do not print what the function wrote; --json does not either.")
@click.option("--watch", is_flag=True, help="Show the job's events while it runs, then the result.")
@click.option("-w", "--write-result", metavar="FILE", help="Write the result to FILE instead of printing it.")
@click.option(
    "--timeout-s", type=FiniteRange(min=0, min_open=True), default=WAIT_S, show_default=True,
    help="Seconds to wait; the job goes on afterwards.",
)  # fmt: skip
@common_options
@click.pass_context
def run(ctx: click.Context, function: str, app_name: str | None, is_module: bool, **given: Any) -> None:
    """Call FUNCTION of a deployed app, or NAME in FILE after a deploy of it, and print the result.

    A text result is printed as it is, any other JSON value as JSON. Of a function that yields, each item is printed as
    one line of JSON as it comes. What the function wrote goes to stderr, and so do the events of --watch. --json and
    --jsonl print one document with the result and nothing of what it wrote; --watch --jsonl prints each event as a
    line on stdout, the result and what it wrote among them.

    FILE is a Python file, with -m a module, or - for standard input. It is deployed first, unless it is live
    already. NAME is a function or a local entrypoint; its parameters are options behind it, which
    `apothic run FILE::NAME --help` shows.

    \b
    Example: apothic run greet --app-name hello-world --payload '{"args": ["world"], "kwargs": {}}'
             apothic run app.py::greet --name world
    """
    settings = ctx.ensure_object(Settings)
    if is_module or (app_name is None and names_file(function)):
        if app_name is not None:
            raise click.UsageError(
                "--app-name is for functions that are deployed already; a file names its app itself."
            )
        run_file(ctx, function, is_module=is_module, call=_call, check=_check)
        return
    if app_name is None:
        raise click.UsageError("Missing option '--app-name'; or give a file, as in `apothic run app.py::greet`.")
    _check(given)
    value = arguments(given.pop("payload"))
    client = settings.client()
    _call(settings, client, client.get_function(app_name, function), value, **given)


def _check(given: dict[str, Any]) -> None:
    if given["watch"] and given["detach"]:
        raise click.UsageError("--watch waits for the job and --detach does not. Give one of them.")


def _call(
    settings: Settings,
    client: ControlPlaneClient,
    found: FunctionInfo,
    value: Value,
    *,
    detach: bool,
    quiet: bool,
    watch: bool,
    write_result: str | None,
    timeout_s: float,
) -> None:
    if write_result is not None and (detach or found.is_generator or settings.is_for_programs):
        raise click.UsageError("--write-result is for one result: not with --detach, --json, --jsonl or a generator.")
    if write_result is not None:
        _check_writable(write_result)
    job_id = client.spawn(found.function_id, value)
    if detach:
        _print_detached(settings, job_id)
        return
    came: dict[str, list[Any]] = {"events": []} if watch else {"items": []} if found.is_generator else {}
    follow: Follow | None = None
    if watch:
        follow = functools.partial(_show_events, show=_shower(settings, came["events"], is_quiet=quiet))
    elif not (quiet or settings.is_for_programs):
        follow = functools.partial(show_all, name=found.name, is_generator=found.is_generator)
    elif found.is_generator:
        follow = functools.partial(read_items, items=came["items"].extend if settings.is_for_programs else print_lines)
    is_document = settings.is_json or (settings.is_jsonl and not watch)
    try:
        outcome = _wait(settings, client, job_id, timeout_s, follow)
    except (ApothicError, Interrupted) as error:
        if came and is_document:
            status = error.status if isinstance(error, Interrupted) else None
            settings.print_document({"job_id": job_id, "status": status, "result": None, **came})
        raise
    if outcome.status != "succeeded":
        if came and is_document:
            settings.print_document({"job_id": job_id, "status": outcome.status, "result": None, **came})
        raise _failure(outcome)
    if is_document:
        settings.print_document(_document(outcome, came))
    elif write_result is not None:
        _write_result(outcome, write_result)
    elif not (settings.is_jsonl or found.is_generator):
        _print_result(outcome)


def _shower(settings: Settings, events: list[dict[str, Any]], *, is_quiet: bool) -> Show:
    """Return what shows an event; people get items as they come, and the result once, after all events."""
    from apothic.cli.watching import as_line, item_document, printer
    from apothic.streams import JobLogEvent, JobResultEvent, JobStreamItemEvent

    if settings.is_for_programs:
        return printer(settings, events)
    hidden = (JobResultEvent, JobLogEvent) if is_quiet else (JobResultEvent,)

    def show(event: JobStreamEvent) -> None:
        if isinstance(event, JobStreamItemEvent):
            print_lines([item_document(event)])
        elif not isinstance(event, hidden):
            say(as_line(event))

    return show


def _print_detached(settings: Settings, job_id: str) -> None:
    if settings.is_for_programs:
        settings.print_document({"job_id": job_id})
        return
    print_text(job_id)
    say(f"`apothic job status {job_id}` shows how it goes on, `apothic logs {job_id}` what it writes.")


def _wait(
    settings: Settings, client: ControlPlaneClient, job_id: str, timeout_s: float, follow: Follow | None
) -> Outcome:
    """Wait for the job, and show what comes of it meanwhile.

    The first Ctrl-C cancels it and waits for its end, a second one leaves it. So does who no longer reads.

    Raises:
        Interrupted: Ctrl-C; the message says what became of the job.
        ReaderLeft: Nobody reads the output.
    """
    try:
        if follow is not None:
            follow(client, job_id, timeout_s)
        return client.outcome(job_id, timeout_s=timeout_s)
    except (KeyboardInterrupt, BrokenPipeError) as error:
        ended = ReaderLeft if isinstance(error, BrokenPipeError) else Interrupted
    if ended is Interrupted and not settings.is_for_programs:
        say(f"\nCancelling {job_id}; Ctrl-C again leaves it as it is.")
    status = None
    try:
        client.cancel_job(job_id)
        status = client.outcome(job_id, timeout_s=timeout_s).status
    except KeyboardInterrupt:
        what = f"Left {job_id}: `apothic job status {job_id}` shows how it goes on."
    except ApothicError as error:
        what = f"{job_id} may still run: {error}"
    else:
        what = f"{job_id} {said_of(status)}."
    raise ended(what, job_id=job_id, status=status)


def _show_events(client: ControlPlaneClient, job_id: str, timeout_s: float, show: Show) -> None:
    from apothic._events import EventReader, follow
    from apothic._position import Position

    for event in follow(client.run, EventReader(client.core, job_id, Position(), timeout_s=timeout_s)):
        show(event)


def _failure(outcome: Outcome) -> ApothicError:
    """Return the error for a job that did not succeed."""
    if outcome.status == "cancelled":
        return JobCancelledError(f"{outcome.job_id} was cancelled.", job_id=outcome.job_id)
    missing = RemoteError("apothic.Unknown", "the server gave no reason")
    return remote_error(outcome.error or missing, job_id=outcome.job_id)


def _document(outcome: Outcome, came: dict[str, list[Any]]) -> dict[str, Any]:
    value = outcome.value or NULL
    found = {"job_id": outcome.job_id, "status": outcome.status}
    if value.encoding == "json":
        return {**found, "result": _decoded(value.data), **came}
    kind, size = shape(value)
    what = {"encoding": value.encoding, "type": kind, "size_bytes": size}
    return {**found, "result": None, "not_json": what, **came}


def _print_result(outcome: Outcome) -> None:
    """Print a result; of one that only Python can read, its type. Nothing is unpickled here."""
    value = outcome.value or NULL
    if value.encoding != "json":
        kind, size = shape(value)
        print_text(f"{kind}, {size} bytes" if value.encoding == LARGE else kind)
        say(f"The result is no JSON value; read it in Python: Job({outcome.job_id!r}, client).wait()")
        return
    print_text(_as_text(value))


def _check_writable(path: str) -> None:
    """Refuse a file that nothing can be written to, before the function is called.

    Raises:
        InvalidRequestError: The file cannot be written (`file_unwritable`).
    """
    file = Path(path)
    try:
        if file.exists() and not (file.is_file() or file.is_dir()):
            return  # a pipe or a device is opened once, with something to write
        is_new = not file.exists()
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT, 0o666))
        if is_new:
            file.unlink()
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: str, error: OSError) -> InvalidRequestError:
    return InvalidRequestError(f"Cannot write {path}: {error.strerror}.", code="file_unwritable")


def _write_result(outcome: Outcome, path: str) -> None:
    """Write a result to a file: text as it is, any other JSON value as JSON.

    Raises:
        InvalidRequestError: It is no JSON value (`result_not_json`), or the file cannot be written (`file_unwritable`).
    """
    value = outcome.value or NULL
    if value.encoding != "json":
        detail = f"The result is a {shape(value)[0]}, no JSON value; Job({outcome.job_id!r}, client).wait() reads it."
        raise InvalidRequestError(detail, code="result_not_json")
    try:
        Path(path).write_text(_as_text(value), encoding="utf-8")
    except OSError as error:
        raise _unwritable(path, error) from None
    say(f"The result is in {path}.")


def _as_text(value: Value) -> str:
    result = _decoded(value.data)
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)


def _decoded(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise ProtocolError("The result says that it is JSON and is not.") from None
