"""`apothic version`."""

from __future__ import annotations

import platform
from typing import Any

import click

from apothic.cli.console import print_text
from apothic.cli.settings import Settings, common_options
from apothic.wire.version import VERSION


@click.command()
@common_options
@click.pass_obj
def version(settings: Settings) -> None:
    """Print the version of this program; asks nobody."""
    found: dict[str, Any] = {
        "version": VERSION,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }
    if settings.is_for_programs:
        settings.print_document(found)
    else:
        print_text(f"apothic {VERSION} (Python {found['python']}, {found['platform']})")
