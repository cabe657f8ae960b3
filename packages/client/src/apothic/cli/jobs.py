"""`apothic job`."""

from __future__ import annotations

from dataclasses import asdict

import click

from apothic.cli import ids
from apothic.cli.console import print_fields, print_json, print_text
from apothic.cli.settings import Settings, common_options


@click.group()
@common_options
def job() -> None:
    """Jobs: the calls of functions."""


@job.command()
@click.argument("job_id", metavar="ID", callback=ids.job_id)
@common_options
@click.pass_obj
def status(settings: Settings, job_id: str) -> None:
    """Show how far a job is, and why when it waits or failed."""
    found = settings.client().get_job(job_id)
    if settings.is_json:
        print_json(asdict(found))
        return
    fields = {
        "job": found.job_id,
        "function": f"{found.app}.{found.function}",
        "status": found.status,
        "attempt": str(found.attempt),
        "waits because": found.waiting_reason,
        "error": f"{found.error.get('type')}: {found.error.get('message')}" if found.error else None,
        "created": found.created_at,
        "started": found.started_at,
        "finished": found.finished_at,
        "deployment": found.deployment_id,
    }
    print_fields({name: value for name, value in fields.items() if value is not None})


@job.command()
@click.argument("job_id", metavar="ID", callback=ids.job_id)
@common_options
@click.pass_obj
def cancel(settings: Settings, job_id: str) -> None:
    """Ask a job to end; asking again, or after its end, changes nothing."""
    now = settings.client().cancel_job(job_id)
    if settings.is_json:
        print_json({"job_id": job_id, "status": now})
    else:
        print_text(f"{job_id} is {now}")
