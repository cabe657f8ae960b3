"""`apothic app`."""

from __future__ import annotations

from dataclasses import asdict

import click

from apothic.cli.console import print_listed, print_table, say
from apothic.cli.settings import Settings, common_options
from apothic.cli.watch_options import place, watch_options


@click.group()
@common_options
def app() -> None:
    """Apps of your organisation."""


@app.command("list")
@common_options
@click.pass_obj
def list_apps(settings: Settings) -> None:
    """List all apps and their live versions."""
    apps = settings.client().list_apps()
    if settings.is_for_programs:
        print_listed([asdict(one) for one in apps], is_jsonl=settings.is_jsonl)
        return
    if not apps:
        say("No apps yet: `apothic deploy FILE` makes one.")
        return
    print_table(
        ("APP", "VERSION", "DEPLOYMENT", "FUNCTIONS", "CREATED"),
        [
            (a.name, str(a.version or "-"), a.deployment_id or "stopped", ", ".join(a.functions), a.created_at)
            for a in apps
        ],
    )


@app.command()
@click.argument("name", metavar="NAME")
@watch_options
@click.pass_obj
def watch(settings: Settings, name: str, snapshot: bool, after: int | None, types: tuple[str, ...]) -> None:
    """Show what happens to an app, given by name or id: its deploys, stops and deletes. Ends with Ctrl-C."""
    from apothic.cli.watching import watch_until_left

    events = settings.client().watch_app(name, snapshot=snapshot, last_index=place(snapshot, after), event_types=types)
    watch_until_left(settings, events, f"apothic app watch {name}", types)
