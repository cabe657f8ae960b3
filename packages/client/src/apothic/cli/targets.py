"""What commands are about, as people write it: `APP`, `APP::FUNCTION`."""

from __future__ import annotations

from collections.abc import Iterable

import click

from apothic.errors import NotFoundError
from apothic.wire.names import near_matches

BETWEEN = "::"


def full_name(app: str, function: str) -> str:
    """Return how a function of an app is written everywhere; `split_name` reads it."""
    return f"{app}{BETWEEN}{function}"


def split_name(target: str) -> tuple[str, str | None]:
    """Return the app and the function that `APP[::FUNCTION]` names.

    Raises:
        click.BadParameter: One of the names is empty.
    """
    app, between, function = target.partition(BETWEEN)
    if not app or (between and not function):
        raise click.BadParameter(f"{target!r} is not like APP or APP::FUNCTION")
    return app, function or None


def nothing_named(kind: str, name: str, known: Iterable[str], command: str) -> NotFoundError:
    """Return the error that nothing of a kind has a name; it says which names are near, or which command lists all."""
    near = near_matches(name, known)
    advice = f"Did you mean {' or '.join(near)}?" if near else f"`{command}` shows all."
    return NotFoundError(f"There is no {kind} {name!r}. {advice}", code="not_found")
