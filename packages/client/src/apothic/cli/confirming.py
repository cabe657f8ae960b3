"""Asking before something is ended or deleted: on a terminal only, so that nothing hangs in a script."""

from __future__ import annotations

import sys

import click

from apothic.cli.console import say
from apothic.cli.failures import ERROR, Stopped
from apothic.cli.settings import Command, Settings


def yes_option(command: Command) -> Command:
    """Add `--yes` to a command that asks first."""
    return click.option("-y", "--yes", is_flag=True, help="Do it without asking.")(command)


def confirm(settings: Settings, question: str, *, yes: bool) -> None:
    """Return when it is to be done.

    Raises:
        click.UsageError: Nobody can be asked, and `--yes` was not given.
        Stopped: The answer is no.
    """
    if yes:
        return
    if settings.is_for_programs or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError("This asks first, and nobody can answer here: give --yes.")
    if not click.confirm(question, err=True):
        say("Nothing was changed.")
        raise Stopped(ERROR)
