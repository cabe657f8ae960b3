"""`apothic api`."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from apothic.cli.payload import read_text
from apothic.cli.settings import Settings, common_options
from apothic.errors import InvalidRequestError, error_from_answer

_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
_WITHOUT_BODY = frozenset({"GET", "HEAD", "DELETE"})


@click.command()
@click.argument("method")
@click.argument("path")
@click.option("-f", "--field", "fields", multiple=True, metavar="KEY=VALUE", help="Query parameter, or body field.")
@click.option("--data", metavar="JSON|@FILE|-", help="JSON body; fields are query parameters then.")
@common_options
@click.pass_obj
def api(settings: Settings, method: str, path: str, fields: tuple[str, ...], data: str | None) -> None:
    """Send one request with your key and print the answer's body as it is.

    Fields go into the query of GET, HEAD and DELETE and of requests with --data; otherwise they are the JSON body.
    With --json the answer is printed as {"status", "body"}.

    Example: apothic api GET /v1/apps -f limit=10
    """
    if method.upper() not in _METHODS:
        raise click.UsageError(f"METHOD is one of {', '.join(sorted(_METHODS))}, not {method!r}.")
    if not path.startswith("/"):
        raise click.UsageError("PATH begins with a slash; the address of the cloud is --base-url.")
    pairs = _pairs(fields)
    document = _document(data) if data is not None else None
    in_query = data is not None or method.upper() in _WITHOUT_BODY
    response = settings.client().request(
        method, path, query=pairs if in_query else None, json=document if in_query else pairs
    )
    if response.status >= 400:
        raise error_from_answer(response.status, _parsed(response.body), response.headers.get("x-request-id"))
    if settings.is_for_programs:
        settings.print_document({"status": response.status, "body": _printable(response.body)})
        return
    sys.stdout.buffer.write(response.body)
    if response.body and not response.body.endswith(b"\n") and sys.stdout.isatty():
        sys.stdout.buffer.write(b"\n")


def _pairs(fields: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for field in fields:
        key, equals, value = field.partition("=")
        if not equals or not key:
            raise click.UsageError(f"-f takes KEY=VALUE, not {field!r}.")
        found[key] = value
    return found


def _document(data: str) -> Any:
    try:
        return json.loads(read_text(data))
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"--data is not JSON: {error}.") from None


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _printable(body: bytes) -> Any:
    parsed = _parsed(body)
    return parsed if parsed is not None or not body else body.decode("utf-8", "replace")
