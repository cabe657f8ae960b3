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

TOKEN_VARIABLE = "APOTHIC_WORKER_TOKEN"  # noqa: S105
EXECUTORS = ("sandbox", "process")


class ConfigError(Exception):
    """A setting is missing or wrong; the text says which and what to do."""


@dataclass(frozen=True)
class Config:
    """All settings.

    Attributes:
        url: Address of the control plane, http or https.
        token: Worker token, `lw_…`.
        data: Folder of this worker alone.
        executor: One of `EXECUTORS`.
        cpus: Processors to offer; None for all.
        memory_mb: MiB to offer; None for a share of the machine's.
        trust_user_code: Allow the executor `process` as root and for several orgs.
        is_local: The server runs on this host, so work goes on while it is away.
        exit_with_parent: End when the process that started this one ends.
    """

    url: str
    token: str
    data: Path
    executor: str = "sandbox"
    cpus: float | None = None
    memory_mb: int | None = None
    name: str = ""
    trust_user_code: bool = False
    is_local: bool = False
    exit_with_parent: bool = False
    credits: int = LINK_CREDITS


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


def read_token(file: Path | None) -> str:
    """Return the worker's token from a file that only its owner can read, else from `APOTHIC_WORKER_TOKEN`.

    Raises:
        ConfigError: There is none, others could read it, or it is malformed.
    """
    if file is None:
        token = os.environ.pop(TOKEN_VARIABLE, "")
        source = TOKEN_VARIABLE
    else:
        token, source = _read_private(file), str(file)
    if not token:
        raise ConfigError(f"no worker token: name a file with --token-file or set {TOKEN_VARIABLE}")
    if token_kind(token) != "lw":
        raise ConfigError(f"{source} holds no worker token; a worker token begins with lw_")
    return token


def default_name() -> str:
    """Return the host name."""
    return socket.gethostname()


def _read_private(file: Path) -> str:
    try:
        mode = file.stat().st_mode
        text = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the token file {file} cannot be read: {error}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"others may read the token file {file}; run: chmod 600 {file}")
    return text
