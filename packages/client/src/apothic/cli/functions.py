"""`apothic function`: the functions of live apps, and what each was deployed with."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import click

from apothic.cli import names
from apothic.cli.console import print_fields
from apothic.cli.refreshing import show_list, watch_option
from apothic.cli.settings import Settings, common_options
from apothic.cli.targets import full_name, split_name
from apothic.wire.functions import FunctionSpec

if TYPE_CHECKING:
    from apothic._answers import FunctionInfo
    from apothic.client import ControlPlaneClient

_SHOWN_ELSEWHERE = frozenset({"name", "qualname", "image", "schedule", "placement", "batching"})


@click.group()
@common_options
def function() -> None:
    """Functions of live apps."""


@function.command("list")
@click.option("--app", metavar="APP", help="Only those of this app.", shell_complete=names.apps)
@watch_option
@common_options
@click.pass_obj
def list_functions(settings: Settings, app: str | None, watches: bool) -> None:
    """List the functions of all live apps, and what each may use."""
    client = settings.client()
    show_list(
        settings,
        lambda: _functions(client, app),
        ("FUNCTION", "CPU", "MEMORY", "TIMEOUT", "RETRIES", "RUNNERS", "SCHEDULED", "ID"),
        lambda one: (
            full_name(one.app, one.name), str(one.cpu), f"{one.memory_mb} MiB", f"{one.timeout_s} s",
            str(one.max_retries), str(one.max_containers), "yes" if one.schedule else "", one.function_id,
        ),
        empty="No functions: `apothic deploy FILE` makes some.",
        watches=watches,
    )  # fmt: skip


@function.command()
@click.argument("target", metavar="APP::FUNCTION", shell_complete=names.functions_of_apps)
@common_options
@click.pass_obj
def show(settings: Settings, target: str) -> None:
    """Show a function of a live app: everything it was deployed with that differs from what is usual."""
    app, name = split_name(target)
    if name is None:
        raise click.UsageError(f"Name a function of the app too: {app}::FUNCTION. `apothic function list` shows all.")
    found = settings.client().get_function(app, name)
    if settings.is_for_programs:
        settings.print_document(asdict(found))
        return
    print_fields(
        {
            "function": full_name(found.app, found.name),
            "id": found.function_id,
            "deployment": found.deployment_id,
            "processors": str(found.cpu),
            "memory": f"{found.memory_mb} MiB",
            "time": f"{found.timeout_s} s for an attempt",
            **({"packages": ", ".join(found.image.requirements) or "none"} if found.image else {}),
            **({"runs by itself": f"`apothic schedule status {target}`"} if found.schedule else {}),
            **({"placement": ", ".join(f"{key}={value}" for key, value in found.placement.items())}
               if found.placement else {}),
            **({"batches": f"up to {found.batching.max_batch_size} calls; the first waits {found.batching.wait_ms} ms"}
               if found.batching else {}),
            **_unusual(found),
        }
    )  # fmt: skip


def _functions(client: ControlPlaneClient, app: str | None) -> list[FunctionInfo]:
    apps = [client.get_app(app)] if app is not None else client.list_apps()
    live = [one.deployment_id for one in apps if one.deployment_id is not None]
    return [function for deployment in live for function in client.get_deployment(deployment).functions]


def _unusual(found: FunctionInfo) -> dict[str, str]:
    """Return the options that differ from their defaults and are not shown by another name."""
    shown: dict[str, Any] = {
        field.name: getattr(found, field.name)
        for field in fields(FunctionSpec)
        if field.name not in _SHOWN_ELSEWHERE | {"cpu", "memory_mb", "timeout_s"}
        and getattr(found, field.name) != field.default
    }
    return {name: str(value) for name, value in shown.items()}
