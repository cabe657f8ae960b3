"""Showing something again and again: on a terminal drawn anew, elsewhere whenever it has changed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, TypeVar

import click

from apothic.cli.console import print_json_line, print_listed, print_table, say
from apothic.cli.failures import Interrupted
from apothic.cli.settings import Command, Settings

T = TypeVar("T")

PERIOD_S = 2.0
_CLEAR = "\x1b[H\x1b[2J"


def watch_option(command: Command) -> Command:
    """Add `--watch` to a command that prints a list."""
    return click.option(
        "-w", "--watch", "watches", is_flag=True, help="Print it again whenever it changes, until Ctrl-C."
    )(command)


def show_list(
    settings: Settings,
    read: Callable[[], Sequence[Any]],
    columns: Sequence[str],
    row: Callable[[Any], Sequence[str]],
    *,
    empty: str,
    watches: bool = False,
) -> None:
    """Print a list of dataclasses or documents, as a table or for programs.

    Args:
        row: Makes the cells of one entry.
        empty: What to say when there is none.
        watches: Print it again whenever it changes; each change is one line with `--jsonl`.
    """

    def show(found: Sequence[Any]) -> None:
        if settings.is_for_programs:
            documents = [_document(one) for one in found]
            if watches:
                print_json_line({"items": documents})
            else:
                print_listed(documents, is_jsonl=settings.is_jsonl)
        elif found:
            print_table(columns, [row(one) for one in found])
        else:
            say(empty)

    if watches:
        show_again(settings, read, show)
    else:
        show(read())


def _document(one: Any) -> Any:
    return asdict(one) if is_dataclass(one) and not isinstance(one, type) else one


def show_again(settings: Settings, read: Callable[[], T], show: Callable[[T], None]) -> None:
    """Show what is read, every `PERIOD_S` on a terminal, elsewhere whenever it has changed; ends with Ctrl-C.

    Raises:
        Interrupted: Ctrl-C.
        click.UsageError: One document was asked for.
    """
    if settings.is_json:
        raise click.UsageError("--json prints one document, and watching does not end: use --jsonl.")
    is_drawn = draws_anew(settings)
    shown: T | None = None
    try:
        while True:
            found = read()
            if is_drawn:
                sys.stdout.write(_CLEAR)
            if is_drawn or found != shown:
                show(found)
                sys.stdout.flush()
            shown = found
            time.sleep(PERIOD_S)
    except KeyboardInterrupt:
        raise Interrupted("Stopped watching.", job_id=None) from None


def draws_anew(settings: Settings) -> bool:
    """Whether stdout is a screen on which the same place can be drawn again."""
    is_plain = bool(os.environ.get("CI")) or os.environ.get("TERM") == "dumb"
    return not settings.is_for_programs and sys.stdout.isatty() and not is_plain
