"""`apothic job`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from apothic.cli import ids, names
from apothic.cli.console import print_fields, print_json, print_text, say
from apothic.cli.failures import Stopped
from apothic.cli.refreshing import show_list, watch_option
from apothic.cli.settings import Settings, common_options
from apothic.cli.since import moment
from apothic.cli.targets import full_name


@click.group()
@common_options
def job() -> None:
    """Jobs: the calls of functions."""


@job.command("list")
@click.option("--app", metavar="APP", help="Only jobs of this app.", shell_complete=names.apps)
@click.option("--function", metavar="FUNCTION", help="Only jobs of functions with this name.")
@click.option("--group", metavar="ID", help="Only items of this group that have a record of their own.")
@click.option("--status", metavar="STATUS", help="Only jobs with this status, for example running.")
@click.option("--since", metavar="TIME", callback=moment, help="Only jobs made since 10m, 1h, 2d ago, or since a time.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="Most jobs to list.")
@watch_option
@common_options
@click.pass_obj
def list_jobs(settings: Settings, watches: bool, **filters: Any) -> None:
    """List jobs, newest first."""
    client = settings.client()
    show_list(
        settings,
        lambda: client.list_jobs(**filters),
        ("JOB", "FUNCTION", "STATUS", "ATTEMPT", "CREATED", "FINISHED"),
        lambda j: (
            j.job_id, full_name(j.app, j.function), j.status, str(j.attempt), j.created_at, j.finished_at or "-",
        ),
        empty="No such jobs.",
        watches=watches,
    )  # fmt: skip


@job.command()
@click.argument("job_id", metavar="ID", callback=ids.job_id, shell_complete=names.jobs)
@common_options
@click.pass_obj
def status(settings: Settings, job_id: str) -> None:
    """Show how far a job is, and why when it waits or failed."""
    found = settings.client().get_job(job_id)
    if settings.is_for_programs:
        settings.print_document(asdict(found))
        return
    fields = {
        "job": found.job_id,
        "function": full_name(found.app, found.function),
        "status": found.status,
        "attempt": str(found.attempt),
        "called by": found.parent_job_id,
        "depth": str(found.depth) if found.depth else None,
        "waits because": found.waiting_reason,
        "error": f"{found.error.get('type')}: {found.error.get('message')}" if found.error else None,
        "created": found.created_at,
        "started": found.started_at,
        "finished": found.finished_at,
        "deployment": found.deployment_id,
        "retry of": found.retry_of,
        "schedule": found.schedule_id,
        "due": found.due_at,
    }
    print_fields({name: value for name, value in fields.items() if value is not None})


@job.command()
@click.argument("job_id", metavar="ID", callback=ids.job_id, shell_complete=names.jobs)
@click.option("--snapshot", is_flag=True, help="Begin with the job as it is now and go on behind that.")
@click.option("--last-index", type=click.IntRange(min=-1), metavar="N", help="Go on after the event with this index.")
@click.option("--types", metavar="A,B", help="Show only these events, for example job.log,job.end.")
@common_options
@click.pass_obj
def watch(settings: Settings, job_id: str, snapshot: bool, last_index: int | None, types: str | None) -> None:
    """Show a job's events until it ends: what it wrote as plain text, anything else after its name.

    Ends as the job did: 0, 100 when it failed, 103 when it was cancelled. Ctrl-C ends only the watching.
    """
    if snapshot and last_index is not None:
        raise click.UsageError("--snapshot begins with the present; --last-index with the past. Give one of them.")
    _end_as(_watch(settings, job_id, snapshot=snapshot, last_index=last_index, types=_names(types)))


def _end_as(status: str) -> None:
    """End the command with the exit code of a job that ended so."""
    if status != "succeeded":
        from apothic.cli.watching import exit_code_of

        raise Stopped(exit_code_of(status))


def _watch(settings: Settings, job_id: str, *, snapshot: bool, last_index: int | None, types: tuple[str, ...]) -> str:
    """Show events and return how the job ended."""
    from apothic.cli.watching import Watching, interrupted, printer
    from apothic.job import Job

    client = settings.client()
    wanted = (*types, "job.end") if types else ()
    documents: list[dict[str, Any]] = []
    shows_end = not types or "job.end" in types
    watching = Watching(
        printer(settings, documents), last_index=-1 if last_index is None else last_index, shows_end=shows_end
    )
    try:
        watching.run(Job(job_id, client).watch(snapshot=snapshot, last_index=last_index, event_types=wanted))
        status = watching.status or client.get_job(job_id).status
    except KeyboardInterrupt:
        _print_watched(settings, job_id, None, documents, watching.last_index)
        raise interrupted(job_id, watching.last_index, types) from None
    _print_watched(settings, job_id, status, documents, watching.last_index)
    return status


def _print_watched(
    settings: Settings, job_id: str, status: str | None, events: list[dict[str, Any]], last_index: int
) -> None:
    if settings.is_json:
        print_json({"job_id": job_id, "status": status, "events": events, "last_index": last_index})


def _names(types: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in types.split(",")) if types is not None else ()


@job.command()
@click.argument("job_id", metavar="ID", callback=ids.job_id, shell_complete=names.jobs)
@common_options
@click.pass_obj
def cancel(settings: Settings, job_id: str) -> None:
    """Ask a job to end; asking again, or after its end, changes nothing."""
    now = settings.client().cancel_job(job_id)
    if settings.is_for_programs:
        settings.print_document({"job_id": job_id, "status": now})
    else:
        print_text(f"{job_id} is {now}")


@job.command()
@click.argument("job_id", metavar="ID", callback=ids.job_id, shell_complete=names.jobs)
@click.option("--watch", "watches", is_flag=True, help="Show the new job's events until it ends, and end as it does.")
@common_options
@click.pass_obj
def retry(settings: Settings, job_id: str, watches: bool) -> None:
    """Call the function of an ended job again with the same arguments, as a new job, and print that job's id."""
    made = settings.client().retry_job(job_id)
    if watches:
        if not settings.is_for_programs:
            say(f"{made} retries {job_id}")
        _end_as(_watch(settings, made, snapshot=False, last_index=None, types=()))
    elif settings.is_for_programs:
        settings.print_document({"job_id": made, "retry_of": job_id})
    else:
        print_text(made)
