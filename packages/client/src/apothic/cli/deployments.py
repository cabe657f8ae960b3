"""`apothic deployment`."""

from __future__ import annotations

from dataclasses import asdict

import click

from apothic.cli import ids
from apothic.cli.console import print_fields, print_json, print_table, print_text
from apothic.cli.settings import Settings, common_options


@click.group()
@common_options
def deployment() -> None:
    """Deployments: the immutable versions of an app."""


@deployment.command()
@click.argument("deployment_id", metavar="ID", callback=ids.deployment_id)
@common_options
@click.pass_obj
def inspect(settings: Settings, deployment_id: str) -> None:
    """Show one deployment and its functions."""
    found = settings.client().get_deployment(deployment_id)
    if settings.is_json:
        print_json(asdict(found))
        return
    print_fields(
        {
            "deployment": found.deployment_id,
            "app": f"{found.app} version {found.version}",
            "status": found.status,
            "created": f"{found.created_at} by {found.created_by or 'unknown'}",
            "archive": f"sha256 {found.archive_sha256}",
            "deployed from": f"Python {found.python}, client {found.client_version}",
        }
    )
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
