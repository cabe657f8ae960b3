"""`apothic deployment`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from apothic.cli import ids, names
from apothic.cli.confirming import confirm, yes_option
from apothic.cli.console import print_fields, print_table, print_text, say
from apothic.cli.refreshing import show_list, watch_option
from apothic.cli.settings import Settings, common_options
from apothic.cli.watch_options import place, watch_options

if TYPE_CHECKING:
    from apothic._answers import DeploymentEnd


@click.group()
@common_options
def deployment() -> None:
    """Deployments: the immutable versions of an app."""


@deployment.command("list")
@click.option("--app", metavar="APP", help="Only those of this app.", shell_complete=names.apps)
@watch_option
@common_options
@click.pass_obj
def list_deployments(settings: Settings, app: str | None, watches: bool) -> None:
    """List the deployments that are not deleted, newest first."""
    client = settings.client()
    show_list(
        settings,
        lambda: client.list_deployments(app),
        ("DEPLOYMENT", "APP", "VERSION", "STATUS", "CREATED", "STOPPED"),
        lambda d: (d.deployment_id, d.app, str(d.version), d.status, d.created_at, d.stopped_at or "-"),
        empty="No deployments: `apothic deploy FILE` makes one.",
        watches=watches,
    )


@deployment.command()
@click.argument("deployment_id", metavar="ID", callback=ids.deployment_id, shell_complete=names.deployments)
@common_options
@click.pass_obj
def inspect(settings: Settings, deployment_id: str) -> None:
    """Show one deployment and its functions."""
    found = settings.client().get_deployment(deployment_id)
    if settings.is_for_programs:
        settings.print_document(asdict(found))
        return
    fields = {
        "deployment": found.deployment_id,
        "app": f"{found.app} version {found.version}",
        "status": found.status,
        "created": f"{found.created_at} by {found.created_by or 'unknown'}",
        "stopped": found.stopped_at,
        "deleted": found.deleted_at,
        "content of": f"version {found.restored_from}" if found.restored_from else None,
        "archive": f"sha256 {found.archive_sha256}",
        "deployed from": f"Python {found.python}, client {found.client_version}",
    }
    print_fields({name: value for name, value in fields.items() if value is not None})
    print_text("")
    print_table(
        ("FUNCTION", "CPU", "MEMORY", "TIMEOUT", "RETRIES", "RUNNERS", "TASKS", "ID"),
        [
            (
                one.name, str(one.cpu), f"{one.memory_mb} MiB", f"{one.timeout_s} s", str(one.max_retries),
                str(one.max_containers), str(one.tasks_per_container), one.function_id,
            )
            for one in found.functions
        ],
    )  # fmt: skip


@deployment.command()
@click.argument("deployment_id", metavar="ID", callback=ids.deployment_id, shell_complete=names.deployments)
@click.option("--now", is_flag=True, help="Cancel running jobs too; else they finish.")
@yes_option
@common_options
@click.pass_obj
def stop(settings: Settings, deployment_id: str, now: bool, yes: bool) -> None:
    """Let a deployment take no more calls; jobs that wait end as failed, running ones finish.

    If the app answers calls with it, calls are refused until the app is deployed again. Stopping again changes nothing.
    """
    running = "cancels its running ones" if now else "lets its running ones finish"
    question = f"Stop {deployment_id}? This ends its waiting jobs and {running}."
    confirm(settings, question, yes=yes)
    _tell(settings, settings.client().stop_deployment(deployment_id, now=now))


@deployment.command()
@click.argument("deployment_id", metavar="ID", callback=ids.deployment_id, shell_complete=names.deployments)
@click.option(
    "--now", "--force", "now", is_flag=True, help="Delete it even if it is active or has jobs, and cancel those."
)
@yes_option
@common_options
@click.pass_obj
def delete(settings: Settings, deployment_id: str, now: bool, yes: bool) -> None:
    """Delete a deployment that nothing uses; records of its jobs stay. Deleting again changes nothing."""
    confirm(settings, f"Delete {deployment_id}{' and cancel its jobs' if now else ''}?", yes=yes)
    _tell(settings, settings.client().delete_deployment(deployment_id, now=now))


@deployment.command()
@click.argument("deployment_id", metavar="ID", callback=ids.deployment_id, shell_complete=names.deployments)
@watch_options
@click.pass_obj
def watch(settings: Settings, deployment_id: str, snapshot: bool, after: int | None, types: tuple[str, ...]) -> None:
    """Show what happens to a deployment until it is deleted. Ctrl-C ends only the watching."""
    from apothic.cli.watching import watch_until_left

    events = settings.client().watch_deployment(
        deployment_id, snapshot=snapshot, last_index=place(snapshot, after), event_types=types
    )
    watch_until_left(settings, events, f"apothic deployment watch {deployment_id}", types)


def _tell(settings: Settings, end: DeploymentEnd) -> None:
    found, left = end.deployment, end.unfinished_jobs
    if settings.is_for_programs:
        settings.print_document(
            {
                "deployment_id": found.deployment_id, "app": found.app, "version": found.version,
                "status": found.status, "unfinished_jobs": left,
            }
        )  # fmt: skip
        return
    print_text(f"{found.deployment_id} (app {found.app} version {found.version}) is {found.status}")
    if left:
        say(f"{left} of its jobs {'has' if left == 1 else 'have'} not ended yet.")
