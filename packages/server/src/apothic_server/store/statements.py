"""Named SQL: every query has a name, one purpose and one home in `store/sql/`.

A file holds one resource. Each query begins with a header line and reaches to the next header:

    -- name: get_app
    SELECT id, name FROM apps WHERE org = $1 AND name = $2

    SQL = load("apps")
    row = await connection.fetchrow(SQL["get_app"], org, name)

Comments before the first header belong to the file. A misspelt name fails with the names that exist.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources

_HEADER = re.compile(r"^--\s*name:[ \t]*(?P<name>.*?)[ \t]*$", re.MULTILINE)
_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Statements(Mapping[str, str]):
    """The queries of one file by name, in the order of the file.

    Args:
        resource: Name of the file, shown in errors.
        queries: Text by name.
    """

    def __init__(self, resource: str, queries: Mapping[str, str]) -> None:
        self.resource = resource
        self._queries = dict(queries)

    def __getitem__(self, name: str) -> str:
        try:
            return self._queries[name]
        except KeyError:
            known = ", ".join(self._queries) or "none"
            raise KeyError(f"{self.resource}.sql has no query {name!r}; it has {known}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._queries)

    def __len__(self) -> int:
        return len(self._queries)


@cache
def load(resource: str) -> Statements:
    """Return the queries of `store/sql/<resource>.sql`; read once per process.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A header is malformed, a name is used twice, or a query is empty.
    """
    file = resources.files("apothic_server.store").joinpath("sql", f"{resource}.sql")
    return parse(resource, file.read_text(encoding="utf-8"))


def parse(resource: str, text: str) -> Statements:
    """Split the text of one file into its queries.

    Raises:
        ValueError: As for `load`.
    """
    queries: dict[str, str] = {}
    headers = list(_HEADER.finditer(text))
    ends = [header.start() for header in headers[1:]] + [len(text)]
    for header, end in zip(headers, ends, strict=True):
        name, query = header["name"], text[header.end() : end].strip().rstrip(";")
        if _NAME.fullmatch(name) is None or name in queries or not query:
            raise ValueError(f"{resource}.sql: query {name!r} is empty, named twice or misnamed")
        queries[name] = query
    return Statements(resource, queries)
