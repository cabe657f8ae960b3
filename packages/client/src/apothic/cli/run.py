"""`apothic run`."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from apothic.cli.console import print_json, print_lines, print_text, say
from apothic.cli.failures import Interrupted
from apothic.cli.logs import pages
from apothic.cli.payload import arguments
from apothic.cli.settings import Settings, common_options, jsonl_option
from apothic.errors import ApothicError, JobCancelledError, ProtocolError, remote_error
from apothic.wire.values import RemoteError, Value

if TYPE_CHECKING:
    from apothic._answers import Outcome
    from apothic.client import ControlPlaneClient
    from apothic.streams import JobStreamEvent

    Show = Callable[[JobStreamEvent], None]
    Follow = Callable[[ControlPlaneClient, str, float], None]

WAIT_S = 600.0


@click.command()
@click.argument("function")
@click.option("--app-name", required=True, metavar="APP", help="App that has the function.")
@click.option("--payload", metavar="JSON|@FILE|-", help="Arguments: a JSON object with `args` and `kwargs`.")
@click.option("-d", "--detach", is_flag=True, help="Print the job's id and do not wait.")
@click.option("-q", "--quiet", is_flag=True, help="Do not print what the function wrote; --json does not either.")
@click.option("--watch", is_flag=True, help="Show the job's events while it runs, then the result.")
@click.option(
    "--timeout-s", type=click.FloatRange(min=0, min_open=True), default=WAIT_S, show_default=True,
    help="Seconds to wait; the job goes on afterwards.",
)  # fmt: skip
@jsonl_option
@common_options
@click.pass_obj
def run(
    settings: Settings,
    function: str,
    app_name: str,
    payload: str | None,
    detach: bool,
    quiet: bool,
    watch: bool,
    timeout_s: float,
) -> None:
    """Call FUNCTION of a deployed app and print its result.

    A text result is printed as it is, any other JSON value as JSON. Of a function that yields, each item is printed as
    one line of JSON as it comes. What the function wrote goes to stderr, and so do the events of --watch; with --jsonl
    they go to stdout, and the result is among them.

    Example: apothic run greet --app-name hello-world --payload '{"args": ["world"], "kwargs": {}}'
    """
    _refuse_contradictions(settings, watch=watch, detach=detach)
    value = arguments(payload)
    client = settings.client()
    found = client.get_function(app_name, function)
    job_id = client.spawn(found.function_id, value)
    if detach:
        _print_detached(settings, job_id)
        return
    events: list[dict[str, Any]] = []
    items: list[Any] = []
    follow = None
    if watch:
        follow = functools.partial(_show_events, show=_shower(settings, events, is_quiet=quiet))
    elif found.is_generator:
        follow = functools.partial(_print_items, items=items if settings.is_json else None)
    outcome = _wait(settings, client, job_id, timeout_s, follow)
    if not (quiet or watch or settings.is_json):
        _say_logs(client, job_id)
    more = {"items": items} if found.is_generator and not watch else {}
    _print_outcome(settings, outcome, {"events": events} if watch else more, shows_result=not found.is_generator)


def _refuse_contradictions(settings: Settings, *, watch: bool, detach: bool) -> None:
    if watch and detach:
        raise click.UsageError("--watch waits for the job and --detach does not. Give one of them.")
    if settings.is_jsonl and not watch:
        raise click.UsageError("--jsonl prints events and needs --watch.")


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
    if settings.is_json:
        print_json({"job_id": job_id})
        return
    print_text(job_id)
    say(f"`apothic job status {job_id}` shows how it goes on, `apothic logs {job_id}` what it writes.")


def _wait(
    settings: Settings, client: ControlPlaneClient, job_id: str, timeout_s: float, follow: Follow | None
) -> Outcome:
    """Wait for the job, and show what comes of it meanwhile.

    The first Ctrl-C cancels it and waits for its end, a second one leaves it.

    Raises:
        Interrupted: Ctrl-C; the message says what became of the job.
    """
    try:
        if follow is not None:
            follow(client, job_id, timeout_s)
        return client.outcome(job_id, timeout_s=timeout_s)
    except KeyboardInterrupt:
        if not settings.is_for_programs:
            say(f"\nCancelling {job_id}; Ctrl-C again leaves it as it is.")
    try:
        client.cancel_job(job_id)
        outcome = client.outcome(job_id, timeout_s=timeout_s)
    except KeyboardInterrupt:
        what = f"Left {job_id}: `apothic job status {job_id}` shows how it goes on."
    except ApothicError as error:
        what = f"{job_id} may still run: {error}"
    else:
        what = f"{job_id} is {outcome.status}."
    raise Interrupted(what, job_id=job_id)


def _print_items(client: ControlPlaneClient, job_id: str, timeout_s: float, items: list[Any] | None) -> None:
    """Print each item on a line as it comes, or put all into `items`; how the job ended is for others to tell."""
    from apothic._items import ItemEvents, ItemSource
    from apothic.cli.watching import not_json

    source = ItemSource(client.core, ItemEvents(client.core, job_id, -1, timeout_s=timeout_s), "raise", tells_end=False)
    try:
        while (chunks := client.run(source.more())) is not None:
            for chunk in chunks:
                shown = chunk.items if chunk.is_json else [not_json(item) for item in chunk.items]
                if items is not None:
                    items += shown
                else:
                    print_lines(shown)
    finally:
        source.close()


def _show_events(client: ControlPlaneClient, job_id: str, timeout_s: float, show: Show) -> None:
    from apothic._events import EventReader, follow
    from apothic._position import Position

    for event in follow(client.run, EventReader(client.core, job_id, Position(), timeout_s=timeout_s)):
        show(event)


def _say_logs(client: ControlPlaneClient, job_id: str) -> None:
    """Print what the job wrote; its outcome counts even when that cannot be read."""
    try:
        for page in pages(client, job_id):
            for line in page.lines:
                say(line.line)
    except ApothicError as error:
        say(f"The output of {job_id} cannot be read: {error}")


def _print_outcome(settings: Settings, outcome: Outcome, more: dict[str, Any], *, shows_result: bool) -> None:
    """Print the result of a job that succeeded; one JSON document gets the fields in `more` too.

    Raises:
        RemoteExecutionError: It failed or timed out.
        JobCancelledError: It was cancelled.
    """
    if outcome.status == "cancelled":
        raise JobCancelledError(f"{outcome.job_id} was cancelled.", job_id=outcome.job_id)
    if outcome.status != "succeeded":
        missing = RemoteError("apothic.Unknown", "the server gave no reason")
        raise remote_error(outcome.error or missing, job_id=outcome.job_id)
    if settings.is_jsonl or not (shows_result or settings.is_json):
        return
    value = outcome.value or Value("json", b"null")
    if value.encoding == "json":
        _print_result(settings, outcome, _decoded(value.data), more)
    else:
        _print_type(settings, outcome, value, more)


def _print_result(settings: Settings, outcome: Outcome, result: Any, more: dict[str, Any]) -> None:
    if settings.is_json:
        print_json({"job_id": outcome.job_id, "status": outcome.status, "result": result, **more})
    elif isinstance(result, str):
        print_text(result)
    else:
        print_text(json.dumps(result, ensure_ascii=False))


def _print_type(settings: Settings, outcome: Outcome, value: Value, more: dict[str, Any]) -> None:
    """Name a result that only Python can read; nothing is unpickled here."""
    from apothic.cli.pickled import type_name

    name = type_name(value.data)
    if settings.is_json:
        found = {"encoding": value.encoding, "type": name, "size_bytes": len(value.data)}
        print_json({"job_id": outcome.job_id, "status": outcome.status, "result": None, "not_json": found, **more})
        return
    print_text(name)
    say(f"The result is no JSON value; read it in Python: Job({outcome.job_id!r}, client).wait()")


def _decoded(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise ProtocolError("The result says that it is JSON and is not.") from None
