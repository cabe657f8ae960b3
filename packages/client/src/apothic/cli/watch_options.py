"""Options of commands that watch an app or a deployment."""

from __future__ import annotations

import click

from apothic.cli.settings import Command, common_options


def watch_options(command: Command) -> Command:
    """Add `--snapshot`, `--after`, `--types` and the common options."""
    for option in (
        common_options,
        click.option("--types", metavar="A,B", callback=_names, help="Show only these events."),
        click.option(
            "--after", "--last-index", "after", type=click.IntRange(min=-1), metavar="N",
            help="Go on after the event with this index.",
        ),
        click.option("--snapshot", is_flag=True, help="Begin with what is now and go on behind that."),
    ):  # fmt: skip
        command = option(command)
    return command


def place(snapshot: bool, after: int | None) -> int | None:
    """Return where to begin.

    Raises:
        click.UsageError: There are two places.
    """
    if snapshot and after is not None:
        raise click.UsageError("--snapshot begins with the present; --after with the past. Give one of them.")
    return after


def _names(_: click.Context, __: click.Parameter, types: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in types.split(",")) if types is not None else ()
