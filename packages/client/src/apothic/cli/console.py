"""What commands print: data to stdout, everything else to stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any


def print_json(document: Any) -> None:
    """Print one JSON document to stdout."""
    _print(json.dumps(document, indent=2, ensure_ascii=not _is_utf8(sys.stdout.encoding)))


def print_text(text: str) -> None:
    """Print data for people to stdout, with one line end."""
    _print(text)


def print_live(text: str) -> None:
    """Print one line of data to stdout at once, because more of it may take a while to come."""
    _print(text)
    sys.stdout.flush()


def print_lines(documents: Sequence[Any]) -> None:
    """Print JSON documents to stdout, each as one line, and let them be seen at once."""
    is_ascii = not _is_utf8(sys.stdout.encoding)
    for document in documents:
        _print(json.dumps(document, ensure_ascii=is_ascii))
    sys.stdout.flush()


def print_json_line(document: Any) -> None:
    """Print a JSON document as one line to stdout, at once."""
    print_live(json.dumps(document, separators=(",", ":"), ensure_ascii=not _is_utf8(sys.stdout.encoding)))


def say(text: str) -> None:
    """Print a remark to stderr."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def print_fields(fields: Mapping[str, str]) -> None:
    """Print names and values below each other, aligned."""
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        _print(f"{name.ljust(width)}  {value}".rstrip())


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under column names: drawn on a terminal, aligned plain text elsewhere."""
    if is_rich():
        _draw(columns, rows)
        return
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        _print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_listed(documents: Sequence[Any], *, is_jsonl: bool) -> None:
    """Print a list for programs: one document with `items`, or each as a line."""
    if not is_jsonl:
        print_json({"items": list(documents)})
        return
    for document in documents:
        print_json_line(document)


def is_rich() -> bool:
    """Whether stdout may get colours and lines: a terminal, unless one wants none or `FORCE_COLOR` wants them."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return sys.stdout.isatty() and not os.environ.get("CI") and os.environ.get("TERM") != "dumb"


def _draw(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def _print(text: str) -> None:
    try:
        print(text)  # noqa: T201
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding or "ascii"
        print(text.encode(encoding, "backslashreplace").decode(encoding))  # noqa: T201


def _is_utf8(encoding: str | None) -> bool:
    return (encoding or "").lower().replace("-", "") == "utf8"
