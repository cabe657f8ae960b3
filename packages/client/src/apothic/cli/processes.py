"""`apothic ps`: what runs and waits now."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

import click

from apothic.cli import names
from apothic.cli.refreshing import show_list, watch_option
from apothic.cli.settings import Settings, common_options
from apothic.cli.since import age
from apothic.cli.targets import full_name

if TYPE_CHECKING:
    from apothic._job_lists import JobEntry


@click.command()
@click.option("--app", metavar="APP", help="Only jobs of this app.", shell_complete=names.apps)
@click.option("--function", metavar="FUNCTION", help="Only jobs of functions with this name.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Most jobs to list.")
@watch_option
@common_options
@click.pass_obj
def ps(settings: Settings, app: str | None, function: str | None, limit: int, watches: bool) -> None:
    """List the jobs that run and wait now, of all apps, newest first, and why those that wait do so."""
    client = settings.client()
    show_list(
        settings,
        lambda: client.list_jobs(app=app, function=function, unfinished=True, limit=limit),
        ("JOB", "FUNCTION", "STATUS", "AGE", "WAITS BECAUSE"),
        _cells,
        empty="Nothing runs or waits.",
        watches=watches,
    )


def _cells(job: JobEntry) -> tuple[str, ...]:
    now = datetime.now(timezone.utc)  # noqa: UP017 - the client also runs on 3.10
    again = f", attempt {job.attempt}" if job.attempt > 1 else ""
    return (
        job.job_id, full_name(job.app, job.function), f"{job.status}{again}", age(job.created_at, now),
        job.waiting_reason or "",
    )  # fmt: skip
