"""`apothic open`: the address of a thing."""

from __future__ import annotations

import sys

import click

from apothic.cli.console import print_text, say
from apothic.cli.settings import Settings, common_options
from apothic.errors import NotSupportedError
from apothic.wire.names import is_app_name

PATHS = {"jobs": "jobs", "deployments": "deployments", "functions": "functions", "schedules": "schedules"}


@click.command("open")
@click.argument("thing", metavar="[ID]", required=False)
@click.option("--print", "prints", is_flag=True, help="Print the address only; open nothing.")
@common_options
@click.pass_obj
def open_thing(settings: Settings, thing: str | None, prints: bool) -> None:
    """Print the address of a job, a deployment, a function, a schedule or an app, after looking that it exists.

    There is no dashboard yet, so it is the address in the API, which wants a key and is of no use in a browser. Without
    ID it is that of the description of the API, which everybody may read; on a terminal that is opened in a browser.
    """
    client = settings.client()
    if client.endpoint.socket is not None:
        raise NotSupportedError("Inside a function the cloud has no address that a browser could open.")
    path = "/v1/openapi.json" if thing is None else _path(thing)
    answer = client.request("GET", path)
    if answer.status >= 400:
        from apothic._exchange import failure

        raise failure(client.core, answer)
    url = f"{client.base_url}{path}"
    opens = thing is None and not prints and not settings.is_for_programs and sys.stdout.isatty()
    if opens:
        import webbrowser

        opens = webbrowser.open(url)
    if settings.is_for_programs:
        settings.print_document({"url": url, "opened": opens})
        return
    print_text(url)
    if thing is not None:
        say(f"There is no dashboard yet. This is its address in the API: `apothic api GET {path}` shows it.")


def _path(thing: str) -> str:
    table, colon, key = thing.partition(":")
    if colon and table in PATHS and key:
        return f"/v1/{PATHS[table]}/{thing}"
    if not colon and is_app_name(thing):
        return f"/v1/apps/{thing}"
    raise click.BadParameter(f"{thing!r} is no app and no id that begins with one of {', '.join(PATHS)}")
