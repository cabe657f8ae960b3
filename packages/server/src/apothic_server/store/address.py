"""Where a PostgreSQL server is and who we are there; the same for the embedded server and for one of your own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from apothic_server.store.errors import StoreError

_TLS_OPTIONS = frozenset({"sslmode", "sslrootcert", "sslcert", "sslkey"})


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAddress:
    """One database on one server.

    Attributes:
        host: Name or address of the machine, or the absolute path of the folder that holds the socket.
        port: TCP port; for a socket it is part of the socket's name.
        user: Role that owns the tables.
        password: Never shown by `repr`.
        database: Name of the database.
        tls: Options of a `postgresql://` URL about TLS (`sslmode`, `sslrootcert`, `sslcert`, `sslkey`).
    """

    host: str
    port: int = 5432
    user: str
    password: str = field(default="", repr=False)
    database: str
    tls: Mapping[str, str] = field(default_factory=dict[str, str])

    @staticmethod
    def from_url(url: str) -> StoreAddress:
        """Read `postgresql://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=…`; `?host=/folder` names a socket folder.

        Raises:
            StoreError: `store_url`; the sentence never repeats the URL, which may hold a password.
        """
        try:
            parts = urlsplit(url)
            port = parts.port or 5432
            options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        except ValueError as error:
            raise _bad_url("it cannot be read") from error
        if parts.scheme not in ("postgresql", "postgres"):
            raise _bad_url("it does not begin with postgresql://")
        host = options.pop("host", "") or parts.hostname or ""
        user, database = unquote(parts.username or ""), unquote(parts.path.removeprefix("/"))
        if not host or not user or not database:
            raise _bad_url("it needs a host, a user and a database")
        if unknown := sorted(set(options) - _TLS_OPTIONS):
            raise _bad_url(f"it has unknown options: {', '.join(unknown)}")
        password = unquote(parts.password or "")
        return StoreAddress(host=host, port=port, user=user, password=password, database=database, tls=options)

    def with_database(self, database: str) -> StoreAddress:
        """Return the same server and user with another database."""
        return replace(self, database=database)

    def connect_args(self) -> dict[str, Any]:
        """Return the keyword arguments of `asyncpg.connect` and `asyncpg.create_pool`."""
        args: dict[str, Any] = {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            # An empty password would let the driver look into the environment and the home folder.
            "password": self.password or (lambda: ""),
            "database": self.database,
        }
        if self.tls:
            args["dsn"] = f"postgresql://?{urlencode(self.tls)}"
        return args


def _bad_url(reason: str) -> StoreError:
    return StoreError(f"the store's URL is not usable: {reason}", code="store_url")
