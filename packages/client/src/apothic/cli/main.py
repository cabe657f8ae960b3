"""Entry point: finds the command, runs it and turns whatever happens into an exit code.

Only this module and click are imported before the command is known, so that `apothic --help` answers at once.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, cast

import click

from apothic.cli.settings import Settings, common_options, with_common_options
from apothic.wire.version import VERSION

PLUGINS = "apothic.commands"
"""Entry point group through which installed packages add commands."""

COMPLETING = "_APOTHIC_COMPLETE"
"""Set by a shell that asks for names."""

_COMMANDS = {
    "api": ("apothic.cli.api:api", "Send one request to the cloud and print the answer."),
    "app": ("apothic.cli.apps:app", "Apps of your organisation: list, watch."),
    "completion": ("apothic.cli.completion:completion", "Complete names after the Tab key: show, install."),
    "deploy": ("apothic.cli.deploy:deploy", "Upload an app file and make it the live version."),
    "deployment": ("apothic.cli.deployments:deployment", "Deployments: list, inspect, watch, stop, delete."),
    "diff": ("apothic.cli.versions:diff", "Show what a deploy would change, or what differs between two versions."),
    "doctor": ("apothic.cli.doctor:doctor", "Check this machine and the cloud; say how to fix what is wrong."),
    "dump": ("apothic.cli.dump:dump", "Write what is needed to find out what is wrong into one file, without secrets."),
    "function": ("apothic.cli.functions:function", "Functions of live apps: list, show."),
    "history": ("apothic.cli.versions:history", "List the versions of an app."),
    "group": ("apothic.cli.groups:group", "Groups, one function called for many items: list, status, watch, cancel."),
    "image": ("apothic.cli.images:image", "Packages beside functions: list, logs of builds."),
    "job": ("apothic.cli.jobs:job", "Jobs: list, status, watch, cancel, retry."),
    "login": ("apothic.cli.login:login", "Keep the address and the key of a cloud, and use it from now on."),
    "logs": ("apothic.cli.logs:logs", "Print the output of a job, an app, a function or a deployment."),
    "open": ("apothic.cli.opening:open_thing", "Print the address of a job, a deployment, a function or an app."),
    "profile": ("apothic.cli.profiles:profile", "The clouds you use from here: list, use, show, remove."),
    "ps": ("apothic.cli.processes:ps", "List the jobs that run and wait now, and why they wait."),
    "rollback": ("apothic.cli.versions:rollback", "Make an earlier version of an app live again."),
    "run": ("apothic.cli.run:run", "Call a deployed function and print its result."),
    "schedule": ("apothic.cli.schedules:schedule", "Schedules: list, status, pause, resume, run."),
    "stats": ("apothic.cli.stats:stats", "Count the calls of an app, and show how long they waited and ran."),
    "status": ("apothic.cli.status:status", "Show the cloud, your identity and the workers."),
    "top": ("apothic.cli.top:top", "Show what runs and waits by function, and the workers, until Ctrl-C."),
    "worker": ("apothic.cli.workers:worker", "Workers on other hosts: token, join, list, drain, resume, remove."),
    "version": ("apothic.cli.version:version", "Print the version."),
    "whoami": ("apothic.cli.login:whoami", "Show which cloud answers and whom it takes you for."),
}
_SERVER_COMMANDS = {
    "backup": "Copy the cloud of this machine, running or not.",
    "down": "Stop the cloud that runs on this machine.",
    "restore": "Make a cloud of a backup.",
    "up": "Run a cloud on this machine.",
}


class ServerMissing(click.ClickException):
    """A command of the server was asked for and the server is not installed."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"`apothic {name}` needs the server, which is not installed: run `pip install apothic-server=={VERSION}`."
        )


class _Commands(click.Group):
    """Loads a command's module only when the command is invoked."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({**_COMMANDS, **_SERVER_COMMANDS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _COMMANDS:
            module, _, name = _COMMANDS[cmd_name][0].partition(":")
            return cast("click.Command", getattr(importlib.import_module(module), name))
        return _plugin(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            if name in _SERVER_COMMANDS:
                raise ServerMissing(name)
            from apothic.wire.names import near_matches

            near = " or ".join(f"`apothic {other}`" for other in near_matches(name, self.list_commands(ctx)))
            raise click.UsageError(f"There is no command `{name}`.{f' Did you mean {near}?' if near else ''}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        summaries = {name: summary for name, (_, summary) in _COMMANDS.items()} | _SERVER_COMMANDS
        with formatter.section("Commands"):
            formatter.write_dl(sorted(summaries.items()))


@click.group(
    name="apothic",
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 ok, 1 error, 2 usage, 3 auth, 4 forbidden, 5 not found, 6 conflict, 7 quota, 8 validation, "
    "9 unavailable, 10 still running, 100 remote failed, 103 cancelled, 130 Ctrl-C.",
)
@click.version_option(VERSION, "--version", prog_name="apothic", message="%(prog)s %(version)s")
@common_options
def cli() -> None:
    """Deploy Python functions to a compute cloud and call them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; never raises.

    Args:
        argv: Arguments without the program's name, by default those of this process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    settings = Settings(
        is_json=_asks_for(arguments, "--json"),
        is_debug=os.environ.get("APOTHIC_DEBUG") == "1",
        is_jsonl=_asks_for(arguments, "--jsonl"),
    )
    try:
        if COMPLETING in os.environ:
            from apothic.cli.completing import register

            register()
        result: Any = cli.main(args=arguments, prog_name="apothic", standalone_mode=False, obj=settings)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except BaseException as error:  # the last place that can keep a traceback away from people
        from apothic.cli.failures import report

        return report(error, settings)


def _asks_for(arguments: Sequence[str], option: str) -> bool:
    """Whether an option makes errors JSON, known even when the arguments turn out to be wrong."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return option in options


def _plugin(name: str) -> click.Command | None:
    from importlib.metadata import entry_points

    for entry in entry_points(group=PLUGINS, name=name):
        return with_common_options(cast("click.Command", entry.load()))
    return None
