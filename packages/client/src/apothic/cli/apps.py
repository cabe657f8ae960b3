"""`apothic app`."""

from __future__ import annotations

import click

from apothic.cli import names
from apothic.cli.refreshing import show_list, watch_option
from apothic.cli.settings import Settings, common_options
from apothic.cli.watch_options import place, watch_options


@click.group()
@common_options
def app() -> None:
    """Apps of your organisation."""


@app.command("list")
@watch_option
@common_options
@click.pass_obj
def list_apps(settings: Settings, watches: bool) -> None:
    """List all apps and their live versions."""
    show_list(
        settings,
        settings.client().list_apps,
        ("APP", "VERSION", "DEPLOYMENT", "FUNCTIONS", "CREATED"),
        lambda a: (a.name, str(a.version or "-"), a.deployment_id or "stopped", ", ".join(a.functions), a.created_at),
        empty="No apps yet: `apothic deploy FILE` makes one.",
        watches=watches,
    )


@app.command()
@click.argument("name", metavar="NAME", shell_complete=names.apps)
@watch_options
@click.pass_obj
def watch(settings: Settings, name: str, snapshot: bool, after: int | None, types: tuple[str, ...]) -> None:
    """Show what happens to an app, given by name or id: its deploys, stops and deletes. Ends with Ctrl-C."""
    from apothic.cli.watching import watch_until_left

    events = settings.client().watch_app(name, snapshot=snapshot, last_index=place(snapshot, after), event_types=types)
    watch_until_left(settings, events, f"apothic app watch {name}", types)
