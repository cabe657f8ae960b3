"""`apothic run`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from apothic.cli.console import print_json, print_text, say
from apothic.cli.failures import Interrupted
from apothic.cli.logs import pages
from apothic.cli.payload import arguments
from apothic.cli.settings import Settings, common_options
from apothic.errors import ApothicError, JobCancelledError, ProtocolError, remote_error
from apothic.wire.values import RemoteError, Value

if TYPE_CHECKING:
    from apothic._answers import Outcome
    from apothic.client import ControlPlaneClient

WAIT_S = 600.0


@click.command()
@click.argument("function")
@click.option("--app-name", required=True, metavar="APP", help="App that has the function.")
@click.option("--payload", metavar="JSON|@FILE|-", help="Arguments: a JSON object with `args` and `kwargs`.")
@click.option("-d", "--detach", is_flag=True, help="Print the job's id and do not wait.")
@click.option("-q", "--quiet", is_flag=True, help="Do not print what the function wrote; --json does not either.")
@click.option(
    "--timeout-s", type=click.FloatRange(min=0, min_open=True), default=WAIT_S, show_default=True,
    help="Seconds to wait; the job goes on afterwards.",
)  # fmt: skip
@common_options
@click.pass_obj
def run(
    settings: Settings,
    function: str,
    app_name: str,
    payload: str | None,
    detach: bool,
    quiet: bool,
    timeout_s: float,
) -> None:
    """Call FUNCTION of a deployed app and print its result.

    A text result is printed as it is, any other JSON value as JSON. What the function wrote goes to stderr.

    Example: apothic run greet --app-name hello-world --payload '{"args": ["world"], "kwargs": {}}'
    """
    value = arguments(payload)
    client = settings.client()
    found = client.get_function(app_name, function)
    job_id = client.spawn(found.function_id, value)
    if detach:
        _print_detached(settings, job_id)
        return
    outcome = _wait(settings, client, job_id, timeout_s)
    if not quiet and not settings.is_json:
        _say_logs(client, job_id)
    _print_outcome(settings, outcome)


def _print_detached(settings: Settings, job_id: str) -> None:
    if settings.is_json:
        print_json({"job_id": job_id})
        return
    print_text(job_id)
    say(f"`apothic job status {job_id}` shows how it goes on, `apothic logs {job_id}` what it writes.")


def _wait(settings: Settings, client: ControlPlaneClient, job_id: str, timeout_s: float) -> Outcome:
    """Wait for the job. The first Ctrl-C cancels it and waits for its end, a second one leaves it.

    Raises:
        Interrupted: Ctrl-C; the message says what became of the job.
    """
    try:
        return client.outcome(job_id, timeout_s=timeout_s)
    except KeyboardInterrupt:
        if not settings.is_json:
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


def _say_logs(client: ControlPlaneClient, job_id: str) -> None:
    """Print what the job wrote; its outcome counts even when that cannot be read."""
    try:
        for page in pages(client, job_id):
            for line in page.lines:
                say(line.line)
    except ApothicError as error:
        say(f"The output of {job_id} cannot be read: {error}")


def _print_outcome(settings: Settings, outcome: Outcome) -> None:
    """Print the result of a job that succeeded.

    Raises:
        RemoteExecutionError: It failed or timed out.
        JobCancelledError: It was cancelled.
    """
    if outcome.status == "cancelled":
        raise JobCancelledError(f"{outcome.job_id} was cancelled.", job_id=outcome.job_id)
    if outcome.status != "succeeded":
        missing = RemoteError("apothic.Unknown", "the server gave no reason")
        raise remote_error(outcome.error or missing, job_id=outcome.job_id)
    value = outcome.value or Value("json", b"null")
    if value.encoding == "json":
        _print_result(settings, outcome, _decoded(value.data))
    else:
        _print_type(settings, outcome, value)


def _print_result(settings: Settings, outcome: Outcome, result: Any) -> None:
    if settings.is_json:
        print_json({"job_id": outcome.job_id, "status": outcome.status, "result": result})
    elif isinstance(result, str):
        print_text(result)
    else:
        print_text(json.dumps(result, ensure_ascii=False))


def _print_type(settings: Settings, outcome: Outcome, value: Value) -> None:
    """Name a result that only Python can read; nothing is unpickled here."""
    from apothic.cli.pickled import type_name

    name = type_name(value.data)
    if settings.is_json:
        found = {"encoding": value.encoding, "type": name, "size_bytes": len(value.data)}
        print_json({"job_id": outcome.job_id, "status": outcome.status, "result": None, "not_json": found})
        return
    print_text(name)
    say(f"The result is no JSON value; read it in Python: Job({outcome.job_id!r}, client).wait()")


def _decoded(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise ProtocolError("The result says that it is JSON and is not.") from None
