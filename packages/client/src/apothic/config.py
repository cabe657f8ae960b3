"""Which cloud to talk to and with which credential.

Addresses are looked for in this order: `base_url=`, `APOTHIC_BASE_URL`, inside a function the Unix socket that
`APOTHIC_API_SOCKET` names, the profile of `~/.config/apothic/config.toml` that `APOTHIC_PROFILE` names or that is the
active one there, `~/.apothic/endpoint.json` (written by a running `apothic up`). A stored key goes only to the address
stored beside it. Credentials given by argument come before variables, and those before stored keys; within one source
the header comes before the token and the token before the key.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from apothic.errors import CloudNotRunning, ConfigError
from apothic.wire.attempts import SOCKET_VARIABLE

FILE_BYTES_MAX = 1024 * 1024
NOT_RUNNING = "No cloud is configured and none runs on this machine: start one with `apothic up`."

_URL = re.compile(r"(https?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?(/[!-~]*)?", re.IGNORECASE)
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Endpoint:
    """One address and what to send to it.

    Attributes:
        url: Address as shown to people, without a trailing slash.
        scheme: `http` or `https`.
        host: Host name or address, IPv6 without brackets.
        port: 1 to 65,535.
        prefix: Path put before every request path; empty or beginning with a slash.
        authorization: Verbatim value of the `Authorization` header, or None.
        source: Where the address came from, for people.
        pid: Process that serves it, when `endpoint.json` says so.
        values: Unix socket on which a server on this machine takes and gives large values; from `endpoint.json`.
        socket: Unix socket to dial instead of host and port; whoever serves it knows the caller without a credential.
    """

    url: str
    scheme: str
    host: str
    port: int
    prefix: str = ""
    authorization: str | None = field(default=None, repr=False)
    source: str = "base_url"
    pid: int | None = None
    socket: str | None = None
    values: str | None = None

    @property
    def netloc(self) -> str:
        """Value of the `Host` header."""
        return _netloc(self.scheme, self.host, self.port)


@dataclass(frozen=True)
class Stored:
    """An address and its key as a file holds them."""

    url: str
    key: str | None = field(repr=False)
    source: str
    pid: int | None = None
    values: str | None = None


def resolve(
    base_url: str | None = None,
    *,
    api_key: str | None = None,
    auth_token: str | None = None,
    auth_header: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Endpoint:
    """Return the address and credential to use now; reads files only when arguments and variables leave a gap.

    Raises:
        CloudNotRunning: Nothing names an address.
        ConfigError: An address, a credential or a file is malformed or unsafe, or a credential is given inside a
            function and no address is.
    """
    env = os.environ if environ is None else environ
    given = authorization(api_key, auth_token, auth_header)
    from_env = authorization(env.get("APOTHIC_API_KEY"), env.get("APOTHIC_AUTH_TOKEN"), env.get("APOTHIC_AUTH_HEADER"))
    env_url = env.get("APOTHIC_BASE_URL") or None
    if base_url is not None:
        return _for_url(base_url, "base_url", given or _if_same(base_url, env_url, from_env), env)
    if env_url is not None:
        return _for_url(env_url, "APOTHIC_BASE_URL", given or from_env, env)
    path = env.get(SOCKET_VARIABLE)
    if path:
        return _for_socket(path, given)
    for stored in stored_endpoints(env):
        key = given or from_env or authorization(stored.key, None, None)
        return _at(stored, stored.url, stored.source, key)
    raise CloudNotRunning(NOT_RUNNING)


def authorization(api_key: str | None, auth_token: str | None, auth_header: str | None) -> str | None:
    """Return the `Authorization` value of one source; empty text counts as not given.

    Raises:
        ConfigError: The credential holds characters that no header may carry.
    """
    value = auth_header or (f"Bearer {auth_token or api_key}" if auth_token or api_key else None)
    if value is not None and not (value.isascii() and value.isprintable()):
        raise ConfigError("The credential holds characters that cannot be sent; copy it again without line breaks.")
    return value


def parse_url(
    url: str, *, source: str = "base_url", authorization: str | None = None, pid: int | None = None
) -> Endpoint:
    """Return the parts of a base URL.

    Raises:
        ConfigError: `url` is not `http(s)://host[:port][/prefix]`.
    """
    match = _URL.fullmatch(url.strip())
    port = int(match[3]) if match and match[3] else 0
    if match is None or port > 65_535 or (match[3] and port == 0) or any(mark in (match[4] or "") for mark in "?#@"):
        raise ConfigError(
            f"{source}: {url!r} is not an address like http://127.0.0.1:8400 or https://cloud.example.com"
        )
    scheme, host, prefix = match[1].lower(), match[2].strip("[]").lower(), (match[4] or "").rstrip("/")
    port = port or _PORTS[scheme]
    shown = f"{scheme}://{_netloc(scheme, host, port)}{prefix}"
    return Endpoint(shown, scheme, host, port, prefix, authorization, source, pid)


def stored_endpoints(environ: Mapping[str, str]) -> Iterator[Stored]:
    """Yield what files name, the active profile first.

    Raises:
        ConfigError: A file is malformed or may be read by others.
    """
    profile = _active_profile(config_file(environ), environ.get("APOTHIC_PROFILE"))
    if profile is not None:
        yield profile
    running = _running_cloud(endpoint_file(environ))
    if running is not None:
        yield running


def config_file(environ: Mapping[str, str]) -> Path:
    """Return the path of the profiles file; it need not exist."""
    base = environ.get("XDG_CONFIG_HOME") or ""
    folder = Path(base) if base.startswith("/") else _home(environ) / ".config"
    return folder / "apothic" / "config.toml"


def endpoint_file(environ: Mapping[str, str]) -> Path:
    """Return the path of the file that a running `apothic up` writes; it need not exist."""
    return _home(environ) / ".apothic" / "endpoint.json"


def is_alive(pid: int) -> bool:
    """Whether a process with this id exists, whoever owns it."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _netloc(scheme: str, host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host
    return shown if port == _PORTS[scheme] else f"{shown}:{port}"


def _home(environ: Mapping[str, str]) -> Path:
    home = environ.get("HOME")
    return Path(home) if home else Path.home()


def _for_socket(path: str, given: str | None) -> Endpoint:
    if given is not None:
        raise ConfigError("Inside a function a credential needs an address: pass base_url= together with it.")
    return Endpoint(f"unix:{path}", "http", "localhost", 80, source=SOCKET_VARIABLE, socket=path)


def _if_same(base_url: str, env_url: str | None, from_env: str | None) -> str | None:
    """Return the variables' credential unless it was exported together with another address."""
    if env_url is None or parse_url(env_url, source="APOTHIC_BASE_URL").url == parse_url(base_url).url:
        return from_env
    return None


def _for_url(url: str, source: str, credential: str | None, environ: Mapping[str, str]) -> Endpoint:
    """Return the endpoint of a named address; a stored key or process id is used only when stored for that address."""
    wanted = parse_url(url, source=source, authorization=credential)
    if credential is not None:
        return wanted
    for stored in stored_endpoints(environ):
        if parse_url(stored.url, source=stored.source).url == wanted.url:
            key = authorization(stored.key, None, None)
            return _at(stored, url, source, key)
    return wanted


def _at(stored: Stored, url: str, source: str, credential: str | None) -> Endpoint:
    found = parse_url(url, source=source, authorization=credential, pid=stored.pid)
    return replace(found, values=stored.values)


def read_config(path: Path) -> dict[str, Any]:
    """Return what the profiles file says; nothing when there is none.

    Raises:
        ConfigError: It cannot be read or is no TOML.
    """
    text = _read(path)
    return {} if text is None else _toml(path, text)


def _active_profile(path: Path, wanted: str | None) -> Stored | None:
    config = read_config(path)
    active = wanted or config.get("active")
    if active is None:
        return None
    profiles = config.get("profiles")
    profile = cast("dict[str, Any]", profiles).get(str(active)) if isinstance(profiles, dict) else None
    if not isinstance(profile, dict):
        which = "profile of APOTHIC_PROFILE," if wanted else "active profile"
        raise ConfigError(f"{path}: the {which} {active!r} does not exist; `apothic profile list` shows all")
    fields = cast("dict[str, Any]", profile)
    url, key = fields.get("base_url"), fields.get("api_key")
    if not isinstance(url, str) or not (key is None or isinstance(key, str)):
        raise ConfigError(f"{path}: profile {active!r} needs a text base_url, and api_key must be text")
    return Stored(url, key, f"profile {active}")


def _toml(path: Path, text: str) -> dict[str, Any]:
    try:
        import tomllib
    except ModuleNotFoundError:
        import tomli as tomllib
    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None


def _running_cloud(path: Path) -> Stored | None:
    text = _read(path, only_owner=True)
    if text is None:
        return None
    try:
        data: Any = json.loads(text)
    except ValueError:
        raise ConfigError(f"{path} is not valid JSON; remove it or run `apothic up` again") from None
    fields = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
    url, key, pid = fields.get("url"), fields.get("key"), fields.get("pid")
    if not isinstance(url, str) or not isinstance(key, str) or not isinstance(pid, int):
        raise ConfigError(f"{path} lacks a url, a key or a pid; remove it or run `apothic up` again")
    values = fields.get("values")
    return Stored(url, key, str(path), pid, values if isinstance(values, str) else None)


def _read(path: Path, *, only_owner: bool = False) -> str | None:
    """Return the text of a file, or None when it does not exist."""
    try:
        with path.open("rb") as file:
            if only_owner:
                _refuse_shared(path, os.fstat(file.fileno()))
            return file.read(FILE_BYTES_MAX).decode()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None


def _refuse_shared(path: Path, state: os.stat_result) -> None:
    if state.st_uid != os.geteuid():
        raise ConfigError(f"{path} belongs to another user, so the key in it is not used; remove the file")
    if stat.S_IMODE(state.st_mode) & 0o077:
        raise ConfigError(f"{path} can be read by others, so the key in it is not used; run: chmod 600 {path}")
