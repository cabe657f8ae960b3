"""Settings of a worker process."""

from __future__ import annotations

import os
import socket
import stat
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from apothic.wire.limits import LINK_CREDITS
from apothic.wire.tokens import token_kind
from apothic_worker.lease import ALONE_S

TOKEN_VARIABLE = "APOTHIC_WORKER_TOKEN"  # noqa: S105
EXECUTORS = ("sandbox", "process")


class ConfigError(Exception):
    """A setting is missing or wrong; the text says which and what to do."""


@dataclass(frozen=True)
class Config:
    """All settings.

    Attributes:
        url: Address of the control plane, http or https; a file that holds it when the address can change.
        token: Worker token, `lw_…`; a file that holds it when it can change.
        data: Folder of this worker alone.
        executor: One of `EXECUTORS`.
        cpus: Processors to offer; None for all.
        memory_mb: MiB to offer; None for a share of the machine's.
        trust_user_code: Allow the executor `process` as root and for several orgs.
        is_local: The server runs on this host, so work goes on while it is away.
        more_urls: Further addresses of the control plane, tried when the first does not answer.
        is_leased: With `is_local`: other servers share the database, so work ends with its lease as elsewhere.
        alone_s: With `is_local`: end when nothing is held and no server was there for this long.
    """

    url: str | Path
    token: str | Path
    data: Path
    executor: str = "sandbox"
    cpus: float | None = None
    memory_mb: int | None = None
    name: str = ""
    trust_user_code: bool = False
    is_local: bool = False
    alone_s: float = ALONE_S
    more_urls: tuple[str, ...] = ()
    is_leased: bool = False
    credits: int = LINK_CREDITS

    def where(self) -> tuple[str, str]:
        """Return address and token as they are now.

        Raises:
            ConfigError: A file that holds one of them cannot be read or holds something else.
        """
        url = _read(self.url, "the address file") if isinstance(self.url, Path) else self.url
        return check_url(url), _read_token(self.token) if isinstance(self.token, Path) else self.token


def check_url(url: str) -> str:
    """Return the address without a trailing slash.

    Raises:
        ConfigError: It is no http or https address.
    """
    parts = urllib.parse.urlsplit(url)
    try:
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good or parts.query or parts.fragment or parts.username:
        raise ConfigError(f"--url {url!r} is no address of a control plane, such as http://127.0.0.1:8400")
    return url.rstrip("/")


def token_of_environment() -> str:
    """Return the worker's token from `APOTHIC_WORKER_TOKEN`, which is not passed on to any other process.

    Raises:
        ConfigError: There is none, or it is malformed.
    """
    return _checked(os.environ.pop(TOKEN_VARIABLE, ""), TOKEN_VARIABLE)


def _read_token(file: Path) -> str:
    text = _read(file, "the token file")
    if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"others may read the token file {file}; run: chmod 600 {file}")
    return _checked(text, str(file))


def _checked(token: str, source: str) -> str:
    if not token:
        raise ConfigError(f"no worker token: name a file with --token-file or set {TOKEN_VARIABLE}")
    if token_kind(token) != "lw":
        raise ConfigError(f"{source} holds no worker token; a worker token begins with lw_")
    return token


def default_name() -> str:
    """Return the host name."""
    return socket.gethostname()


def _read(file: Path, what: str) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} {file} cannot be read: {error}") from error
