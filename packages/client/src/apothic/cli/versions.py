"""`apothic history`, `apothic diff` and `apothic rollback`: the versions of an app."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from apothic.cli import names
from apothic.cli.console import print_text, say
from apothic.cli.refreshing import show_list, watch_option
from apothic.cli.settings import Settings, common_options
from apothic.errors import NotFoundError

if TYPE_CHECKING:
    from apothic._answers import DeploymentEntry
    from apothic._difference import Difference
    from apothic.client import ControlPlaneClient

_VERSION = click.IntRange(1, 2**31 - 1)


@click.command()
@click.argument("app", metavar="APP", shell_complete=names.apps)
@watch_option
@common_options
@click.pass_obj
def history(settings: Settings, app: str, watches: bool) -> None:
    """List the versions of an app that are not deleted, newest first."""
    client = settings.client()
    show_list(
        settings,
        lambda: client.list_deployments(app),
        ("VERSION", "STATUS", "CONTENT OF", "CREATED", "STOPPED", "DEPLOYMENT"),
        lambda d: (
            str(d.version), d.status, str(d.restored_from or d.version), d.created_at, d.stopped_at or "-",
            d.deployment_id,
        ),
        empty=f"App {app} has no versions: all are deleted.",
        watches=watches,
    )  # fmt: skip


@click.command()
@click.argument("app", metavar="APP", shell_complete=names.apps)
@click.option("--to", "version", type=_VERSION, metavar="VERSION", help="The one to go back to; else the one before.")
@common_options
@click.pass_obj
def rollback(settings: Settings, app: str, version: int | None) -> None:
    """Make an earlier version of an app live again, as a new version; nothing is uploaded and nothing is built.

    Jobs that run go on with the code they began with. A second rollback goes back one further.
    """
    done = settings.client().rollback(app, version)
    if settings.is_for_programs:
        settings.print_document(
            {
                "deployment_id": done.deployment_id, "app": done.app, "version": done.version,
                "restored_from": done.restored_from,
            }
        )  # fmt: skip
        return
    content = f" with the content of version {done.restored_from}" if done.restored_from else ""
    print_text(f"{done.deployment_id} (app {done.app} version {done.version}{content}) is {done.status}")


@click.command()
@click.argument("target", metavar="FILE[:VARIABLE]|APP")
@click.option("--from", "old", type=_VERSION, metavar="VERSION", help="Of APP: compare with this; else the one before.")
@click.option("--to", "new", type=_VERSION, metavar="VERSION", help="Of APP: compare this; else the live one.")
@common_options
@click.pass_obj
def diff(settings: Settings, target: str, old: int | None, new: int | None) -> None:
    """Show what a deploy of FILE would change, or what differs between two versions of APP.

    Shown are functions, their options, files, and what holds for all, such as the Python version. Nothing is uploaded.
    """
    if target.rpartition(":")[0].endswith(".py") or target.endswith(".py") or Path(target).is_file():
        if old or new:
            raise click.UsageError("--from and --to compare versions of an app; give its name instead of a file.")
        found, document = _of_file(settings, target)
    else:
        found, document = _of_versions(settings.client(), target, old, new)
    if settings.is_for_programs:
        settings.print_document({**document, "changes": None if found is None else asdict(found)})
        return
    if found is None:
        say(f"{document['app']} has no live version: a deploy would make one.")
        return
    for line in found.lines() or ["no difference"]:
        print_text(line)


def _of_file(settings: Settings, target: str) -> tuple[Difference | None, dict[str, str | int | None]]:
    from apothic._deploy import difference_to_live
    from apothic._sources import find_sources
    from apothic.cli.app_files import find_app, load, split_target

    path, variable = split_target(target)
    app = find_app(load(path, find_sources(path).module), path, variable)
    client = settings.client() if settings.base_url else app.client
    found = client.run(difference_to_live(client.core, app.name, app.manifest()))
    return found, {"app": app.name, "from_version": None, "to_version": None}


def _of_versions(
    client: ControlPlaneClient, app: str, old: int | None, new: int | None
) -> tuple[Difference, dict[str, str | int | None]]:
    from apothic._difference import difference

    known = {one.version: one for one in client.list_deployments(app)}
    newer = _picked(known, app, new) if new else _live(known, app)
    older = _picked(known, app, old) if old else _before(known, app, newer)
    before, after = (client.get_deployment(one.deployment_id).manifest for one in (older, newer))
    return difference(before, after), {"app": app, "from_version": older.version, "to_version": newer.version}


def _live(known: dict[int, DeploymentEntry], app: str) -> DeploymentEntry:
    live = next((one for one in known.values() if one.status == "active"), None)
    if live is None:
        raise NotFoundError(f"App {app} is stopped, so it has no live version: give one with --to.")
    return live


def _before(known: dict[int, DeploymentEntry], app: str, newer: DeploymentEntry) -> DeploymentEntry:
    older = max((version for version in known if version < newer.version), default=None)
    if older is None:
        raise NotFoundError(f"App {app} has no version before {newer.version}.")
    return known[older]


def _picked(known: dict[int, DeploymentEntry], app: str, version: int) -> DeploymentEntry:
    if version not in known:
        raise NotFoundError(f"App {app} has no version {version}, or it was deleted.")
    return known[version]
