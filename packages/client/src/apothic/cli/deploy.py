"""`apothic deploy`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apothic.cli.app_files import app_file, find_app, load
from apothic.cli.console import print_fields, print_text, say
from apothic.cli.finite import FiniteRange
from apothic.cli.readying import Readying
from apothic.cli.settings import Settings, common_options
from apothic.wire.limits import READY_WAIT_S_DEFAULT, READY_WAIT_S_MAX

if TYPE_CHECKING:
    from apothic._archive import Packed
    from apothic._deploy import Deployed
    from apothic._packages import Packages
    from apothic._preparing import Preparation
    from apothic.app import App


@click.command()
@click.argument("file", metavar="FILE[:VARIABLE]", callback=app_file)
@click.option("--dry-run", is_flag=True, help="Load the file and list what would be uploaded; talk to nobody.")
@click.option("--force", is_flag=True, help="Make a new version even if nothing changed.")
@click.option("--wait", is_flag=True, help="Return when the packages of its functions are installed somewhere.")
@click.option(
    "--timeout-s", type=FiniteRange(min=0, min_open=True, max=READY_WAIT_S_MAX),
    help=f"With --wait: seconds to wait at most (default: {READY_WAIT_S_DEFAULT:g}).",
)  # fmt: skip
@common_options
@click.pass_obj
def deploy(
    settings: Settings,
    file: tuple[Path, str | None],
    dry_run: bool,
    force: bool,
    wait: bool,
    timeout_s: float | None,
) -> None:
    """Upload the app that FILE defines, make it the live version, and say what changed.

    Uploaded are FILE and what it imports from its project. Functions without an image get the installed packages that
    these files import, at the versions you have. The app is found by itself unless the file defines several; name its
    variable then.

    Example: apothic deploy app.py
    """
    path, variable = file
    if dry_run and wait:
        raise click.UsageError("--dry-run deploys nothing that one could wait for.")
    if timeout_s is not None and not wait:
        raise click.UsageError("--timeout-s is for --wait.")
    from apothic._sources import find_sources

    sources = find_sources(path)
    _say_notes(settings, sources.notes)
    app = find_app(load(path, sources.module), path, variable)
    if dry_run:
        _dry_run(settings, app)
        return
    client = settings.client() if settings.base_url else app.client
    done = client.run(app.deploy_steps(client, is_quiet=True, compares=True, if_changed=not force))
    _say_notes(settings, done.packages.notes)
    if not settings.is_for_programs:
        _print(done)
    readying = Readying(client, done.deployment.deployment_id)
    try:
        if wait:
            readying.wait(timeout_s or READY_WAIT_S_DEFAULT, is_quiet=settings.is_for_programs)
    finally:  # the version is live, whatever became of its packages
        if settings.is_for_programs:
            settings.print_document(_document(done, readying.last))
    if wait and not settings.is_for_programs:
        print_text(f"{'ready'.ljust(len('deployment'))}  {readying.where()}")


def _dry_run(settings: Settings, app: App) -> None:
    from apothic._archive import describe

    _, packed, packages = app.planned()
    _say_notes(settings, packages.notes)
    if settings.is_for_programs:
        settings.print_document(_files(packed, packages))
        return
    for file in packed.files:
        print_text(f"{file.size_bytes:>10}  {file.path}")
    say(f"Would upload {describe(packed.files)}.")
    if packages.requirements:
        say(f"Would install for functions without an image: {', '.join(packages.requirements)}.")


def _say_notes(settings: Settings, notes: Iterable[str]) -> None:
    """Say what is left out; a JSON document has the notes itself."""
    if not settings.is_for_programs:
        for note in notes:
            say(f"Note: {note}")


def _print(done: Deployed) -> None:
    from apothic._archive import describe

    uploads = amount = describe(done.packed.files)
    if done.was_present:
        uploads = f"nothing, the cloud has the {amount} already"
    elif done.uploaded_bytes < done.packed.size_bytes:
        uploads = (
            f"{amount}; {done.uploaded_bytes:,} of the {done.packed.size_bytes:,} bytes they are packed into were sent"
        )
    version = f"{done.deployment.app} version {done.deployment.version}"
    print_fields(
        {
            "deployment": done.deployment.deployment_id,
            "app": version if done.is_new else f"{version} is live already, and nothing changed",
            "functions": ", ".join(one.name for one in done.deployment.functions),
            **({"packages": ", ".join(done.packages.requirements)} if done.packages.requirements else {}),
            "uploads": uploads,
        }
    )
    for line in done.difference.lines() if done.difference is not None and done.is_new else ():
        print_text(f"  {line}")


def _document(done: Deployed, preparation: Preparation | None) -> dict[str, Any]:
    return {
        "deployment_id": done.deployment.deployment_id,
        "app": done.deployment.app,
        "version": done.deployment.version,
        "functions": [one.name for one in done.deployment.functions],
        "archive_sha256": done.packed.sha256,
        "archive_was_present": done.was_present,
        "uploaded_bytes": done.uploaded_bytes,
        "is_new": done.is_new,
        "changes": None if done.difference is None else asdict(done.difference),
        "preparation": None if preparation is None else asdict(preparation),
        **_files(done.packed, done.packages),
    }


def _files(packed: Packed, packages: Packages) -> dict[str, Any]:
    return {
        "module": packed.module,
        "files": [asdict(file) for file in packed.files],
        "size_bytes": packed.files_size_bytes,
        "packages": list(packages.requirements),
        "notes": [*packed.notes, *packages.notes],
    }
