"""`apothic stats`: how the calls of an app went, in numbers."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from apothic.cli import names
from apothic.cli.console import print_table, say
from apothic.cli.settings import Settings, common_options
from apothic.cli.since import moment
from apothic.cli.targets import split_name

if TYPE_CHECKING:
    from apothic._job_lists import FunctionStats, Spread


@click.command()
@click.argument("target", metavar="APP[::FUNCTION]", shell_complete=names.functions_of_apps)
@click.option(
    "--since", metavar="TIME", callback=moment, default="1d", show_default=True,
    help="Only jobs made since 30s, 10m, 1h, 2d ago, or since a time.",
)  # fmt: skip
@common_options
@click.pass_obj
def stats(settings: Settings, target: str, since: str) -> None:
    """Count the jobs of an app by how they ended, and show how long they waited and ran.

    WAITED is from the call to the start, of jobs with one attempt; RAN is the last attempt of jobs that succeeded,
    failed or ran out of time. Both show what half, 90 % and 99 % of the jobs stayed within.
    """
    app, function = split_name(target)
    found = settings.client().app_stats(app, function, since=since)
    if settings.is_for_programs:
        settings.print_document(asdict(found))
        return
    if not found.is_whole:
        say(f"There are more jobs than are looked at: these are the ones since {found.since}.")
    if not found.functions:
        say(f"No jobs of {target} since {found.since}.")
        return
    print_table(
        ("FUNCTION", "JOBS", "SUCCEEDED", "FAILED", "TIMED OUT", "CANCELLED", "UNFINISHED", "WAITED", "RAN"),
        [_cells(one) for one in found.functions],
    )


def _cells(one: FunctionStats) -> tuple[str, ...]:
    ended = [one.statuses.get(name, 0) for name in ("succeeded", "failed", "timed_out", "cancelled")]
    return (
        one.function, str(one.jobs), *map(str, ended), str(one.jobs - sum(ended)), _times(one.queue_s),
        _times(one.run_s),
    )  # fmt: skip


def _times(spread: Spread | None) -> str:
    return "-" if spread is None else " / ".join(map(_seconds, (spread.p50, spread.p90, spread.p99)))


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.3g} s" if value < 1000 else f"{value:.0f} s"
