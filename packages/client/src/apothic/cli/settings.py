"""Options that every command takes, before or after its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from apothic.client import ControlPlaneClient

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass
class Settings:
    """What the common options say; the `obj` of every click context.

    Attributes:
        is_json: Print one JSON document, and errors as JSON.
        is_jsonl: Print JSON in lines, as things happen where they do, and errors as JSON.
        base_url: Address of the cloud, or None to look for it.
        is_debug: Show tracebacks.
    """

    is_json: bool = False
    base_url: str | None = None
    is_debug: bool = False
    is_jsonl: bool = False

    @property
    def is_for_programs(self) -> bool:
        """Whether a program reads what is printed: no remarks, errors as JSON."""
        return self.is_json or self.is_jsonl

    def print_document(self, document: Any) -> None:
        """Print the one document of a command: over several lines, with `--jsonl` in one."""
        from apothic.cli.console import print_json, print_json_line

        if self.is_jsonl:
            print_json_line(document)
        else:
            print_json(document)

    def client(self) -> ControlPlaneClient:
        """Return a client for the chosen cloud; it refuses to unpickle anything.

        Raises:
            CloudNotRunning: Nothing names an address.
            ConfigError: An address, a credential or a file is malformed or unsafe.
        """
        from apothic.client import ControlPlaneClient

        return ControlPlaneClient(self.base_url, allow_pickle=False)


def common_options(command: Command) -> Command:
    """Add `--json`, `--jsonl`, `--base-url` and `--debug` to a command or group."""
    for option in reversed(
        (
            click.option(
                "--json", "is_json", is_flag=True, expose_value=False, callback=_set_json,
                help="Print one JSON document; errors are JSON too.",
            ),
            click.option(
                "--jsonl", "is_jsonl", is_flag=True, expose_value=False, callback=_set_jsonl,
                help="Print JSON in lines, as things happen where they do; errors are JSON too.",
            ),
            click.option(
                "--base-url", metavar="URL", expose_value=False, callback=_set_base_url,
                help="Address of the cloud.",
            ),
            click.option(
                "--debug", "is_debug", is_flag=True, expose_value=False, callback=_set_debug,
                help="Show tracebacks, as APOTHIC_DEBUG=1 does.",
            ),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def _set_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    settings = ctx.ensure_object(Settings)
    settings.is_json = settings.is_json or value
    _check_form(ctx, settings)


def with_common_options(command: click.Command) -> click.Command:
    """Add the common options to a command of another package, once."""
    taken = {name for parameter in command.params for name in parameter.opts}
    if "--json" not in taken:
        own = len(command.params)
        common_options(command)
        command.params[own:] = reversed(command.params[own:])
    return command


def _set_jsonl(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    settings = ctx.ensure_object(Settings)
    settings.is_jsonl = settings.is_jsonl or value
    _check_form(ctx, settings)


def _check_form(ctx: click.Context, settings: Settings) -> None:
    if settings.is_json and settings.is_jsonl:
        raise click.UsageError("--json prints one document, --jsonl lines. Give one of them.", ctx)


def _set_base_url(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    settings = ctx.ensure_object(Settings)
    settings.base_url = value or settings.base_url


def _set_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    settings = ctx.ensure_object(Settings)
    settings.is_debug = settings.is_debug or value
