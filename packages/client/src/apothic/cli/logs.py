"""`apothic logs`, and reading a job's output for other commands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from apothic.cli import ids
from apothic.cli.console import print_json, print_text
from apothic.cli.settings import Settings, common_options

if TYPE_CHECKING:
    from apothic._answers import LogPage
    from apothic.client import ControlPlaneClient


@click.command()
@click.argument("job_id", metavar="ID", callback=ids.job_id)
@common_options
@click.pass_obj
def logs(settings: Settings, job_id: str) -> None:
    """Print what a job has written so far, oldest line first."""
    client = settings.client()
    if settings.is_json:
        print_json(_document(client, job_id))
        return
    for page in pages(client, job_id):
        for line in page.lines:
            print_text(line.line)


def pages(client: ControlPlaneClient, job_id: str) -> Iterator[LogPage]:
    """Yield the pages of a job's output up to now; at least one."""
    after = -1
    while True:
        page = client.job_logs(job_id, after)
        yield page
        if page.is_final or not page.lines or page.last_index <= after:
            return
        after = page.last_index


def _document(client: ControlPlaneClient, job_id: str) -> dict[str, Any]:
    lines: list[dict[str, Any]] = []
    last_index, is_final = -1, False
    for page in pages(client, job_id):
        lines.extend(asdict(line) for line in page.lines)
        last_index, is_final = page.last_index, page.is_final
    return {"job_id": job_id, "lines": lines, "last_index": last_index, "is_final": is_final}
