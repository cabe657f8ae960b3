"""`apothic logs`: what a job has written, or all jobs of an app, a function or a deployment."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from apothic.cli import names
from apothic.cli.console import print_json, print_json_line, print_live, print_text
from apothic.cli.interrupts import guarded
from apothic.cli.settings import Settings, common_options
from apothic.cli.since import moment

if TYPE_CHECKING:
    from apothic._answers import LogLine


@dataclass(frozen=True)
class Wanted:
    """Which lines are shown: times are UTC text with milliseconds, so their order is that of the text."""

    search: str = ""
    since: str = ""
    until: str = "~"

    def lets_pass(self, line: LogLine) -> bool:
        """Whether a line is shown."""
        return self.search in line.line and self.since <= line.time <= self.until


@click.command()
@click.argument("target", metavar="TARGET", shell_complete=names.outputs)
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines; of a job until it ends.")
@click.option("-n", "--tail", type=click.IntRange(min=0), metavar="N", help="Begin with the last N lines.")
@click.option(
    "--since", metavar="TIME", callback=moment, help="Only lines written since 30s, 10m, 1h, 2d ago, or since a time."
)
@click.option("--until", metavar="TIME", callback=moment, help="Only lines written until then.")
@click.option("--timestamps", is_flag=True, help="Print when each line was written, in UTC.")
@click.option("--search", metavar="TEXT", help="Only lines that contain TEXT, upper and lower case told apart.")
@click.option(
    "--jobs", "jobs_max", type=click.IntRange(1, 10_000), metavar="N",
    help="Of an app, a function or a deployment: look at the newest N jobs, by default 100, and at all that run.",
)  # fmt: skip
@common_options
@click.pass_obj
def logs(
    settings: Settings,
    target: str,
    follow: bool,
    tail: int | None,
    since: str | None,
    until: str | None,
    timestamps: bool,
    search: str | None,
    jobs_max: int | None,
) -> None:
    """Print what was written so far, oldest line first: by a job, or by the jobs of an app, a function, a deployment.

    TARGET is the id of a job, a deployment or a function, or APP, or APP::FUNCTION.
    With --follow, Ctrl-C ends only the following; jobs go on.
    """
    if follow and until:
        raise click.UsageError("--follow goes on, --until ends. Give one of them.")
    wanted = Wanted(search or "", since or "", until or "~")
    if target.startswith("jobs:"):
        if jobs_max is not None:
            raise click.UsageError("--jobs is about several jobs, and TARGET is one.")
        from apothic.cli.job_logs import show_job

        show_job(settings, target, wanted, tail=tail, follow=follow, timestamps=timestamps)
        return
    from apothic.cli.many_logs import show_many

    show_many(settings, target, wanted, tail=tail, follow=follow, timestamps=timestamps, jobs_max=jobs_max or 100)


def show_lines(lines: Iterable[Any], show: Callable[[Any], None], shown: Callable[[Any], None]) -> None:
    """Show each line; a Ctrl-C comes between them, and `shown` is told what was shown."""
    with guarded() as interrupts:
        for line in lines:
            with interrupts.held():
                show(line)
                shown(line)


def shower(
    settings: Settings, documents: list[dict[str, Any]], *, timestamps: bool, is_live: bool, prefix: str = ""
) -> Callable[[Any], None]:
    """Return what shows one line; for one JSON document lines are only put into `documents`.

    Args:
        prefix: What stands before a line, made from its fields.
    """
    if settings.is_json:
        return lambda line: documents.append(asdict(line))
    if settings.is_jsonl:
        return lambda line: print_json_line(asdict(line))
    write = print_live if is_live else print_text
    pattern = f"{'{time} ' if timestamps else ''}{prefix}{{line}}"
    return lambda line: write(pattern.format_map(asdict(line)))


def print_document(settings: Settings, document: dict[str, Any]) -> None:
    """Print the document of a command whose lines were put into it."""
    if settings.is_json:
        print_json(document)
